"""Entry points of sql/functions/filling.sql."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import filling


def embed_rows(db: Session, texts: Sequence[str], model_version: str) -> tuple[list[str], int]:
    """The vectors of texts under name@version, and how many texts were cut."""
    passages, truncated = session.inference().embed_passages(db, texts, model_version, None, 0)
    return [vector for _, _, vector in passages], truncated


@entrypoint
def embed_table(
    db: Session,
    source: str | None,
    source_column: str | None,
    target_column: str | None,
    model: str | None,
    batch_size: int | None,
    overwrite: bool | None,
) -> None:
    embed = partial(embed_rows, db)
    filling.embed_table(db, embed, source, source_column, target_column, model, batch_size, overwrite)


@entrypoint
def track_column(db: Session, source: str | None, target_column: str | None, model: str | None) -> None:
    filling.track_column(db, source, target_column, model)
