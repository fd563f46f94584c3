"""Entry points of sql/functions/cache.sql."""

from __future__ import annotations

import json

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import cache


@entrypoint
def cache_purge(
    db: Session,
    model: str | None,
    role: str | None,
    older_than: str | None,
    min_hits: int | None,
    max_bytes: int | None,
) -> int:
    session.vectors.clear()
    session.table_cache.clear()
    return cache.purge(db, model, role, older_than, min_hits, max_bytes)


@entrypoint
def pending_counts(db: Session) -> str:
    return json.dumps(session.counters.rows())
