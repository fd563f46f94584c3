"""Deleting cached vectors."""

from __future__ import annotations

from pgml_tune.db import Database
from pgml_tune.errors import InvalidArgument, ObjectNotFound
from pgml_tune.records import ModelReference
from pgml_tune.store import cache, registry


def purge(
    db: Database,
    model: str | None,
    role: str | None,
    older_than: str | None,
    min_hits: int | None,
    max_bytes: int | None,
) -> int:
    """Delete the stored vectors that meet every condition, None being none, and say how many they were."""
    for name, number in (("min_hits", min_hits), ("max_bytes", max_bytes)):
        if number is not None and number < 0:
            raise InvalidArgument(f"{name} is negative")
    version_ids = None if model is None else _version_ids(db, ModelReference.parse(model))
    return cache.purge(db, version_ids, role, older_than, min_hits, max_bytes)


def _version_ids(db: Database, reference: ModelReference) -> list[int]:
    found = [
        row.model_version_id
        for row in registry.versions_of(db, reference.name)
        if reference.version in (None, row.version)
    ]
    if not found:
        raise ObjectNotFound(
            f'model "{reference}" does not exist', hint="SELECT model, version FROM pgml_tune.model_versions"
        )
    return found
