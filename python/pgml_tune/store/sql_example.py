"""Statements on verified examples of questions and their SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgml_tune.db import Database

_KEEP = "SELECT pgml_tune._keep_sql_example($1::text, $2::bytea) AS sql_example_id"
_ADD = "SELECT pgml_tune._add_sql_example($1::jsonb) AS sql_example_id"
_FIND = """
SELECT e.sql_example_id, e.question, e.sql, e.similarity
FROM pgml_tune._find_sql_examples(
    $1::text, $2::text, $3::bigint, $4::float8, $5::text, pgml_tune._path_text($6::text[]), $7::oid[], $8::integer
) AS e
"""
_HAS_VECTORS = """
SELECT EXISTS (
    SELECT FROM pgml_tune._embedded_sql_examples AS e
    WHERE e.search_path = pgml_tune._path_text($1::text[]) AND e.space_id = (
        SELECT v.space_id FROM pgml_tune.model_version AS v WHERE v.model_version_id = $2::bigint
    )
) AS has_vectors
"""
_STALE = """
SELECT e.sql_example_id, e.normal_question
FROM pgml_tune.sql_example AS e
WHERE e.space_id IS DISTINCT FROM (
    SELECT v.space_id FROM pgml_tune.model_version AS v WHERE v.model_version_id = $1::bigint
)
ORDER BY e.sql_example_id
LIMIT $2::integer
"""
_WRITE_VECTORS = "SELECT pgml_tune._write_sql_vectors($1::bigint[], $2::text[], $3::bigint) AS kept"


@dataclass(frozen=True, slots=True)
class QuestionVector:
    """Where a question lies, and the version of the embedding model that says so."""

    vector: str
    model_version_id: int


@dataclass(frozen=True, slots=True)
class SqlExample:
    """A question whose SQL somebody has verified, and how near it is to the one that was asked."""

    sql_example_id: int
    question: str
    sql: str
    similarity: float  # 1: the same question


def keep_example(db: Database, example: str, seal: bytes) -> int:
    """Hand a checked example over, with the proof that it was; its number."""
    found: int = db.fetch(_KEEP, example, seal)[0]["sql_example_id"]
    return found


def add_example(db: Database, example: str) -> int:
    """Add an example as the owner of the table; its number."""
    found: int = db.fetch(_ADD, example)[0]["sql_example_id"]
    return found


def same_questions(
    db: Database, normal_question: str, model: str, path: list[str], tables: list[int] | None, most: int
) -> list[SqlExample]:
    """The examples of the same question that the caller may read, newest first."""
    rows = db.fetch(_FIND, normal_question, None, None, None, model, path, tables, most)
    return [SqlExample(**row) for row in rows]


def near_questions(
    db: Database,
    vector: QuestionVector,
    lowest: float,
    model: str,
    path: list[str],
    tables: list[int] | None,
    most: int,
) -> list[SqlExample]:
    """The examples of similar questions that the caller may read, most similar first."""
    rows = db.fetch(_FIND, None, vector.vector, vector.model_version_id, lowest, model, path, tables, most)
    return [SqlExample(**row) for row in rows]


def has_vectors(db: Database, path: list[str], model_version_id: int) -> bool:
    """Whether there are examples that a vector of this version can be compared with."""
    return bool(db.fetch(_HAS_VECTORS, path, model_version_id)[0]["has_vectors"])


def stale_questions(db: Database, model_version_id: int, most: int) -> list[tuple[int, str]]:
    """The number and the normal form of the question of examples without a vector of the space of this version."""
    return [(row["sql_example_id"], row["normal_question"]) for row in db.fetch(_STALE, model_version_id, most)]


def write_vectors(db: Database, vectors: Mapping[int, str], model_version_id: int) -> int:
    """Keep the vectors of examples, by number; how many were kept."""
    if not vectors:
        return 0
    kept: int = db.fetch(_WRITE_VECTORS, list(vectors), list(vectors.values()), model_version_id)[0]["kept"]
    return kept
