"""What whoever opens the report should know first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgml_tune.report import figures
from pgml_tune.store.facts import Facts

_ERROR_SHARE = 0.01  # of the calls of a version
_SQLSTATES = "SELECT sqlstate, count(*) FROM pgml_tune.inference_logs WHERE outcome <> 'ok' GROUP BY sqlstate"


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence, how bad it is (bad or warn), and the statement that shows more or mends it."""

    level: str
    words: str
    statement: str


def notes(facts: Facts) -> list[Note]:
    """What is wrong or waits for somebody, the worst first."""
    found = [*_rollouts(facts), *_pointers(facts), *_calls(facts), *_jobs(facts), *_drifts(facts), *_logs(facts)]
    return sorted(found, key=lambda note: note.level != "bad")


def _rollouts(facts: Facts) -> Iterator[Note]:
    for rollout in facts.rollouts:
        name = f"The rollout of {rollout.model} to {rollout.to_version}"
        explain = f"SELECT rollout_explain({rollout.rollout_id})"
        if rollout.state == "paused":
            yield Note("warn", f"{name} is paused at {figures.part(rollout.share)}.", explain)
        elif rollout.state == "rolled_back":
            yield Note("warn", f"{name} was rolled back{_because(rollout.reason)}.", explain)
        elif rollout.ended_at is None and rollout.looked_at is None:
            yield Note("warn", f"Nobody has judged {name[0].lower()}{name[1:]} yet.", "CALL rollout_tick()")


def _because(reason: str | None) -> str:
    return f": {reason.rstrip('.')}" if reason else ""


def _pointers(facts: Facts) -> Iterator[Note]:
    for model in facts.pending:
        yield Note("warn", f"Searches of {model} use the new version, plain embed() not yet.", "CALL rollout_tick()")


def _calls(facts: Facts) -> Iterator[Note]:
    for usage in facts.usage:
        name = f"{usage.model}@{usage.version}"
        if usage.lost:
            words = f"{figures.counted(usage.lost, 'call', 'calls')} of {name} never ended: the session died."
            yield Note("bad", words, "SELECT * FROM pgml_tune.inference_logs WHERE outcome = 'lost'")
        failed = usage.errors + usage.fallbacks
        if failed > _ERROR_SHARE * usage.calls:
            words = f"{figures.percent(failed / usage.calls)} of the calls of {name} failed."
            yield Note("bad", words, _SQLSTATES)


def _jobs(facts: Facts) -> Iterator[Note]:
    failed = [job for job in facts.jobs if job.state == "failed"]
    if failed:
        words = "A job has failed" if len(failed) == 1 else f"{len(failed)} jobs have failed"
        yield Note("warn", f"{words}.", f"SELECT job_log({failed[0].job_id})")


def _drifts(facts: Facts) -> Iterator[Note]:
    for drift in facts.drifts:
        if drift.outcome == "drift":
            words = f"The texts that {drift.model} gets have changed: {drift.metric.replace('_', ' ')}."
            yield Note("warn", words, f"SELECT * FROM drift_report('{drift.model}')")


def _logs(facts: Facts) -> Iterator[Note]:
    if facts.dropped_bytes:
        words = f"{figures.size(facts.dropped_bytes)} of logs were dropped because nobody ingested them in time."
        yield Note("warn", words, "CALL maintain()")
