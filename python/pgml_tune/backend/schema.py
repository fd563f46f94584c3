"""Entry points of sql/functions/schema.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.store import schema


@entrypoint
def hold_relations(db: Session, relations: list[str]) -> None:
    schema.hold_relations(db, relations)
