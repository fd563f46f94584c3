"""How a claim is kept, and when the work under it has to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pgml_tune.store.job_run import Claim
from pgml_tune.worker.hold import Hold, Stopped, Timing
from pgml_tune.worker.judgement import Stop
from pgml_tune.worker.link import Unreachable

CLAIM = Claim(7, 1, "import_model", {}, "alice", [], [], None, 0, 5)


class Answers:
    """A database that answers each statement with the next of these; None means that it cannot be asked."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def fetch(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        self.asked.append("beat" if "_beat_job" in sql else "look")
        answer = self.answers.pop(0)
        if "_beat_job" in sql:
            return [{"outcome": answer}]
        return [] if answer == "lost" else [{"is_cancelled": answer == "cancel"}]

    def use(self, work: Callable[[Any], Any]) -> Any:
        if self.answers and self.answers[0] is None:
            self.answers.pop(0)
            raise Unreachable("gone")
        return work(self)


def hold(answers: Answers, lease: float = 60.0, heartbeat: float = 10.0) -> Hold:
    return Hold(CLAIM, answers, Timing(lease, heartbeat), threading.Event())  # type: ignore[arg-type]


@pytest.mark.parametrize(("answer", "stop"), [("ok", None), ("cancel", Stop.CANCEL), ("lost", Stop.LOST)])
@pytest.mark.parametrize("heartbeat", [0.0, 10.0])
def test_whoever_works_learns_how_the_job_stands(answer: str, stop: Stop | None, heartbeat: float) -> None:
    answers = Answers(answer)
    assert hold(answers, heartbeat=heartbeat).stop() is stop
    assert answers.asked == ["look" if heartbeat else "beat"]


def test_the_database_is_asked_once_a_second() -> None:
    answers = Answers("ok")
    held = hold(answers)
    assert held.stop() is None and held.stop() is None
    assert len(answers.asked) == 1


def test_a_worker_that_ends_stops_its_work() -> None:
    held = hold(Answers())
    held.draining.set()
    assert held.stop() is Stop.DRAIN


def test_while_the_lease_lasts_the_work_goes_on_without_the_database() -> None:
    assert hold(Answers(None)).stop() is None


def test_when_the_lease_is_over_and_the_database_is_gone_so_is_the_job() -> None:
    assert hold(Answers(None), lease=0.0).stop() is Stop.LOST


def test_what_has_to_be_written_is_tried_until_the_database_is_back() -> None:
    assert hold(Answers(None, None, "ok")).insist(lambda db: "written") == "written"


def test_nothing_is_written_under_a_claim_that_is_lost() -> None:
    with pytest.raises(Stopped) as caught:
        hold(Answers("lost")).insist(lambda db: pytest.fail("written"))
    assert caught.value.stop is Stop.LOST


def test_writing_is_given_up_with_the_lease() -> None:
    with pytest.raises(Stopped):
        hold(Answers(None), lease=0.0).insist(lambda db: "written")
