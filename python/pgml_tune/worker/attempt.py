"""One claim of a job, from its rows to its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.machine_memory import machine_bytes
from pgml_tune.errors import InvalidArgument, JobFailed, TuneError
from pgml_tune.service.job_end import Target, end_job
from pgml_tune.service.job_options import check_parameters
from pgml_tune.settings import Limits, Paths
from pgml_tune.store import job_run
from pgml_tune.worker.child import Child, command, environment
from pgml_tune.worker.events import Reports
from pgml_tune.worker.folder import building_folders, folder_of, lay_out, remove
from pgml_tune.worker.hold import Hold, Stopped
from pgml_tune.worker.judgement import Bounds, End, Fate, Stop, judge, last_words
from pgml_tune.worker.watch import Watch

_FATES = {Stop.CANCEL: Fate.CANCELLED, Stop.DRAIN: Fate.GIVEN_BACK, Stop.LOST: Fate.LOST}
_MACHINE_SHARE = 0.75
# Of ours: what a job asks for, somebody may have written by hand.
_FAULTS = (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError, psycopg.ProgrammingError)
log = logging.getLogger("pgml_tune.worker")


@dataclass(slots=True)
class Attempt:
    """A job that this worker holds."""

    hold: Hold
    paths: Paths
    limits: Limits

    def __str__(self) -> str:
        claim = self.hold.claim
        return f"[{self.hold.link.place.database}] job {claim.job_id} ({claim.kind} of {claim.created_by})"

    def run(self) -> None:
        """Run the job to its end, or until it is somebody else's."""
        log.info("%s: claim %d", self, self.hold.claim.token)
        try:
            try:
                fate, error = self._earlier_fate() or self._run_process()
            except Stopped as stopped:
                fate, error = _FATES[stopped.stop], None
            except TuneError as refusal:
                fate, error = Fate.FAILED, refusal
            except _FAULTS as fault:
                log.exception("%s: a fault of the worker", self)
                fate, error = Fate.FAILED, JobFailed("38000", "the worker cannot run the job", detail=repr(fault))
            self._conclude(fate, error)
        except Stopped as stopped:
            log.warning("%s: given up, %s", self, stopped)
        except psycopg.Error as failure:  # the extension was dropped, or is another version by now
            log.error("%s: given up, %s", self, failure)
        finally:
            self.hold.link.close()

    def _earlier_fate(self) -> tuple[Fate, TuneError | None] | None:
        """Done, if an earlier holder was lost between the last file and the registration."""
        if self.hold.claim.result is None:
            return None
        try:
            for artifact in self.hold.claim.artifacts:
                Artifact(self.paths.model_root, artifact["digest"]).verify()
        except TuneError as error:
            log.warning("%s: runs once more, %s", self, error.message)
            return None
        log.info("%s: was done already", self)
        return Fate.FINISHED, None

    def _run_process(self) -> tuple[Fate, TuneError | None]:
        try:
            return self._work()
        finally:
            remove(self.paths, self.hold.claim)

    def _work(self) -> tuple[Fate, TuneError | None]:
        claim = self.hold.claim
        check_parameters(claim.kind, claim.parameters)
        Target.parse(claim.parameters)  # before hours of work
        threads = chosen_threads(claim.parameters, self.limits.job_threads)
        parts = self.hold.insist(lambda db: lay_out(db, self.paths, claim, threads, lambda: self.hold.keep_up(db)))
        folder = folder_of(self.paths, claim)
        child = Child(command(claim.job_id), folder, environment(os.environ, claim.kind, folder, threads))
        watch = Watch(
            child=child,
            hold=self.hold,
            reports=Reports({part.part: part for part in parts}),
            bounds=chosen_bounds(self.limits, machine_bytes()),
            folders=lambda: [folder, *building_folders(self.paths, claim)],
        )
        stopped: Stop | TuneError | None = None
        try:
            stopped = watch.accompany()
        finally:
            status = watch.close()
        fate, error = judge(
            End(
                status=status,
                stopped=stopped,
                error=watch.reports.error,
                has_result=watch.reports.result is not None,
                lost_count=claim.lost_count,
                last_lines=last_words(watch.last_lines),
            )
        )
        if fate is not Fate.LOST:
            self.hold.insist(watch.write)
        if fate is Fate.FINISHED:
            self._publish(watch.reports)
        return fate, error

    def _publish(self, reports: Reports) -> None:
        """Write down that the job is done: whoever takes it over from here on only has to register it."""
        self.hold.claim = reports.on(self.hold.claim)
        try:
            self.hold.insist(lambda db: job_run.publish(db, self.hold.claim))
        except psycopg.Error as error:
            raise _as_job_error(error) from None

    def _conclude(self, fate: Fate, error: TuneError | None) -> None:
        """Write the fate of the job."""
        if fate is Fate.FINISHED:
            fate, error = self._register()
        claim = self.hold.claim
        if fate is Fate.FAILED and error is not None:
            refusal = error
            self.hold.insist(lambda db: job_run.fail(db, claim, refusal))
        elif fate is Fate.CANCELLED:
            self.hold.insist(lambda db: job_run.end_cancelled(db, claim))
        elif fate in (Fate.GIVEN_BACK, Fate.KILLED):
            self.hold.insist(lambda db: job_run.give_back(db, claim, is_lost=fate is Fate.KILLED))
        log.info("%s: %s", self, f"ERROR {error.sqlstate}: {error.message}" if error else fate.value)

    def _register(self) -> tuple[Fate, TuneError | None]:
        """Register what was published, or find that it cannot be."""
        try:
            ending = self.hold.insist(lambda db: end_job(db, self.paths.model_root, self.hold.claim))
        except TuneError as error:
            return Fate.FAILED, error
        except psycopg.Error as error:
            return Fate.FAILED, _as_job_error(error)
        return {"succeeded": Fate.SUCCEEDED, "cancelled": Fate.CANCELLED, "lost": Fate.LOST}[ending], None


def chosen_threads(parameters: Mapping[str, Any], allowed: int) -> int:
    """Cores for a job: as many as were asked for, as are allowed and as there are."""
    asked = parameters.get("threads", 0)
    if type(asked) is not int or asked < 0:
        raise InvalidArgument('option "threads" is not a number of cores')
    return min(number for number in (asked, allowed, len(os.sched_getaffinity(0))) if number)


def chosen_bounds(limits: Limits, machine_memory: int) -> Bounds:
    """What a job may use, by the settings and by what there is."""
    memory = limits.job_memory_bytes or int(machine_memory * _MACHINE_SHARE)
    return Bounds(limits.job_seconds, memory, limits.job_disk_bytes)


def _as_job_error(error: psycopg.Error) -> TuneError:
    diagnosis = error.diag
    return JobFailed(
        error.sqlstate or "58000",
        diagnosis.message_primary or str(error),
        detail=diagnosis.message_detail or "",
        hint=diagnosis.message_hint or "",
    )
