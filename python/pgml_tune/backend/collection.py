"""Entry points of sql/functions/collection.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import collection


@entrypoint
def prepare(
    db: Session,
    source: str | None,
    source_column: str | None,
    model: str | None,
    name: str | None,
    mode: str | None,
    options: str | None,
) -> int:
    return collection.prepare(db, _longest_chunk, source, source_column, model, name, mode, options)


@entrypoint
def fill(db: Session, collection_id: int) -> None:
    collection.fill(db, collection_id)


@entrypoint
def mend(db: Session) -> None:
    collection.mend(db)


@entrypoint
def drop(db: Session, name: str | None) -> None:
    collection.drop(db, name)


@entrypoint
def begin_restricted(db: Session) -> int:
    return db.begin_restricted()


@entrypoint
def end_restricted(db: Session, level: int) -> None:
    db.end_restricted(level)


def _longest_chunk(db: Session, model: str) -> int:
    return session.inference().longest_chunk(db, model)
