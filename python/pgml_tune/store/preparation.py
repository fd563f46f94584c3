"""Statements of the preparation of rollouts.

A procedure that commits runs them under the search_path of its caller, so they only call functions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Session

_FACTS = "SELECT f.facts FROM pgml_tune._preparation_facts($1::pg_catalog.int8) AS f (facts)"
_COLLECTIONS = "SELECT c.* FROM pgml_tune._collections_to_prepare($1::pg_catalog.int8, $2::pg_catalog.int8) AS c"
_COLUMNS = """
SELECT c.column_id, c.relation::pg_catalog.int8 AS relation, c.label, c.source_column, c.owner, c.is_own, c.shadow_id,
       c.shadow_column, c.shadow_version_id, c.is_done
FROM pgml_tune._columns_to_prepare($1::pg_catalog.int8, $2::pg_catalog.int8) AS c
"""
_ADD_TWIN = "SELECT pgml_tune._add_twin($1::pg_catalog.int8, $2::pg_catalog.int8)"
_DROP_TWIN = "SELECT pgml_tune._drop_twin($1::pg_catalog.int8) AS is_dropped"
_DROP_SHADOW = "SELECT pgml_tune._drop_shadow($1::pg_catalog.int8)"
_FOLLOW_TWIN = "SELECT pgml_tune._follow_twin($1::pg_catalog.int8, $2::pg_catalog.bool)"
_INDEX_TWIN = "SELECT pgml_tune._index_twin($1::pg_catalog.int8, $2::pg_catalog.bool) AS is_wanted"
_ADD_SHADOW = "SELECT pgml_tune._add_shadow($1::pg_catalog.int8, $2::pg_catalog.int8)"
_FINISH_SHADOW = "SELECT pgml_tune._finish_shadow($1::pg_catalog.int8, $2::pg_catalog.int8)"
_WAITING = "SELECT pgml_tune._count_waiting($1::pg_catalog.int8) AS waiting"
_ASK = """
SELECT pgml_tune._fill_collection($1::pg_catalog.int8, $2::pg_catalog.text, NULL, NULL, NULL, $3::pg_catalog.int4)
    AS counts
"""
_GOLDEN = "SELECT pgml_tune._golden_rows($1::pg_catalog.text, $2::pg_catalog.int4) AS lines"
_NEAREST = """
SELECT pgml_tune._nearest_keys($1::pg_catalog.int8, $2::pg_catalog.bool, $3::pg_catalog.text) AS keys
"""
_RECORD = "SELECT pgml_tune._record_validation($1::pg_catalog.int8, $2::pg_catalog.jsonb)"
_SHOW = """
SELECT pgml_tune._write_preparation(
    $1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.text, $5::pg_catalog.text,
    $6::pg_catalog.int8, $7::pg_catalog.int8
)
"""
_END = "SELECT pgml_tune._end_preparation()"


@dataclass(frozen=True, slots=True)
class Goal:
    """The version whose space vectors are wanted in."""

    model_id: int
    model: str
    version_id: int
    version: str
    dimensions: int

    @property
    def call(self) -> str:
        """The statement that prepares it."""
        return f"CALL prepare_rollout('{self.model}', '{self.version}')"


@dataclass(frozen=True, slots=True)
class PlannedCollection:
    """A collection, and what it has of vectors in that space."""

    collection_id: int
    name: str
    owner: str
    is_own: bool
    twin_id: int | None
    is_retired: bool
    is_done: bool


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A recorded column, and its shadow in that space."""

    column_id: int
    relation: int
    label: str  # schema.table.column
    source_column: str
    owner: str
    is_own: bool
    shadow_id: int | None
    shadow_column: str | None
    shadow_version_id: int | None
    is_done: bool


def read_goal(db: Database, version_id: int) -> Goal:
    """What a version is, and of which model."""
    return Goal(**json.loads(db.fetch(_FACTS, version_id)[0]["facts"]))


def planned_collections(db: Database, goal: Goal) -> list[PlannedCollection]:
    """The collections that the model answers."""
    return [PlannedCollection(**row) for row in db.fetch(_COLLECTIONS, goal.model_id, goal.version_id)]


def planned_columns(db: Database, goal: Goal) -> list[PlannedColumn]:
    """The columns that embed_table() has filled in another space."""
    return [PlannedColumn(**row) for row in db.fetch(_COLUMNS, goal.model_id, goal.version_id)]


def add_twin(db: Session, collection_id: int, version_id: int) -> bool:
    """Begin to keep a collection embedded under the version, too; False if others hold a lock."""
    return db.fetch_if_possible(_ADD_TWIN, collection_id, version_id) is not None


def drop_twin(db: Session, collection_id: int) -> bool | None:
    """Give up the vectors of a twin; False if searches may go there, None if others hold a lock."""
    rows = db.fetch_if_possible(_DROP_TWIN, collection_id)
    return None if rows is None else bool(rows[0]["is_dropped"])


def drop_shadow(db: Session, shadow_id: int) -> bool:
    """Give up a shadow and its column; False if others hold a lock."""
    return db.fetch_if_possible(_DROP_SHADOW, shadow_id) is not None


def follow_twin(db: Session, collection_id: int, is_followed: bool) -> bool:
    """Let writers feed a twin that answers nothing yet, or spare them that; False if others hold a lock."""
    return db.fetch_if_possible(_FOLLOW_TWIN, collection_id, is_followed) is not None


def wants_index(db: Database, collection_id: int) -> bool:
    """Whether a filled twin is great enough for an HNSW index and has none."""
    return bool(db.fetch(_INDEX_TWIN, collection_id, False)[0]["is_wanted"])


def make_index(db: Database, collection_id: int) -> None:
    """Make the HNSW index of a filled twin; its writers wait for it."""
    db.fetch(_INDEX_TWIN, collection_id, True)


def add_shadow(db: Session, column_id: int, version_id: int) -> bool:
    """Add the column that gets the vectors of the version; False if others hold a lock."""
    return db.fetch_if_possible(_ADD_SHADOW, column_id, version_id) is not None


def finish_shadow(db: Session, column_id: int, shadow_id: int) -> bool:
    """Make the indexes of a shadow that is filled, and let it take over; False if others hold a lock."""
    return db.fetch_if_possible(_FINISH_SHADOW, column_id, shadow_id) is not None


def count_rows(db: Database, collection_id: int, what: str) -> int:
    """Rows of the source: all (rows), without vectors of their text (missing), with those of another (stale)."""
    return int(db.fetch(_ASK, collection_id, what, None)[0]["counts"][0])


def count_waiting(db: Database, collection_id: int) -> int:
    """Rows that are without vectors of their text because the worker has not come to them yet."""
    return int(db.fetch(_WAITING, collection_id)[0]["waiting"])


def probe(db: Database, collection_id: int, sample: int) -> tuple[int, int, int, int, int]:
    """Searches with texts of the collection itself.

    Questions, nearest rows, those of them that the graph finds, rows found with the vectors that answer now, and those
    of them that both find.
    """
    questions, nearest, recalled, compared, same = db.fetch(_ASK, collection_id, "probe", sample)[0]["counts"]
    return questions, nearest, recalled, compared, same


def golden_rows(db: Database, query: str, max_rows: int) -> list[str]:
    """Rows of a query of the caller as JSON; more than `max_rows` only to tell that there are."""
    return list(db.fetch(_GOLDEN, query, max_rows)[0]["lines"])


def nearest_keys(db: Database, collection_id: int, is_serving: bool, question: str) -> list[dict[str, Any]]:
    """The keys of the ten rows nearest to a question, by these vectors."""
    return [json.loads(key) for key in db.fetch(_NEAREST, collection_id, is_serving, question)[0]["keys"]]


def record_validation(db: Database, collection_id: int, validation: dict[str, Any]) -> None:
    """Keep what was measured."""
    db.fetch(_RECORD, collection_id, json.dumps(validation))


def show_progress(db: Session, goal: Goal, thing: str, phase: str, steps: int, step: int) -> None:
    """Let others see how far this session has come."""
    db.fetch(_SHOW, db.role(), goal.model, goal.version, thing, phase, steps, step)


def end_progress(db: Database) -> None:
    """Nothing more is to be seen of this session."""
    db.fetch(_END)
