"""Statements of what a database needs from time to time."""

from __future__ import annotations

from pgml_tune.db import Database

_TAKE_TURN = "SELECT pg_catalog.pg_try_advisory_lock(1886350708, 5) AS is_taken"
_END_TURN = "SELECT pg_catalog.pg_advisory_unlock(1886350708, 5)"
_TAKE_TIME = "SELECT pg_catalog.set_config('statement_timeout', '0', false)"
_INGEST = "SELECT pgml_tune._ingest_logs()"
_MAINTAIN = "CALL pgml_tune._maintain()"


def keep_up(db: Database, is_whole: bool) -> bool:
    """Take logged calls in, or do all that maintain() does; False if another session is at it."""
    if not db.fetch(_TAKE_TURN)[0]["is_taken"]:
        return False
    try:
        db.fetch(_TAKE_TIME)
        db.fetch(_MAINTAIN if is_whole else _INGEST)
    finally:
        db.fetch(_END_TURN)
    return True
