"""A small model with versions in two embedding spaces, and what a table must hold of them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import psycopg
from conditions import fetch_value
from job_workers import Installation

MODEL = "t"  # v1: 32 dimensions; v2: 16, another space


@cache
def _digests(installation: Installation) -> tuple[str, ...]:
    return installation.build_tiny(), installation.build_small()


def register_spaces(db: psycopg.Connection[Any], installation: Installation) -> None:
    """Registers the versions, of which v1 serves."""
    for number, digest in enumerate(_digests(installation), 1):
        db.execute("SELECT register_model(%s, %s, 'embedding', %s)", (MODEL, digest, f"v{number}"))


def side_table(db: psycopg.Connection[Any], collection: str, version: str) -> str:
    """The table of the vectors that a collection has of a version."""
    sql = "SELECT embeddings::text FROM pgml_tune.embedding_collections WHERE collection = %s AND version = %s"
    return str(fetch_value(db, sql, (collection, version)))


def wrong_rows(
    db: psycopg.Connection[Any], collection: str, version: str, source: str = "doc", keys: Sequence[str] = ("id",)
) -> list[Any]:
    """Rows of the source without a fresh vector of their text, and vectors of nothing; where nothing is chunked."""
    match = " AND ".join(f"s.{key} = e.key_{number}" for number, key in enumerate(keys, 1))
    return db.execute(
        f"SELECT s.body, e.text_sha256 FROM (SELECT * FROM {source} WHERE body IS NOT NULL) AS s"
        f" FULL JOIN {side_table(db, collection, version)} AS e ON {match}"
        " WHERE s.body IS NULL OR e.embedding IS NULL OR e.text_sha256 <> sha256(convert_to(s.body, 'UTF8'))"
        " OR NOT e.embedding::vector <=> embed_pinned(s.body, %s, %s) < 1e-3",
        (MODEL, version),
    ).fetchall()


def missing_steps(db: psycopg.Connection[Any], version: str) -> list[tuple[str, str]]:
    """What stands between the model and a version, and of which object."""
    sql = """
        SELECT s.what, s.object
        FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        CROSS JOIN LATERAL pgml_tune._missing_steps(v.model_id, v.model_version_id) AS s
        WHERE m.name = %s AND v.version = %s
    """
    return [(what, thing) for what, thing in db.execute(sql, (MODEL, version)).fetchall()]


def notices_of(db: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """What a session is told from now on: severity and message."""
    heard: list[tuple[str, str]] = []
    db.add_notice_handler(lambda told: heard.append((told.severity_nonlocalized or "", told.message_primary or "")))
    return heard
