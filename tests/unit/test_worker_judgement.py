"""What becomes of a job, decided from what is known."""

from __future__ import annotations

import signal

import pytest

from pgml_tune.errors import JobFailed, LimitExceeded
from pgml_tune.worker.judgement import Bounds, End, Fate, Stop, Usage, exceeded, judge

BOUNDS = Bounds(seconds=10, memory_bytes=1000, disk_bytes=100)
REPORTED = JobFailed("22023", "no such option")


def end(status: int = 0, **known: object) -> End:
    values = {"stopped": None, "error": None, "has_result": False, "lost_count": 0, "last_lines": ("a", "b")}
    return End(status, **(values | known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "sqlstate"),
    [
        (Usage(1, 1000, 100), None),
        (Usage(1, 1001, 100), "53200"),
        (Usage(1, 1000, 101), "53100"),
        (Usage(11, 1000, 100), "54000"),
    ],
)
def test_a_job_may_use_as_much_as_its_bounds_say(usage: Usage, sqlstate: str | None) -> None:
    error = exceeded(usage, BOUNDS)
    assert (error.sqlstate if error else None) == sqlstate


@pytest.mark.parametrize(
    ("known", "fate"),
    [
        ({"has_result": True}, Fate.FINISHED),
        ({"has_result": True, "stopped": Stop.CANCEL}, Fate.CANCELLED),
        ({"has_result": True, "stopped": Stop.LOST}, Fate.LOST),
        ({"status": -signal.SIGTERM, "stopped": Stop.DRAIN}, Fate.GIVEN_BACK),
        # It was done before it saw that it was to end.
        ({"has_result": True, "stopped": Stop.DRAIN}, Fate.FINISHED),
        ({"status": -signal.SIGKILL}, Fate.KILLED),
    ],
)
def test_a_job_ends_as_its_process_did(known: dict[str, object], fate: Fate) -> None:
    assert judge(end(**known)) == (fate, None)  # type: ignore[arg-type]


def test_the_error_that_a_job_reports_is_its_error() -> None:
    assert judge(end(1, error=REPORTED)) == (Fate.FAILED, REPORTED)


def test_the_bound_that_it_broke_explains_more_than_what_it_said_when_it_was_ended() -> None:
    bound = LimitExceeded("the job ran longer than 10 seconds")
    assert judge(end(1, error=REPORTED, stopped=bound)) == (Fate.FAILED, bound)


@pytest.mark.parametrize(
    ("known", "sqlstate"),
    [
        ({"status": -signal.SIGKILL, "lost_count": 1}, "53200"),
        ({"status": -signal.SIGSEGV}, "58000"),
        ({"status": 3}, "38000"),
        ({"status": 0}, "38000"),
    ],
)
def test_a_job_that_ends_without_a_report_fails_with_a_reason(known: dict[str, object], sqlstate: str) -> None:
    fate, error = judge(end(**known))  # type: ignore[arg-type]
    assert fate is Fate.FAILED and error is not None
    assert error.sqlstate == sqlstate
    assert error.message
