"""Entry points of sql/functions/classification.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session


@entrypoint
def classify(db: Session, text: str | None, model: str | None, top_k: int | None) -> list[dict[str, str | float]]:
    if text is None:
        return []
    labels = session.classification().classify(db, text, model, top_k)
    return [{"label": label, "score": score} for label, score in labels]
