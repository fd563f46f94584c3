"""Statements on what a caller may read: tables, columns and values.

The first two find names as the caller does, with nothing but qualified names; the others run under own settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Session

_PATH = "SELECT pg_catalog.current_schemas(false)::pg_catalog.text[] AS path"
_RELATIONS = "SELECT $1::pg_catalog.regclass[]::pg_catalog.oid[] AS relations"
_TABLES = """
SELECT s.relation::bigint AS relation, s.name, s.comment, s.columns, s.foreign_keys
FROM pgml_tune._schema_along($1::text[]::name[], $2::oid[]::regclass[], NULL, $3::boolean) AS s
"""
_NAMED = """
SELECT v.table_name, v.column_name, v.value
FROM pgml_tune._values_named($1::text[]::name[], $2::oid[]::regclass[], $3::text[]) AS v
"""
_ALL = """
SELECT v.table_name, v.column_name, v.value
FROM pgml_tune._values_along($1::text[]::name[], $2::oid[]::regclass[], NULL, $3::integer, $4::real) AS v
"""
_BESIDE = """
SELECT pgml_tune._values_beside($1::text[]::name[], $2::oid::regclass, $3::text, $4::text) AS found
"""
_SERVER_NAMES = """
SELECT DISTINCT p.proname::text AS name FROM pg_catalog.pg_proc AS p
WHERE p.proname = ANY ($1::text[]::name[]) AND p.pronamespace = 'pg_catalog'::regnamespace
"""

_MOST_HELD = 50  # tables of one statement


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table of which a caller may read something."""

    relation: int
    description: dict[str, Any]  # name, comment, columns, foreign_keys


def read_path(db: Database) -> list[str]:
    """The schemas in which the caller's names are found, those of the server left out."""
    path: list[str] = db.fetch(_PATH)[0]["path"]
    return path


def relation_oids(db: Database, tables: Sequence[str]) -> list[int]:
    """The relations that regclasses name, in their text form."""
    oids: list[int] = db.fetch(_RELATIONS, list(tables))[0]["relations"]
    return oids


def hold_relations(db: Session, relations: Sequence[str]) -> None:
    """Let nobody turn relations, named with their schemas, into something else until the transaction ends."""
    # One that is gone meanwhile shows as its number.
    names = [f"ONLY {relation}" for relation in relations if not relation.isdigit()]
    for start in range(0, len(names), _MOST_HELD):
        db.hold(f"SELECT FROM {', '.join(names[start : start + _MOST_HELD])}")


def read_tables(db: Database, path: list[str], relations: list[int] | None, with_values: bool) -> list[FoundTable]:
    """What the caller may read of these tables, or of all along a path."""
    return [
        FoundTable(
            row["relation"],
            {
                "name": row["name"],
                "comment": row["comment"],
                "columns": json.loads(row["columns"]),
                "foreign_keys": json.loads(row["foreign_keys"]),
            },
        )
        for row in db.fetch(_TABLES, path, relations, with_values)
    ]


def values_named(
    db: Database, path: list[str], relations: list[int] | None, terms: list[str]
) -> list[tuple[str, str, str]]:
    """Where texts in lower case stand as values: table, column and the value as it is there."""
    rows = db.fetch(_NAMED, path, relations, terms)
    return [(row["table_name"], row["column_name"], row["value"]) for row in rows]


def all_values(
    db: Database, path: list[str], relations: list[int], most: int, most_rows: int
) -> list[tuple[str, str, str]]:
    """The different texts, at most so many of a column, in tables of so many rows together: table, column and value."""
    rows = db.fetch(_ALL, path, relations, most, most_rows)
    return [(row["table_name"], row["column_name"], row["value"]) for row in rows]


def values_beside(db: Database, path: list[str], relation: int, column: str, text: str) -> list[str] | None:
    """The values of a column in which a text does not stand; None if it does, or the caller may not look."""
    found: list[str] | None = db.fetch(_BESIDE, path, relation, column, text)[0]["found"]
    return found


def server_names(db: Database, words: list[str]) -> list[str]:
    """Which words are names of functions that every server has."""
    return [row["name"] for row in db.fetch(_SERVER_NAMES, words)]
