"""Entry points of sql/functions/ask.sql."""

from __future__ import annotations

from typing import Any

from pgml_tune.backend import entrypoint, session
from pgml_tune.backend.text_to_sql import flat
from pgml_tune.db import Session
from pgml_tune.service import asking


@entrypoint
def ask(
    db: Session, question: str | None, model: str | None, tables: list[Any] | None, max_rows: int | None
) -> list[str]:
    if question is None:
        return []
    return asking.ask(db, lambda: session.text_to_sql().answer(db, question, model, flat(tables)), max_rows)
