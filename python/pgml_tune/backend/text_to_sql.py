"""Entry points of sql/functions/text_to_sql.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.errors import NotSupported


@entrypoint
def text_to_sql(db: Session, question: str | None, model: str | None, tables: list[str] | None) -> str | None:
    raise NotSupported("text_to_sql() is not finished")


@entrypoint
def candidates(
    db: Session, question: str | None, model: str | None, tables: list[str] | None, k: int | None
) -> list[dict[str, str | int | float | bool | None]]:
    raise NotSupported("text_to_sql_candidates() is not finished")
