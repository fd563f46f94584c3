"""Statements of what a database needs from time to time."""

from __future__ import annotations

from pgml_tune.db import Database

# Not an advisory lock, which anybody could hold. That two think so for a moment does no harm.
_IS_FIRST = """
SELECT NOT EXISTS (
    SELECT FROM pgml_tune.worker AS w LEFT JOIN pgml_tune.worker AS o ON o.name = $1::text
    WHERE w.name <> $1::text AND NOT w.is_one_shot AND w.seen_at > pg_catalog.clock_timestamp() - interval '30 seconds'
        AND (o.name IS NULL OR (w.started_at, w.name) < (o.started_at, o.name))
        AND EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(w.backend_pid))
) AS is_first
"""
# What maintain() does last runs code of owners of tables, which may take for ever.
_TAKE_TIME = "SELECT pg_catalog.set_config('statement_timeout', '15min', false)"
_INGEST = "SELECT pgml_tune._ingest_logs()"
_MAINTAIN = "CALL pgml_tune._maintain()"


def is_first(db: Database, worker: str) -> bool:
    """Whether this worker is the one of the database, of those that stay, that does what only one needs to do."""
    return bool(db.fetch(_IS_FIRST, worker)[0]["is_first"])


def keep_up(db: Database, is_whole: bool) -> None:
    """Take logged calls in, or do all that maintain() does."""
    db.fetch(_TAKE_TIME)
    db.fetch(_MAINTAIN if is_whole else _INGEST)
