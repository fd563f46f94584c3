"""Feeds a collection in mode queue: a batch of the rows that wait, from their keys to their vectors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import psycopg

from pgml_tune.db import Connection
from pgml_tune.engine.work import Work
from pgml_tune.errors import SystemFault, TuneError
from pgml_tune.service.counters import Counters
from pgml_tune.service.inputs import encoded
from pgml_tune.settings import Limits
from pgml_tune.store import cache
from pgml_tune.store import queue as store
from pgml_tune.store.queue import Claimed, Queue
from pgml_tune.worker.caution import Caution

# What is wrong with a row, and with no other: data, a limit, a constraint. Half of what took too long takes less.
_OF_A_ROW = ("22", "23", "54", "57014")
_READ_SECONDS, _LOCK_SECONDS = "1min", "1s"
_STORE_SECONDS, _STORE_LOCK_SECONDS = "5min", "20s"  # thousands of passages may go into the graph of an index
log = logging.getLogger("pgml_tune.worker")


class Passages(Protocol):
    """Makes vectors of passages."""

    def chunks(self, digest: str, text: str, chunk_tokens: int, chunk_overlap: int) -> list[str]:
        """A text in pieces of at most so many tokens."""
        ...

    def embed(self, digest: str, texts: Sequence[str], limits: Limits, work: Work) -> list[bytes]:
        """The vectors of texts as 32-bit floats."""
        ...

    def is_well(self, digest: str, limits: Limits) -> bool:
        """Whether the model computes another text now."""
        ...


@dataclass(frozen=True, slots=True)
class Feeding:
    """What it takes to feed a collection."""

    db: Connection
    queue: Queue
    passages: Passages
    limits: Limits
    caution: Caution = field(default_factory=Caution)

    def feed(self) -> int:
        """Deal with the rows that have waited longest, and say with how many."""
        suspects = self.caution.suspects(self.queue.digest)
        if suspects:
            return self._feed_alone(suspects.get(self.queue.collection_id, []))
        crashes = self.caution.crashes_of(self.queue.digest)
        held: list[Claimed] = []

        def claim() -> list[Claimed]:
            held.extend(store.claim(self.db, self.queue.collection_id, self.queue.batch_size))
            return held

        try:
            return self._deal_with(claim)
        except (TuneError, psycopg.Error) as error:
            if held and error.sqlstate == SystemFault.sqlstate:
                ids = [row.queue_id for row in held]
                self.caution.lose(self.queue.digest, self.queue.collection_id, ids, crashes)
            if not held or not self._is_of_a_row(error):
                raise
            return self._isolate([row.queue_id for row in held], error)

    def _feed_alone(self, queue_ids: Sequence[int]) -> int:
        """Deal with rows one by one, of which one may crash the model, while no other of this database is with it."""
        if not self.caution.alone.acquire(blocking=False):
            return 0
        try:
            return sum(self._try_alone(queue_id) for queue_id in queue_ids)
        finally:
            self.caution.alone.release()

    def _try_alone(self, queue_id: int) -> int:
        digest = self.queue.digest
        if not self.caution.try_alone(digest, queue_id):
            self._fail(queue_id, SystemFault("the model has crashed on this text"), is_final=True)
            done, is_embedded = 1, False
        else:
            try:
                done = self._deal_with(partial(store.claim_again, self.db, self.queue.collection_id, [queue_id]))
                is_embedded = done > 0
            except (TuneError, psycopg.Error) as error:
                if error.sqlstate != SystemFault.sqlstate:
                    self.caution.try_later(digest)
                if not self._is_of_a_row(error):
                    raise
                self._fail(queue_id, error)
                done, is_embedded = 1, False
        self.caution.clear(digest, self.queue.collection_id, queue_id, is_embedded=is_embedded)
        return done

    def _isolate(self, queue_ids: Sequence[int], error: TuneError | psycopg.Error) -> int:
        """Deal with rows one of which is at fault: halves of them, and halves of these."""
        if len(queue_ids) <= 1:
            for queue_id in queue_ids:
                self._fail(queue_id, error)
            return len(queue_ids)
        half = len(queue_ids) // 2
        done = 0
        for part in (queue_ids[:half], queue_ids[half:]):
            try:
                done += self._deal_with(partial(store.claim_again, self.db, self.queue.collection_id, part))
            except (TuneError, psycopg.Error) as cause:
                if not self._is_of_a_row(cause):
                    raise
                done += self._isolate(part, cause)
        return done

    def _deal_with(self, claim: Callable[[], list[Claimed]]) -> int:
        with self.db.transaction():
            held = claim()
            return self._embed(held) if held else 0

    def _embed(self, held: list[Claimed]) -> int:
        queue = self.queue
        keys = list(dict.fromkeys(row.key for row in held))  # a row that has changed twice is embedded once
        with self.db.undone():
            # No lock on the table keeps anybody waiting while the model works; who makes its index is not waited for.
            store.set_timeouts(self.db, _READ_SECONDS, _LOCK_SECONDS)
            texts = store.read_texts(self.db, queue.collection_id, keys)
        hashes: list[bytes | None] = [None] * len(keys)
        places: list[tuple[int, int]] = []
        pieces: list[str] = []
        left: set[store.Key] = set()
        for text in texts:
            key = keys[text.key_no - 1]
            if text.content is None:
                left.add(key)
                continue
            encoded(text.content, self.limits)
            hashes[text.key_no - 1] = text.sha256
            for chunk_no, piece in enumerate(self._chunks(text.content), 1):
                places.append((text.key_no, chunk_no))
                pieces.append(piece)
        vectors = self._vectors(pieces) if pieces else []
        passages = [(*place, vector) for place, vector in zip(places, vectors, strict=True)]
        store.set_timeouts(self.db, _STORE_SECONDS, _STORE_LOCK_SECONDS)
        store.store_vectors(self.db, queue.collection_id, keys, hashes, passages)
        self.db.renew()
        done = [row.queue_id for row in held if row.key not in left]
        store.remove(self.db, queue.collection_id, done)
        return len(done)

    def _vectors(self, pieces: Sequence[str]) -> list[bytes]:
        """The vectors of texts, which count as one call as soon as they are committed."""
        work, started = Work(), time.perf_counter()
        vectors = self.passages.embed(self.queue.digest, pieces, self.limits, work)
        counters = Counters()
        count = counters.of(self.queue.model_version_id)
        count.add_call(len(pieces), (time.perf_counter() - started) * 1000)
        count.tokens, count.truncated, count.compute_ms = work.tokens, work.truncated, work.seconds * 1000
        cache.write_counts(self.db, counters.rows())
        return vectors

    def _is_of_a_row(self, error: TuneError | psycopg.Error) -> bool:
        """Whether a row is at fault, and not the model or the database: others would be dealt with."""
        if error.sqlstate == SystemFault.sqlstate and isinstance(error, TuneError):
            return self.passages.is_well(self.queue.digest, self.limits)
        return _is_in_a_row(error)

    def _chunks(self, text: str) -> list[str]:
        if self.queue.chunk_tokens is None:
            return [text]
        return self.passages.chunks(self.queue.digest, text, self.queue.chunk_tokens, self.queue.chunk_overlap)

    def _fail(self, queue_id: int, error: TuneError | psycopg.Error, *, is_final: bool = False) -> None:
        message = error.message if isinstance(error, TuneError) else str(error.diag.message_primary or error)
        counters = Counters()
        counters.of(self.queue.model_version_id).errors = 1
        with self.db.transaction():
            is_given_up = store.fail(
                self.db, self.queue.collection_id, queue_id, error.sqlstate or "58000", message, is_final
            )
            cache.write_counts(self.db, counters.rows())
        log.log(
            logging.ERROR if is_given_up else logging.WARNING,
            "%s: a row %s: %s", self.queue, "is given up" if is_given_up else "is tried again later", message,
        )  # fmt: skip


def _is_in_a_row(error: TuneError | psycopg.Error) -> bool:
    # Of the client itself, without a SQLSTATE: keys of different lengths in one array.
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "").startswith(_OF_A_ROW)
