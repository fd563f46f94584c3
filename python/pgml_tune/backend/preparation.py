"""Entry points of sql/functions/preparation.sql."""

from __future__ import annotations

from functools import partial

from pgml_tune.backend import entrypoint, session
from pgml_tune.backend.filling import embed_rows
from pgml_tune.db import Session
from pgml_tune.service import preparation


@entrypoint
def prepare_rollout(db: Session, name: str | None, version: str | None, options: str | None) -> None:
    preparation.prepare(db, partial(embed_rows, db), _longest_chunk, name, version, options)


def _longest_chunk(db: Session, model: str) -> int:
    return session.inference().longest_chunk(db, model)
