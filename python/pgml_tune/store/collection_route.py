"""Statements on which vectors of a collection answer a search."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_FIND = """
SELECT r.model_reference, pg_catalog.has_table_privilege(s.embeddings, 'SELECT') IS TRUE AS is_readable,
       r.candidate_reference, pg_catalog.has_table_privilege(c.embeddings, 'SELECT') IS TRUE AS is_candidate_readable,
       r.rollout_id, r.phase, r.share, r.salt
FROM pgml_tune.collection_route AS r
JOIN pgml_tune.collection AS s ON s.collection_id = r.collection_id
LEFT JOIN pgml_tune.collection AS c ON c.collection_id = r.candidate_id AND r.rollout_id IS NOT NULL
WHERE r.name = $1::text
"""


@dataclass(frozen=True, slots=True)
class Answering:
    """Vectors that answer, with the version that embeds the questions."""

    reference: str  # name@version
    is_readable: bool  # to the caller


@dataclass(frozen=True, slots=True)
class CollectionSplit:
    """A rollout: which units the candidate answers."""

    rollout_id: int
    phase: int
    share: int  # units of 10,000
    salt: str
    candidate: Answering


@dataclass(frozen=True, slots=True)
class CollectionRoute:
    """Who answers the searches of a collection."""

    serving: Answering
    split: CollectionSplit | None  # None: no rollout runs that has vectors here


def find_route(db: Database, collection: str) -> CollectionRoute | None:
    """Who answers the searches of a collection now."""
    rows = db.fetch(_FIND, collection)
    if not rows:
        return None
    row, split = rows[0], None
    if row["rollout_id"] is not None and row["candidate_reference"] is not None:
        candidate = Answering(row["candidate_reference"], row["is_candidate_readable"])
        split = CollectionSplit(row["rollout_id"], row["phase"], row["share"], row["salt"], candidate)
    return CollectionRoute(Answering(row["model_reference"], row["is_readable"]), split)
