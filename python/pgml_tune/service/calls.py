"""What the inference calls of a session have in common, whatever their task."""

from __future__ import annotations

import secrets

from pgml_tune.db import Session
from pgml_tune.engine.encoder import Work
from pgml_tune.service.counters import Count, Counters
from pgml_tune.service.resolution import Rules
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import Limits
from pgml_tune.store.registry import Target

_CALL_ID_BITS = 24


class Calls:
    """Begins, counts and numbers the calls of a session."""

    def __init__(self, counters: Counters, table: TableCache) -> None:
        self._rules = Rules()
        self._counters = counters
        self._table = table  # writes the counters together with its entries
        self._next_id = secrets.randbits(63 - _CALL_ID_BITS) << _CALL_ID_BITS
        self.last_id: int | None = None

    def begin(self, db: Session, model: str | None, task: str) -> tuple[Target, Limits]:
        """The version that a call goes to, and the settings in force."""
        return self._rules.read(db, model, task)

    def count(self, target: Target) -> Count:
        """The running count of the version."""
        return self._counters.of(target.model_version_id)

    def count_work(self, target: Target, work: Work) -> None:
        """Add what computing took."""
        count = self.count(target)
        count.tokens += work.tokens
        count.truncated += work.truncated
        count.compute_ms += work.seconds * 1000

    def finish(self, db: Session, target: Target, text_count: int) -> None:
        """Count a call that has succeeded, and number it."""
        count = self.count(target)
        count.calls += 1
        count.texts += text_count
        self._table.flush_if_due(db)
        self.number()

    def number(self) -> None:
        """Give the call the next identifier."""
        self.last_id = self._next_id
        self._next_id += 1
