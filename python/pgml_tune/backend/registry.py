"""Entry points of sql/functions/registry.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import registry


@entrypoint
def register_model(
    db: Session,
    name: str | None,
    artifact: str | None,
    task: str | None,
    version: str | None,
    options: str | None,
) -> str:
    return registry.register(db, session.paths().model_root, name, artifact, task, version, options)


@entrypoint
def drop_model_version(db: Session, name: str | None, version: str | None) -> None:
    registry.drop(db, name, version)
