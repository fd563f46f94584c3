"""Entry points of sql/functions/sql_examples.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session


@entrypoint
def add_sql_example(db: Session, question: str | None, sql: str | None, model: str | None) -> int:
    return session.sql_examples().add(db, question, sql, model)


@entrypoint
def keep_sql_example(db: Session, example: str | None, seal: bytes | None) -> int:
    return session.sql_examples().keep(db, example or "", seal or b"")


@entrypoint
def embed_sql_examples(db: Session) -> int:
    return session.sql_examples().embed_stale(db)
