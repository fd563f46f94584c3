"""Entry points of sql/functions/text_to_sql.sql."""

from __future__ import annotations

from typing import Any

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session


@entrypoint
def text_to_sql(db: Session, question: str | None, model: str | None, tables: list[Any] | None) -> str | None:
    if question is None:
        return None
    return session.text_to_sql().answer(db, question, model, flat(tables))


@entrypoint
def candidates(
    db: Session, question: str | None, model: str | None, tables: list[Any] | None, k: int | None
) -> list[dict[str, str | int | float | bool | None]]:
    if question is None:
        return []
    found = session.text_to_sql().candidates(db, question, model, flat(tables), k)
    return [
        {
            "rank": rank,
            "sql": candidate.sql,
            "score": candidate.score,
            "valid": candidate.error is None,
            "error": candidate.error,
            "cost": candidate.cost,
        }
        for rank, candidate in enumerate(found, 1)
    ]


def flat(tables: list[Any] | None) -> list[str | None] | None:
    """The elements of an array, whatever its dimensions."""
    if tables is None:
        return None
    names: list[str | None] = []
    for table in tables:
        names.extend(flat(table) or [] if isinstance(table, list) else [table])
    return names
