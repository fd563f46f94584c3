"""How a row whose text crashes native code is found, and what becomes of the model and of the other rows."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pgml_tune.engine.work import Work
from pgml_tune.errors import SystemFault
from pgml_tune.settings import Limits
from pgml_tune.worker.caution import Caution
from pgml_tune.worker.feeding import Feeding
from pgml_tune.worker.suspicion import MOST_CRASHES, Suspicion
from tests.unit.test_feeding import LIMITS, QUEUE, FakePassages, FakeTable, table

__all__ = ["table"]


class CrashingPassages(FakePassages):
    """A process that texts crash, and that is killed now and then by somebody else."""

    def __init__(self, suspicion: Suspicion, kills: Sequence[int] = ()) -> None:
        super().__init__()
        self.suspicion, self.kills = suspicion, kills
        self.calls = self.crashes = 0

    def embed(self, digest: str, texts: Sequence[str], limits: Limits, work: Work) -> list[bytes]:
        self.calls += 1
        if digest in self.suspicion.quarantined:
            raise SystemFault("not run any more")
        if self.calls in self.kills:
            self.suspicion.ended(-signal.SIGKILL, {digest})
            raise SystemFault("killed")
        if any("bad" in text for text in texts):
            self.crashes += 1
            self.suspicion.ended(-signal.SIGSEGV, {digest})
            raise SystemFault("crashed")
        return super().embed(digest, texts, limits, work)


def feed_on(table: FakeTable, passages: CrashingPassages, most: int = 100) -> Caution:
    """Feeds until nothing is left or it was tried so often."""
    caution = Caution(passages.suspicion, chance=random.Random(2))
    for _ in range(most):
        try:
            if not Feeding(table, replace(QUEUE, batch_size=8), passages, LIMITS, caution).feed():  # type: ignore[arg-type]
                break
        except SystemFault:
            pass
    return caution


@pytest.mark.parametrize("places", [[0], [7], [3, 4], [0, 5, 9, 19]])
def test_a_row_that_crashes_its_model_is_given_up_and_the_model_goes_on(table: FakeTable, places: list[int]) -> None:
    for place in places:
        table.texts[f"{place}"] = "bad"
    passages = CrashingPassages(Suspicion())
    feed_on(table, passages)
    assert table.failed == {f"{place}": "58000" for place in places}
    assert set(table.stored) == {f"{number}" for number in range(20)} - set(table.failed)
    assert (passages.suspicion.suspects, passages.suspicion.quarantined) == ([], [])
    assert passages.crashes <= 2 * len(places)


def test_rows_are_not_at_fault_for_a_process_that_others_kill(table: FakeTable) -> None:
    passages = CrashingPassages(Suspicion(), kills=range(1, 30, 2))
    feed_on(table, passages)
    assert table.failed == {}
    assert len(table.stored) == 20


def test_kills_while_a_row_is_looked_for_blame_no_other(table: FakeTable) -> None:
    table.texts["5"] = "bad"
    passages = CrashingPassages(Suspicion(), kills=range(2, 60, 3))
    feed_on(table, passages)
    assert table.failed == {"5": "58000"}
    assert len(table.stored) == 19


def test_a_model_that_too_many_texts_crash_is_not_run_any_more(table: FakeTable) -> None:
    table.texts = {f"{number}": "bad" if number % 2 else "text" for number in range(200)}
    table.rows = list(table.texts)
    passages = CrashingPassages(Suspicion())
    feed_on(table, passages, 400)
    assert passages.suspicion.quarantined == [QUEUE.digest]
    assert 0 < len(table.failed) < 20


def test_a_model_that_crashes_on_every_text_is_not_run_any_more_after_three_crashes(table: FakeTable) -> None:
    table.texts = dict.fromkeys(table.texts, "bad")
    passages = CrashingPassages(Suspicion())
    feed_on(table, passages)
    assert passages.suspicion.quarantined == [QUEUE.digest]
    assert passages.crashes == 3
    assert len(table.failed) <= 2


def test_a_model_that_others_have_crashed_is_not_tried(table: FakeTable) -> None:
    suspicion = Suspicion()
    for _ in range(MOST_CRASHES):
        suspicion.ended(-signal.SIGSEGV, {QUEUE.digest})
    feed_on(table, CrashingPassages(suspicion), 20)
    assert suspicion.quarantined == [QUEUE.digest]
    assert table.failed == table.stored == {}


def test_other_collections_of_a_model_wait_for_its_suspects_but_not_for_ever() -> None:
    now, suspicion = [0.0], Suspicion()
    caution = Caution(suspicion, lambda: now[0])
    caution.lose("00", 1, [5, 6], 0)
    assert caution.suspects("00") == {}
    suspicion.ended(-signal.SIGSEGV, {"00"})
    assert {place: sorted(rows) for place, rows in caution.suspects("00").items()} == {1: [5, 6]}
    assert caution.suspects("11") == {}
    caution.clear("00", 1, 5, is_embedded=True)
    assert caution.suspects("00") == {1: [6]}
    now[0] = 121.0
    assert caution.suspects("00") == {}


def test_a_crash_long_after_a_loss_is_another_one() -> None:
    now, suspicion = [0.0], Suspicion()
    caution = Caution(suspicion, lambda: now[0])
    caution.lose("00", 1, [5], 0)
    now[0] = 11.0
    assert caution.suspects("00") == {}
    suspicion.ended(-signal.SIGSEGV, {"00"})
    assert caution.suspects("00") == {}
