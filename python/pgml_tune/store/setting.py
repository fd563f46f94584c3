"""Statements on settings."""

from __future__ import annotations

import json

from pgml_tune.db import Database

# With the version of the SQL objects: every call needs both, and each statement takes its time.
_READ = """
SELECT e.extversion, (SELECT pg_catalog.json_object_agg(s.name, s.value)::text FROM pgml_tune.setting AS s) AS settings
FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pgml_tune'
"""
_WRITE = "SELECT pgml_tune._write_setting($1::text, $2::text)"
_WRITE_AS_SUPERUSER = "SELECT pgml_tune._write_superuser_setting($1::text, $2::text)"


def read_settings(db: Database) -> tuple[str, dict[str, str]]:
    """The version of the SQL objects, and the settings that differ from their default."""
    row = db.fetch(_READ)[0]
    return row["extversion"], json.loads(row["settings"] or "{}")


def write_setting(db: Database, name: str, value: str | None) -> None:
    """Set a setting, or with None take it back to its default."""
    db.fetch(_WRITE, name, value)


def write_superuser_setting(db: Database, name: str, value: str | None) -> None:
    """Set a setting that only a superuser may set, or with None take it back to its default."""
    db.fetch(_WRITE_AS_SUPERUSER, name, value)
