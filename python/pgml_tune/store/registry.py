"""Statements on models, versions and pointers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database
from pgml_tune.records import ModelReference

# One row says all that a call has to know: version, settings and preference, each as this statement may see it.
_CALL = """
SELECT v.model_version_id, v.artifact_sha256, v.dimensions, v.state::text AS state,
       (SELECT pg_catalog.json_object_agg(s.name, s.value)::text FROM pgml_tune.setting AS s) AS settings,
       pg_catalog.current_setting('pgml_tune.cache', true) AS cache_preference,
       (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pgml_tune') AS sql_version
"""
_CALL_OF_DEFAULT = (
    _CALL
    + """
FROM pgml_tune.task_default AS d
JOIN pgml_tune.serving AS p ON p.model_id = d.model_id
JOIN pgml_tune.model_version AS v ON v.model_version_id = p.model_version_id
WHERE d.task = $1::text
"""
)
_CALL_OF_MODEL = (
    _CALL
    + """
FROM pgml_tune.model AS m
JOIN pgml_tune.serving AS p ON p.model_id = m.model_id
JOIN pgml_tune.model_version AS v ON v.model_version_id = p.model_version_id
WHERE m.name = $1::text AND m.task = $2::text
"""
)
_CALL_OF_VERSION = (
    _CALL
    + """
FROM pgml_tune.model AS m
JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
WHERE m.name = $1::text AND m.task = $2::text AND v.version = $3::text
"""
)
_TASK = "SELECT m.task FROM pgml_tune.model AS m WHERE m.name = $1::text"
_VERSIONS = """
SELECT v.model_version_id, v.version, v.artifact_sha256
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
_DROP = "SELECT pgml_tune._drop_version($1::text, $2::text) AS outcome"


@dataclass(frozen=True, slots=True)
class CallRow:
    """The version a call goes to, and the settings it runs under, as stored."""

    model_version_id: int
    digest: str
    dimensions: int
    state: str
    settings: str | None
    cache_preference: str | None
    sql_version: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A registered version."""

    model_version_id: int
    version: str
    digest: str


def find_call(db: Database, reference: ModelReference | None, task: str) -> CallRow | None:
    """The version that a reference means now; None means the default of the task."""
    if reference is None:
        rows = db.fetch(_CALL_OF_DEFAULT, task)
    elif reference.version is None:
        rows = db.fetch(_CALL_OF_MODEL, reference.name, task)
    else:
        rows = db.fetch(_CALL_OF_VERSION, reference.name, task, reference.version)
    return CallRow(*rows[0].values()) if rows else None


def task_of(db: Database, model: str) -> str | None:
    """The task of a model, if there is such a model."""
    rows = db.fetch(_TASK, model)
    return str(rows[0]["task"]) if rows else None


def versions_of(db: Database, model: str) -> list[VersionRow]:
    """The versions of a model, oldest first."""
    return [VersionRow(*row.values()) for row in db.fetch(_VERSIONS, model)]


def all_versions(db: Database) -> list[tuple[ModelReference, str]]:
    """Every registered version with its digest."""
    return [
        (ModelReference(row["name"], row["version"]), row["artifact_sha256"]) for row in db.fetch(_ALL_VERSIONS)
    ]


def register_version(
    db: Database,
    reference: ModelReference,
    task: str,
    digest: str,
    size_bytes: int,
    config: dict[str, Any],
    description: str | None,
    base: str | None,
) -> str:
    """Add a version; says registered, taken, no base or other task."""
    values = (reference.name, task, description, reference.version, base, digest, size_bytes, json.dumps(config))
    return str(db.fetch(_REGISTER, *values)[0]["outcome"])


def drop_version(db: Database, model: str, version: str) -> str:
    """Remove a version; says dropped, missing, serving or default."""
    return str(db.fetch(_DROP, model, version)[0]["outcome"])
