"""Entry points of sql/functions/call_log.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import log_ingest
from pgml_tune.settings import Limits, read_paths
from pgml_tune.store import cache
from pgml_tune.store.setting import read_settings


@entrypoint
def ingest_logs(db: Session) -> int:
    return log_ingest.ingest(db, read_paths().spool_dir, Limits.from_rows(read_settings(db)[1]))


@entrypoint
def spooled_calls(db: Session) -> list[str]:
    return log_ingest.pending(db, read_paths().spool_dir)


@entrypoint
def stat_reset(db: Session) -> None:
    session.counters.clear()
    cache.reset_counts(db)
