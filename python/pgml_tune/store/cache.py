"""Statements on the table cache and the counters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgml_tune.db import Database, Session

_FILLED = """
SELECT g.generation FROM pg_catalog.generate_series(0, 7) AS g (generation)
WHERE pg_catalog.pg_relation_size(('pgml_tune.cache_entry_' || g.generation)::regclass) > 0
"""
_READ = "SELECT pgml_tune._read_cache($1::bytea[], $2::integer[]) AS vectors"
# One statement, because each takes a transaction id of its own.
_WRITE = """
SELECT pgml_tune._write_cache($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]),
       pgml_tune._write_counts($5::jsonb),
       pgml_tune._write_hits($6::bytea[], $7::bigint[])
"""
_WRITE_COUNTS = "SELECT pgml_tune._write_counts($1::jsonb)"
_RESET = "SELECT pgml_tune._reset_counts()"
_PURGE = """
SELECT pgml_tune._purge_cache($1::bigint[], $2::regrole, $3::interval, $4::bigint, $5::bigint) AS deleted
"""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A vector to remember for all sessions of a role."""

    key: bytes
    model_version_id: int
    role_id: int
    sealed: bytes


def filled_generations(db: Database) -> list[int]:
    """The generations that hold anything."""
    return [row["generation"] for row in db.fetch(_FILLED)]


def read_entries(db: Database, keys: Sequence[bytes], generations: list[int]) -> dict[bytes, bytes]:
    """The sealed vectors that these generations of the table cache have for these keys."""
    vectors = db.fetch(_READ, list(keys), generations)[0]["vectors"]
    return {key: vector for key, vector in zip(keys, vectors, strict=True) if vector is not None}


def write(
    db: Session, entries: Sequence[CacheEntry], hits: Mapping[bytes, int], counts: list[dict[str, float]]
) -> None:
    """Add entries, of which a full cache takes none, and what this session has counted; lost if the disk is full."""
    db.fetch_if_possible(
        _WRITE,
        [entry.key for entry in entries],
        [entry.model_version_id for entry in entries],
        [entry.role_id for entry in entries],
        [entry.sealed for entry in entries],
        json.dumps(counts),
        list(hits),
        list(hits.values()),
    )


def write_counts(db: Database, counts: list[dict[str, float]]) -> None:
    """Add what was counted, in the transaction that did the work."""
    db.fetch(_WRITE_COUNTS, json.dumps(counts))


def purge(
    db: Database,
    version_ids: list[int] | None,
    role: str | None,
    older_than: str | None,
    min_hits: int | None,
    max_bytes: int | None,
) -> int:
    """Delete entries and say how many."""
    return int(db.fetch(_PURGE, version_ids, role, older_than, min_hits, max_bytes)[0]["deleted"])


def reset_counts(db: Database) -> None:
    """Delete what the sessions have counted and written."""
    db.fetch(_RESET)
