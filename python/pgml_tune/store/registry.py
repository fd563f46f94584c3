"""Statements on models, versions and pointers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database
from pgml_tune.records import ModelReference

_DEFAULT = """
SELECT s.model_version_id, s.artifact_sha256, s.dimensions FROM pgml_tune.serving AS s WHERE s.default_of = $1::text
"""
_MODEL = """
SELECT s.model_version_id, s.artifact_sha256, s.dimensions
FROM pgml_tune.serving AS s WHERE s.model = $1::text AND s.task = $2::text
"""
_VERSION = """
SELECT v.model_version_id, v.artifact_sha256, v.dimensions
FROM pgml_tune.model AS m
JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
WHERE m.name = $1::text AND m.task = $2::text AND v.version = $3::text AND v.state = 'ready'
"""
_VERSIONS = """
SELECT v.model_version_id, m.task, v.version, v.state::text AS state, v.artifact_sha256
FROM pgml_tune.model AS m JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
WHERE m.name = $1::text
ORDER BY v.model_version_id
"""
_ALL_VERSIONS = """
SELECT m.name, v.version, v.artifact_sha256
FROM pgml_tune.model AS m JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
ORDER BY m.name, v.model_version_id
"""
_REGISTER = """
SELECT pgml_tune._register_version(
    $1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::bigint, $8::jsonb
) AS outcome
"""
# What a worker does in the name of whose job it has run.
_ADD = """
SELECT pgml_tune._add_version(
    $1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::bigint, $8::jsonb, $9::text
) AS outcome
"""
# As both do it, but before the versions are read.
_LOCK = "LOCK TABLE pgml_tune.model IN SHARE ROW EXCLUSIVE MODE"
_DROP = "SELECT pgml_tune._drop_version($1::text, $2::text) AS outcome"


@dataclass(frozen=True, slots=True)
class Target:
    """The version a call goes to; it is ready."""

    model_version_id: int
    digest: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A registered version, ready or not."""

    model_version_id: int
    task: str
    version: str
    state: str
    digest: str


def find_target(db: Database, reference: ModelReference | None, task: str) -> Target | None:
    """The ready version that a reference means now; None means the default of the task."""
    if reference is None:
        rows = db.fetch(_DEFAULT, task)
    elif reference.version is None:
        rows = db.fetch(_MODEL, reference.name, task)
    else:
        rows = db.fetch(_VERSION, reference.name, task, reference.version)
    return Target(*rows[0].values()) if rows else None


def versions_of(db: Database, model: str) -> list[VersionRow]:
    """The versions of a model, oldest first."""
    return [VersionRow(*row.values()) for row in db.fetch(_VERSIONS, model)]


def all_versions(db: Database) -> list[tuple[ModelReference, str]]:
    """Every registered version with its digest."""
    return [(ModelReference(row["name"], row["version"]), row["artifact_sha256"]) for row in db.fetch(_ALL_VERSIONS)]


def register_version(
    db: Database,
    reference: ModelReference,
    task: str,
    digest: str,
    size_bytes: int,
    config: dict[str, Any],
    description: str | None,
    base: str | None,
    created_by: str | None = None,
) -> str:
    """Add a version, as the session's user or in somebody's name; says registered, taken, no base or other task."""
    values = (reference.name, task, description, reference.version, base, digest, size_bytes, json.dumps(config))
    if created_by is None:
        return str(db.fetch(_REGISTER, *values)[0]["outcome"])
    return str(db.fetch(_ADD, *values, created_by)[0]["outcome"])


def hold_registry(db: Database) -> None:
    """Let nobody else add or drop versions until the transaction ends."""
    db.fetch(_LOCK)


def drop_version(db: Database, model: str, version: str) -> str:
    """Remove a version; says dropped, missing, used, serving or default."""
    return str(db.fetch(_DROP, model, version)[0]["outcome"])
