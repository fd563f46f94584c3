"""Deleting cached vectors."""

from __future__ import annotations

from pgml_tune.db import Database
from pgml_tune.errors import ObjectNotFound
from pgml_tune.records import ModelReference
from pgml_tune.store import cache, registry


def purge(db: Database, model: str | None, role: str | None) -> int:
    """Delete the stored vectors of a model and a role, None meaning all, and say how many they were."""
    version_ids = None
    if model is not None:
        reference = ModelReference.parse(model)
        version_ids = [
            row.model_version_id
            for row in registry.versions_of(db, reference.name)
            if reference.version in (None, row.version)
        ]
        if not version_ids:
            raise ObjectNotFound(
                f'model "{reference}" does not exist', hint="SELECT model, version FROM pgml_tune.model_versions"
            )
    return cache.purge(db, version_ids, role)
