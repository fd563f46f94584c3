"""How rows that cannot be embedded are told from the others of their batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, SystemFault
from pgml_tune.settings import Limits
from pgml_tune.store import cache
from pgml_tune.store import queue as store
from pgml_tune.store.queue import Claimed, Queue, Text
from pgml_tune.worker.embedding_queue import EmbeddingQueue, Pauses
from pgml_tune.worker.feeding import Feeding
from pgml_tune.worker.link import Place

LIMITS = Limits.from_rows({"max_input_bytes": "100"})
QUEUE = Queue(1, "doc", 7, "minilm@v1", "00", None, 0, 100, True, True)


@dataclass
class FakeTable:
    """A table and its queue, in place of the statements on them."""

    texts: dict[str, str | None]
    rows: list[str]  # keys that wait, oldest first
    stored: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)  # not read this time
    counted: list[dict[str, float]] = field(default_factory=list)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before = (list(self.rows), dict(self.stored), list(self.counted))
        try:
            yield
        except BaseException:
            self.rows, self.stored, self.counted = before
            raise

    @contextmanager
    def undone(self) -> Iterator[None]:
        yield

    def renew(self) -> None:
        pass

    def claim(self, db: Any, collection_id: int, most: int) -> list[Claimed]:
        waiting = [(number, key) for number, key in enumerate(self.rows) if key not in (*self.failed, "done")]
        return [Claimed(number, (key,)) for number, key in waiting[:most]]

    def claim_again(self, db: Any, collection_id: int, ids: Sequence[int]) -> list[Claimed]:
        return [Claimed(number, (self.rows[number],)) for number in ids]

    def read_texts(self, db: Any, collection_id: int, keys: Sequence[store.Key]) -> list[Text]:
        texts = ((number, key[0], self.texts.get(key[0])) for number, key in enumerate(keys, 1))
        return [
            Text(number, None if key in self.left else text, sha256(text.encode()).digest())
            for number, key, text in texts
            if text is not None
        ]

    def store_vectors(
        self, db: Any, collection_id: int, keys: Sequence[store.Key], hashes: Sequence[bytes | None], passages: Any
    ) -> int:
        for number, _, vector in passages:
            assert hashes[number - 1] is not None
            self.stored[keys[number - 1][0]] = vector
        return len(passages)

    def remove(self, db: Any, collection_id: int, ids: Sequence[int]) -> None:
        for number in ids:
            self.rows[number] = "done"

    def fail(
        self, db: Any, collection_id: int, queue_id: int, sqlstate: str, message: str, is_final: bool
    ) -> bool:
        self.failed[self.rows[queue_id]] = sqlstate
        return is_final

    def write_counts(self, db: Any, counts: list[dict[str, float]]) -> None:
        self.counted += counts

    def count(self, name: str) -> float:
        assert {row["model_version_id"] for row in self.counted} == {7}
        return sum(row[name] for row in self.counted)


class FakePassages:
    """A model that refuses some texts."""

    def __init__(self, fault: Exception | None = None, *, well: bool = False) -> None:
        self.fault, self.well = fault, well
        self.seen: list[str] = []

    def chunks(self, digest: str, text: str, chunk_tokens: int, chunk_overlap: int) -> list[str]:
        return text.split()

    def is_well(self, digest: str, limits: Limits) -> bool:
        return self.well

    def embed(self, digest: str, texts: Sequence[str], limits: Limits, work: Work) -> list[bytes]:
        if self.fault is not None and any("bad" in text for text in texts):
            raise self.fault
        self.seen += texts
        work.tokens += 2 * len(texts)
        work.seconds += 0.5
        return [text.encode() for text in texts]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> FakeTable:
    found = FakeTable({f"{number}": f"text {number}" for number in range(20)}, [f"{number}" for number in range(20)])
    for name in ("claim", "claim_again", "read_texts", "store_vectors", "remove", "fail"):
        monkeypatch.setattr(store, name, getattr(found, name))
    monkeypatch.setattr(store, "set_timeouts", lambda *_: None)
    monkeypatch.setattr(cache, "write_counts", found.write_counts)
    return found


def feed(table: FakeTable, passages: FakePassages, queue: Queue = QUEUE) -> int:
    return Feeding(table, queue, passages, LIMITS).feed()  # type: ignore[arg-type]


def test_a_batch_is_embedded_at_once(table: FakeTable) -> None:
    passages = FakePassages()
    assert feed(table, passages) == 20
    assert table.stored["7"] == b"text 7"
    assert table.rows == ["done"] * 20


def test_a_row_that_waits_twice_is_embedded_once(table: FakeTable) -> None:
    table.rows = ["3", "4", "3", "3"]
    passages = FakePassages()
    assert feed(table, passages) == 4
    assert passages.seen == ["text 3", "text 4"]


@pytest.mark.parametrize("places", [[0], [19], [3, 4], [0, 7, 8, 19], list(range(20))])
def test_rows_at_fault_are_found_and_all_others_embedded(table: FakeTable, places: list[int]) -> None:
    for place in places:
        table.texts[f"{place}"] = "bad"
    assert feed(table, FakePassages(InvalidArgument("no usable vector"))) == 20
    assert table.failed == {f"{place}": "22023" for place in places}
    assert set(table.stored) == {f"{number}" for number in range(20)} - set(table.failed)


def test_a_batch_counts_as_one_call_and_a_row_that_fails_as_an_error(table: FakeTable) -> None:
    table.texts["5"] = table.texts["6"] = "bad"
    feed(table, FakePassages(InvalidArgument("no usable vector")))
    assert (table.count("texts"), table.count("tokens"), table.count("errors")) == (18, 36, 2)
    assert table.count("compute_ms") == 500 * table.count("calls")


def test_a_batch_that_is_not_stored_is_not_counted(table: FakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise SystemFault("the disk is full")

    monkeypatch.setattr(store, "store_vectors", refuse)
    with pytest.raises(SystemFault):
        feed(table, FakePassages())
    assert table.counted == []


def test_a_text_beyond_the_limit_is_at_fault(table: FakeTable) -> None:
    table.texts["5"] = "x" * 101
    feed(table, FakePassages())
    assert table.failed == {"5": "54000"}


def test_rows_are_not_at_fault_for_a_model_that_cannot_be_had(table: FakeTable) -> None:
    table.texts["5"] = "bad"
    with pytest.raises(SystemFault):
        feed(table, FakePassages(SystemFault("nobody answers")))
    assert table.failed == table.stored == {}
    assert "done" not in table.rows


@pytest.mark.parametrize("fault", [psycopg.errors.QueryCanceled(), psycopg.DataError("nested lists")])
def test_a_batch_that_takes_too_long_or_is_none_is_halved(table: FakeTable, fault: psycopg.Error) -> None:
    table.texts["5"] = "bad"
    assert feed(table, FakePassages(fault)) == 20
    assert set(table.failed) == {"5"}
    assert len(table.stored) == 19


@pytest.mark.parametrize("fault", [TypeError("of ours"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), KeyError(7)])
def test_a_fault_leaves_one_collection_for_a_while_and_not_the_others(fault: Exception) -> None:
    worker = EmbeddingQueue(Place(""), "worker", threading.Event())
    pauses = Pauses()

    def fail() -> int:
        raise fault

    db: Any = SimpleNamespace(is_lost=False)
    assert worker.guarded(db, pauses, QUEUE, fail) == 0
    assert pauses.is_paused(QUEUE.collection_id)
    assert worker.guarded(db, pauses, replace(QUEUE, collection_id=2), lambda: 3) == 3


def test_a_text_that_the_model_fails_on_is_at_fault_as_long_as_others_are_computed(table: FakeTable) -> None:
    table.texts["5"] = "bad"
    assert feed(table, FakePassages(SystemFault("the worker has failed on the request"), well=True)) == 20
    assert table.failed == {"5": "58000"}
    assert len(table.stored) == 19


def test_what_was_too_much_to_read_waits_for_the_next_batch(table: FakeTable) -> None:
    table.left = {"18", "19"}
    assert feed(table, FakePassages()) == 18
    assert table.rows[17:] == ["done", "18", "19"]


def test_rows_that_are_gone_need_no_model(table: FakeTable) -> None:
    table.texts.clear()
    passages = FakePassages()
    assert feed(table, passages) == 20
    assert passages.seen == []


def test_chunks_are_numbered_from_one(table: FakeTable) -> None:
    chunked = Queue(1, "doc", 7, "minilm@v1", "00", 8, 0, 100, True, True)
    passages = FakePassages()
    feed(table, passages, chunked)
    assert passages.seen[:4] == ["text", "0", "text", "1"]


def test_pauses_double_until_it_works_again() -> None:
    now = [0.0]
    pauses = Pauses(lambda: now[0])
    assert not pauses.is_paused(1)
    assert pauses.pause(1) == 0.5
    assert pauses.is_paused(1)
    assert not pauses.is_paused(2)
    now[0] = 0.6
    assert not pauses.is_paused(1)
    assert pauses.pause(1) == 1.0
    now[0] = 1.5
    assert pauses.is_paused(1)
    for _ in range(20):
        pauses.pause(1)
    now[0] += 29
    assert pauses.is_paused(1)
    now[0] += 2
    assert not pauses.is_paused(1)
    pauses.end(1)
    assert pauses.pause(1) == 0.5
