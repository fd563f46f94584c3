"""Statements of the worker on the queue of rows that have to be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgml_tune.db import Database
from pgml_tune.db.vectors import Vectors

_QUEUES = """
SELECT q.collection_id, q.name, q.model_version_id, q.model_reference, q.digest, q.chunk_tokens, q.chunk_overlap,
       q.batch_size, q.is_waiting, q.is_filled
FROM pgml_tune._queues() AS q
"""
_IS_FED = "SELECT EXISTS (SELECT FROM pgml_tune.collection AS c WHERE c.mode = 'queue') AS is_fed"
_IS_NEEDED = """
SELECT EXISTS (SELECT FROM pgml_tune.collection AS c WHERE c.mode = 'queue') OR EXISTS (SELECT FROM pgml_tune.queue)
    AS is_needed
"""
# Whatever a transaction claims is its own until it ends, however it ends.
_CLAIM = """
SELECT q.queue_id, q.key FROM pgml_tune.queue AS q
WHERE q.collection_id = $1::int8 AND (q.due_at IS NULL OR q.due_at <= pg_catalog.clock_timestamp())
ORDER BY q.queue_id LIMIT $2::int8 FOR UPDATE SKIP LOCKED
"""
_CLAIM_AGAIN = """
SELECT q.queue_id, q.key FROM pgml_tune.queue AS q
WHERE q.collection_id = $1::int8 AND q.queue_id = ANY ($2::int8[])
ORDER BY q.queue_id FOR UPDATE SKIP LOCKED
"""
_READ = """
SELECT f.key_no, f.content, f.text_sha256
FROM pgml_tune._feed_collection($1::int8, $2::text[], NULL, NULL, NULL, NULL) AS f
"""
_STORE = """
SELECT pg_catalog.count(*) AS stored
FROM pgml_tune._feed_collection($1::int8, $2::text[], $3::bytea[], $4::int4[], $5::int4[], $6) AS f
"""
_VECTOR_TYPE = """
SELECT t.oid::int8 AS type_id FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_extension AS e ON e.extnamespace = t.typnamespace
WHERE e.extname = 'vector' AND t.typname = 'vector'
"""
_REMOVE = """
WITH gone AS (
    DELETE FROM pgml_tune.queue AS q WHERE q.collection_id = $1::int8 AND q.queue_id = ANY ($2::int8[])
    RETURNING q.collection_id, q.key
)
DELETE FROM pgml_tune.queue_failure AS f USING gone AS g WHERE f.collection_id = g.collection_id AND f.key = g.key
"""
_FAIL = "SELECT pgml_tune._fail_queued($1::int8, $2::int8, $3::text, $4::text, $5::bool) AS is_given_up"
_FILL = "SELECT f.queued, f.last_id FROM pgml_tune._fill_queue($1::bigint) AS f"
_IS_DUE = """
SELECT EXISTS (
    SELECT FROM pgml_tune.queue AS q WHERE q.collection_id = $1::int8 AND q.queue_id <= $2::int8
) AS is_due
"""
_SET_TIMEOUTS = """
SELECT pg_catalog.set_config('statement_timeout', $1::text, true), pg_catalog.set_config('lock_timeout', $2::text, true)
"""
_FINISH = "SELECT pgml_tune._finish_collection($1::int8) AS missing"
_SWEEP = """
DELETE FROM pgml_tune.queue AS q WHERE q.ctid = ANY (ARRAY(
    SELECT o.ctid FROM pgml_tune.queue AS o
    WHERE NOT EXISTS (
        SELECT FROM pgml_tune.collection AS c WHERE c.collection_id = o.collection_id AND c.mode = 'queue'
    )
    FOR UPDATE SKIP LOCKED
))
"""
_LAGS = """
SELECT q.name, q.waiting, q.given_up,
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - q.oldest_at), 0)::float8 AS seconds
FROM pgml_tune._queue_lags AS q ORDER BY q.name
"""
_IS_SERVED = "SELECT pgml_tune._has_steady_worker() AS is_served"
_REFILL = "SELECT pgml_tune._refill_collection($1::bigint) AS is_served"

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """A collection in mode queue, as the worker feeds it."""

    collection_id: int
    name: str
    model_version_id: int
    model_reference: str
    digest: str
    chunk_tokens: int | None
    chunk_overlap: int
    batch_size: int
    is_waiting: bool  # rows are due
    is_filled: bool  # all rows that it began with have been queued

    def __str__(self) -> str:
        return f'collection "{self.name}" ({self.model_reference})'


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row of the queue that this transaction holds."""

    queue_id: int
    key: Key


@dataclass(frozen=True, slots=True)
class Text:
    """What has to be embedded; None is read another time."""

    key_no: int  # counts from 1
    content: str | None
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a collection is behind its table."""

    name: str
    waiting: int  # rows
    given_up: int
    seconds: float  # since the oldest was queued


def is_fed(db: Database) -> bool:
    """Whether any collection is in mode queue."""
    return bool(db.fetch(_IS_FED)[0]["is_fed"])


def is_needed(db: Database) -> bool:
    """Whether any collection is in mode queue, or something is left of one."""
    return bool(db.fetch(_IS_NEEDED)[0]["is_needed"])


def queues(db: Database) -> list[Queue]:
    """The collections in mode queue."""
    return [Queue(**row) for row in db.fetch(_QUEUES)]


def claim(db: Database, collection_id: int, most: int) -> list[Claimed]:
    """The oldest rows that nobody else holds."""
    rows = db.fetch(_CLAIM, collection_id, most)
    return [Claimed(row["queue_id"], tuple(row["key"])) for row in rows]


def claim_again(db: Database, collection_id: int, queue_ids: Sequence[int]) -> list[Claimed]:
    """Those of these rows that nobody else holds."""
    rows = db.fetch(_CLAIM_AGAIN, collection_id, list(queue_ids))
    return [Claimed(row["queue_id"], tuple(row["key"])) for row in rows]


def read_texts(db: Database, collection_id: int, keys: Sequence[Key]) -> list[Text]:
    """The texts of these rows that have no vectors yet."""
    rows = db.fetch(_READ, collection_id, [list(key) for key in keys])
    return [Text(row["key_no"], row["content"], row["text_sha256"]) for row in rows]


def store_vectors(
    db: Database,
    collection_id: int,
    keys: Sequence[Key],
    hashes: Sequence[bytes | None],
    passages: Sequence[tuple[int, int, bytes]],
) -> int:
    """Write passages (number of the key, of the chunk, 32-bit floats) of rows that still have the text of their hash.

    Vectors of a row without a hash go if the row is gone, or its text. Says how many rows were written.
    """
    # As they are: written out and read again they would take as long as all the rest.
    vectors = Vectors(db.fetch(_VECTOR_TYPE)[0]["type_id"], [vector for _, _, vector in passages])
    key_nos, chunk_nos = [place for place, _, _ in passages], [place for _, place, _ in passages]
    rows = db.fetch(_STORE, collection_id, [list(key) for key in keys], list(hashes), key_nos, chunk_nos, vectors)
    return int(rows[0]["stored"])


def remove(db: Database, collection_id: int, queue_ids: Sequence[int]) -> None:
    """Take rows that are done off the queue."""
    db.fetch(_REMOVE, collection_id, list(queue_ids))


def fail(db: Database, collection_id: int, queue_id: int, sqlstate: str, message: str, is_final: bool) -> bool:
    """Put a row back for a while, or give it up (True), at once if this was its last try."""
    return bool(db.fetch(_FAIL, collection_id, queue_id, sqlstate, message, is_final)[0]["is_given_up"])


def fill(db: Database, collection_id: int) -> tuple[int, int]:
    """Queue all rows that have no vectors of their text: how many, and the last that waits, 0 if none does."""
    row = db.fetch(_FILL, collection_id)[0]
    return row["queued"], row["last_id"] or 0


def is_due(db: Database, collection_id: int, last_id: int) -> bool:
    """Whether rows up to this one still wait."""
    return bool(db.fetch(_IS_DUE, collection_id, last_id)[0]["is_due"])


def set_timeouts(db: Database, statement: str, lock: str) -> None:
    """How long what follows in this transaction may take, and wait for a lock."""
    db.fetch(_SET_TIMEOUTS, statement, lock)


def finish(db: Database, collection_id: int) -> int:
    """Make the indexes and open the collection to its readers, unless rows have no vectors; says how many."""
    return int(db.fetch(_FINISH, collection_id)[0]["missing"])


def sweep(db: Database) -> None:
    """Remove what is left of collections that are gone, or in mode queue no more."""
    db.fetch(_SWEEP)


def lags(db: Database) -> list[Lag]:
    """How far the collections in mode queue are behind their tables."""
    return [Lag(**row) for row in db.fetch(_LAGS)]


def is_served(db: Database) -> bool:
    """Whether a worker feeds the queues of the database."""
    return bool(db.fetch(_IS_SERVED)[0]["is_served"])


def refill(db: Database, collection_id: int) -> bool:
    """Let the worker look at all rows of a collection; whether one serves the database."""
    return bool(db.fetch(_REFILL, collection_id)[0]["is_served"])
