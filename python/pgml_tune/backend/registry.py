"""Entry points of sql/functions/registry.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.service import registry
from pgml_tune.settings import read_paths


@entrypoint
def register_model(
    db: Session,
    name: str | None,
    artifact: str | None,
    task: str | None,
    version: str | None,
    options: str | None,
) -> str:
    return registry.register(db, read_paths().model_root, _try_out, name, artifact, task, version, options)


@entrypoint
def drop_model_version(db: Session, name: str | None, version: str | None) -> None:
    registry.drop(db, name, version)


def _try_out(artifact: Artifact) -> None:
    """Load the model and compute with it; it is loaded here only, because most functions need no model."""
    with blocked_signals():
        from pgml_tune.engine.trial import try_out
    try_out(artifact)
