"""Statements on the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_TRANSACTION = """
SELECT pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only,
       pg_catalog.current_setting('transaction_isolation') = 'serializable' AS is_serializable,
       pg_catalog.pg_is_in_recovery() AS is_standby
"""
_CHECKPOINT = "SELECT 1"


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the caller's transaction allows."""

    is_read_only: bool
    is_serializable: bool
    is_standby: bool

    @property
    def can_read_cache(self) -> bool:
        # Unlogged tables cannot be read on a standby, and would bring 40001 into serializable transactions.
        return not (self.is_serializable or self.is_standby)

    @property
    def can_write_cache(self) -> bool:
        return self.can_read_cache and not self.is_read_only


def transaction(db: Database) -> Transaction:
    """What the current transaction allows."""
    return Transaction(*db.fetch(_TRANSACTION)[0].values())


def checkpoint(db: Database) -> None:
    """Let a cancel or a timeout that has arrived take effect: running any statement looks for them."""
    db.fetch(_CHECKPOINT)
