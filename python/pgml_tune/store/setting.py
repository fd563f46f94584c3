"""Statements on settings."""

from __future__ import annotations

from pgml_tune.db import Database

_READ = "SELECT s.name, s.value FROM pgml_tune.setting AS s"
_WRITE = "SELECT pgml_tune._write_setting($1::text, $2::text)"


def read_settings(db: Database) -> dict[str, str]:
    """The settings that differ from their default."""
    return {row["name"]: row["value"] for row in db.fetch(_READ)}


def write_setting(db: Database, name: str, value: str | None) -> None:
    """Set a setting, or with None take it back to its default."""
    db.fetch(_WRITE, name, value)
