"""Statements on models, versions and pointers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Row
from pgml_tune.records import ModelReference

_SERVING = """
SELECT s.tableoid::bigint AS pointer, s.model_id, s.model, s.model_version_id, s.version, s.artifact_sha256,
       s.dimensions, s.rollout_id, s.phase, s.share, s.salt,
       s.candidate_version_id, s.candidate_version, s.candidate_sha256,
       pg_catalog.to_regprocedure('pgml_tune._serving_' || s.model_id || '()') IS NOT NULL AS has_function
FROM pgml_tune.serving AS s WHERE
"""
_DEFAULT = _SERVING + "s.default_of = $1::text"
_MODEL = _SERVING + "s.model = $1::text AND s.task = $2::text"
# Called, not read: the catalog answers as it is now, in step with the views, and a row as it was for the snapshot.
_FUNCTION = "SELECT pgml_tune._serving_{}() AS served"
_HOLD = "SELECT FROM pgml_tune.serving LIMIT 0"
_VERSION = """
SELECT v.model_version_id, m.name, v.version, v.artifact_sha256, v.dimensions
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
# Those that the worker can run; the candidate of a rollout into another space is its wanted version.
_SERVED = """
SELECT DISTINCT d.digest
FROM pgml_tune.serving AS s
LEFT JOIN pgml_tune.model_version AS w ON w.model_version_id = s.wanted_version_id
CROSS JOIN LATERAL (VALUES (s.artifact_sha256), (s.candidate_sha256), (w.artifact_sha256)) AS d (digest)
WHERE s.task = ANY ($1::text[]) AND d.digest IS NOT NULL
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
    model: str
    version: str
    digest: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Split:
    """A rollout inside one space: which units go to its candidate."""

    rollout_id: int
    phase: int
    share: int  # units of 10,000
    salt: str
    candidate: Target


@dataclass(frozen=True, slots=True)
class Destination:
    """What a reference to a model means now."""

    target: Target
    split: Split | None = None  # None: all calls go to the target
    is_in_rollout: bool = False  # in this space or into another
    pointer: int | None = None  # the table that was read, by oid; None: the reference names the version


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A registered version, ready or not."""

    model_version_id: int
    task: str
    version: str
    state: str
    digest: str


def find_destination(db: Database, reference: ModelReference | None, task: str) -> Destination | None:
    """The ready version that a reference means now, and its candidate; None means the default of the task."""
    if reference is None:
        rows = db.fetch(_DEFAULT, task)
    elif reference.version is None:
        rows = db.fetch(_MODEL, reference.name, task)
    else:
        rows = db.fetch(_VERSION, reference.name, task, reference.version)
        return Destination(Target(*rows[0].values())) if rows else None
    return _served(db, rows[0]) if rows else None


def hold_pointers(db: Database) -> None:
    """Let nobody move a pointer together with the catalog until the transaction ends."""
    db.fetch(_HOLD)


def find_target(db: Database, reference: ModelReference | None, task: str) -> Target | None:
    """The ready version that a reference means now, whatever a rollout sends elsewhere."""
    destination = find_destination(db, reference, task)
    return None if destination is None else destination.target


def _served(db: Database, row: Row) -> Destination:
    """What a row of `pgml_tune.serving` means, as far as the catalog has not gone on since."""
    known = Target(row["model_version_id"], row["model"], row["version"], row["artifact_sha256"], row["dimensions"])
    target = known
    if row["has_function"]:
        version_id, version, digest, dimensions = db.fetch(_FUNCTION.format(row["model_id"]))[0]["served"]
        target = Target(int(version_id), row["model"], version, digest, int(dimensions))
    split = None
    if row["candidate_version_id"] is not None and target == known:
        candidate = Target(
            row["candidate_version_id"],
            row["model"],
            row["candidate_version"],
            row["candidate_sha256"],
            row["dimensions"],
        )
        split = Split(row["rollout_id"], row["phase"], row["share"], row["salt"], candidate)
    return Destination(target, split, row["rollout_id"] is not None, row["pointer"])


def served_digests(db: Database, tasks: Sequence[str]) -> list[str]:
    """The artifacts that calls go to now, or soon will, by the tasks of their models."""
    return [row["digest"] for row in db.fetch(_SERVED, list(tasks))]


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
    """Remove a version; says dropped, missing, used, serving, way back or default."""
    return str(db.fetch(_DROP, model, version)[0]["outcome"])
