"""Statements on vector columns of users' own tables.

A procedure that commits runs under the search_path of its caller, which matters to his triggers and policies: what it
runs there only calls functions, and names all with its schema.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_RELATION = "SELECT $1::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8 AS relation"
_FACTS = "SELECT * FROM pgml_tune._target_facts($1::pg_catalog.oid, $2::pg_catalog.text, $3::pg_catalog.text)"
_LEAVES = "SELECT l.relation, l.blocks FROM pgml_tune._leaves($1::pg_catalog.oid::pg_catalog.regclass) AS l"
# Each value is read before it is set.
_USE_SETTINGS = """
SELECT pg_catalog.current_setting('search_path') AS search_path,
       pg_catalog.current_setting('pgml_tune.cache', true) AS cache,
       pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
       pg_catalog.set_config('pgml_tune.cache', 'off', true)
"""
_RESTORE_SETTINGS = """
SELECT pg_catalog.set_config('search_path', $1::pg_catalog.text, true),
       pg_catalog.set_config('pgml_tune.cache', $2::pg_catalog.text, true)
"""
_TRACKED = """
SELECT v.space_id, c.is_mixed
FROM pgml_tune.tracked_column AS c JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
WHERE c.source = $1::oid AND c.target_column = $2::text
"""
_VERSION = """
SELECT m.name || '@' || v.version AS model_version, v.space_id
FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
WHERE v.model_version_id = $1::int8
"""
_ADD_COLUMN = """
SELECT pgml_tune._add_vector_column($1::pg_catalog.oid, $2::pg_catalog.text, 'vector', $3::pg_catalog.int4)
"""
_RECORD = """
SELECT pgml_tune._record_column(
    $1::pg_catalog.oid, $2::pg_catalog.text, $3::pg_catalog.int8, $4::pg_catalog.text, $5::pg_catalog.bool,
    $6::pg_catalog.text
)
"""
_COUNT = """
SELECT pgml_tune._count_unfilled($1::pg_catalog.oid, $2::pg_catalog.text, $3::pg_catalog.text) AS rows
"""
_HAS_VECTORS = "SELECT pgml_tune._has_vectors($1::pg_catalog.oid, $2::pg_catalog.text) AS has_vectors"
_READ = """
SELECT p.place, p.body, p.is_cut
FROM pgml_tune._read_part(
    $1::pg_catalog.oid, $2::pg_catalog.oid, $3::pg_catalog.text, $4::pg_catalog.text, $5::pg_catalog.int8,
    $6::pg_catalog.int8, $7::pg_catalog.int4
) AS p
"""
_STORE = """
SELECT pgml_tune._store_part(
    $1::pg_catalog.oid, $2::pg_catalog.oid, $3::pg_catalog.text, $4::pg_catalog.text, $5::pg_catalog.int8,
    $6::pg_catalog.tid[], $7::pg_catalog.text[], $8::pg_catalog.text[]
) AS stored
"""
_CLEAR = """
SELECT p.found, p.cleared
FROM pgml_tune._clear_part(
    $1::pg_catalog.oid, $2::pg_catalog.oid, $3::pg_catalog.text, $4::pg_catalog.int8, $5::pg_catalog.int8,
    $6::pg_catalog.int4
) AS p
"""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What decides whether a column can hold the vectors of another."""

    schema_name: str
    table_name: str
    kind: str  # as in pg_class.relkind
    is_temporary: bool
    is_ours: bool  # or the server's
    is_inherited: bool
    has_source: bool
    is_text: bool | None
    has_target: bool | None
    is_system: bool | None
    is_generated: bool | None
    target_type: str | None  # vector or halfvec; None: another
    target_dimensions: int | None  # None: any


@dataclass(frozen=True, slots=True)
class Column:
    """A column that gets vectors, and the version they are of."""

    relation: int
    source_column: str
    target_column: str
    version_id: int
    model_version: str
    label: str
    is_mixed: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What a caller has set."""

    search_path: str
    cache: str


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that need a vector."""

    places: list[str]
    texts: list[str]
    is_cut: bool


def use_own_settings(db: Database) -> Settings:
    """What was set before; until the transaction ends names are found in pg_catalog, and caches are not used."""
    row = db.fetch(_USE_SETTINGS)[0]
    return Settings(row["search_path"], row["cache"] or "")


def restore_settings(db: Database, settings: Settings) -> None:
    """Set what was set before."""
    db.fetch(_RESTORE_SETTINGS, settings.search_path, settings.cache)


def relation_oid(db: Database, source: str) -> int:
    """The table that a regclass names, in its text form."""
    return int(db.fetch(_RELATION, source)[0]["relation"])


def target_facts(db: Database, relation: int, source_column: str | None, target_column: str) -> TargetFacts | None:
    """The facts of a table and two of its columns; None if there is no such table."""
    rows = db.fetch(_FACTS, relation, source_column, target_column)
    return TargetFacts(*rows[0].values()) if rows else None


def leaves(db: Database, relation: int) -> list[tuple[int, int]]:
    """The tables that hold the rows of a table, and their blocks now."""
    return [(row["relation"], row["blocks"]) for row in db.fetch(_LEAVES, relation)]


def tracked_space(db: Database, relation: int, target_column: str) -> tuple[str, bool] | None:
    """The space that a column is recorded with, and whether vectors of another may be left in it."""
    rows = db.fetch(_TRACKED, relation, target_column)
    return (rows[0]["space_id"], rows[0]["is_mixed"]) if rows else None


def version_facts(db: Database, version_id: int) -> tuple[str, str]:
    """A version as callers name it, and its space."""
    row = db.fetch(_VERSION, version_id)[0]
    return row["model_version"], row["space_id"]


def add_column(db: Database, relation: int, target_column: str, dimensions: int) -> None:
    """Add a column for vectors."""
    db.fetch(_ADD_COLUMN, relation, target_column, dimensions)


def record_filled(
    db: Database, relation: int, target_column: str, version_id: int, source_column: str, is_mixed: bool = False
) -> None:
    """Write down that a column gets vectors of a text column; `is_mixed`: it may still hold others."""
    db.fetch(_RECORD, relation, target_column, version_id, "embed_table", is_mixed, source_column)


def record_foreign(db: Database, relation: int, target_column: str, version_id: int) -> None:
    """Write down that a column holds vectors of a version that somebody else has put there."""
    db.fetch(_RECORD, relation, target_column, version_id, "user", False, None)


def count_unfilled(db: Database, column: Column) -> int:
    """Rows that need a vector."""
    return int(db.fetch(_COUNT, column.relation, column.source_column, column.target_column)[0]["rows"])


def has_vectors(db: Database, relation: int, target_column: str) -> bool:
    """Whether any row has a vector."""
    return bool(db.fetch(_HAS_VECTORS, relation, target_column)[0]["has_vectors"])


def read_part(db: Database, column: Column, leaf: int, first_block: int, end_block: int, max_rows: int) -> Part:
    """Rows of some blocks that need a vector."""
    rows = db.fetch(
        _READ, column.relation, leaf, column.source_column, column.target_column, first_block, end_block, max_rows
    )
    return Part([row["place"] for row in rows], [row["body"] for row in rows], any(row["is_cut"] for row in rows))


def store_part(db: Database, column: Column, leaf: int, part: Part, vectors: list[str]) -> int | None:
    """Give rows that are still as they were read their vectors, and say how many; None: the column gets others now."""
    values = (column.relation, leaf, column.source_column, column.target_column, column.version_id)
    stored: int | None = db.fetch(_STORE, *values, part.places, part.texts, vectors)[0]["stored"]
    return stored


def clear_part(
    db: Database, column: Column, leaf: int, first_block: int, end_block: int, max_rows: int
) -> tuple[int, int]:
    """Take vectors away: how many there were in these blocks, and how many are gone."""
    rows = db.fetch(_CLEAR, column.relation, leaf, column.target_column, first_block, end_block, max_rows)
    return (rows[0]["found"], rows[0]["cleared"]) if rows else (0, 0)
