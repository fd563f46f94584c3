"""Accompanies the process of a job: listens, measures, tells, and ends it when it must not go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pgml_tune.db import Database
from pgml_tune.errors import TuneError
from pgml_tune.store import job_run
from pgml_tune.worker.child import Child
from pgml_tune.worker.events import Reports, parse_event, plain_line
from pgml_tune.worker.hold import Hold
from pgml_tune.worker.judgement import Bounds, Stop, Usage, exceeded
from pgml_tune.worker.link import Unreachable
from pgml_tune.worker.processes import disk_bytes

_TICK_SECONDS = 0.5
_BREATH_SECONDS = 0.02
_DISK_SECONDS = 2.0
_LEAVE_SECONDS = 5.0  # between asking a process to end and ending it
_MOST_UNWRITTEN_LINES = 10_000
_REMEMBERED_LINES = 20


@dataclass(slots=True)
class Watch:
    """A process, what may be used by it, and what it has said."""

    child: Child
    hold: Hold
    reports: Reports
    bounds: Bounds
    folders: Callable[[], Sequence[Path]]  # where it writes
    last_lines: list[str] = field(default_factory=list)  # of its standard error
    _told: tuple[object, ...] = ()

    def accompany(self) -> Stop | TuneError | None:
        """Stay until the process has ended; why it was ended, if it was."""
        started = time.monotonic()
        usage, next_disk, kill_at = Usage(0.0, 0, 0), started, 0.0
        stopped: Stop | TuneError | None = None
        while not self._listen():
            now = time.monotonic()
            if stopped is None:
                usage = replace(usage, seconds=now - started, memory_bytes=self._measure_memory())
                if now >= next_disk:
                    next_disk = now + _DISK_SECONDS
                    usage = replace(usage, disk_bytes=disk_bytes(self.folders()))
                stopped = exceeded(usage, self.bounds) or self.hold.stop()
                if stopped is not None:
                    self.child.terminate()
                    kill_at = now if usage.memory_bytes > self.bounds.memory_bytes else now + _LEAVE_SECONDS
            if stopped is not None and now >= kill_at:
                self.child.kill()
            self._tell()
        return stopped

    def close(self) -> int:
        """End whatever is left of the process and hear its last words; its status."""
        status, rest = self.child.close()
        for is_report, line in rest:
            self._take(is_report, line)
        return status

    def write(self, db: Database) -> None:
        """Write down what is new."""
        claim, reports = self.hold.claim, self.reports
        found = (len(reports.artifacts), len(reports.evaluations))
        if any(found) and found != self._told[1:]:
            job_run.publish(db, replace(reports.on(claim), result=None))
        if reports.lines:
            job_run.log(db, claim, reports.lines)
            reports.lines.clear()
        if reports.progress and (reports.progress, *found) != self._told:
            job_run.tell_progress(db, claim, reports.progress)
        self._told = (reports.progress, *found)

    def _listen(self) -> bool:
        for is_report, line in self.child.read(_TICK_SECONDS):
            self._take(is_report, line)
        if self.child.has_ended():
            return True
        time.sleep(_BREATH_SECONDS)  # it may have closed its streams and go on
        return False

    def _take(self, is_report: bool, line: str) -> None:
        event = parse_event(line) if is_report else None
        if event is not None:
            self.reports.take(event)
            return
        if len(self.reports.lines) < _MOST_UNWRITTEN_LINES:
            self.reports.lines.append(plain_line(line))
        self.last_lines = [*self.last_lines, plain_line(line)][-_REMEMBERED_LINES:]

    def _measure_memory(self) -> int:
        held = self.child.memory_bytes(self.bounds.memory_bytes)
        self.hold.memory_bytes = max(self.hold.memory_bytes, held)
        return held

    def _tell(self) -> None:
        with contextlib.suppress(Unreachable):  # later, then
            self.hold.link.use(self.write)
