"""Entry points of sql/functions/serving.sql."""

from __future__ import annotations

from typing import Any

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import loaded


@entrypoint
def loaded_models(db: Session) -> list[dict[str, Any]]:
    return loaded.list_models(session.client(), session.models(), db.give_way)
