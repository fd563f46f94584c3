"""The vectors that all sessions of a role share, and the counters: written in batches, never waited for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from pgml_tune.db import Session, Transaction
from pgml_tune.service.counters import Counters
from pgml_tune.store import cache
from pgml_tune.store.cache import CacheEntry

FLUSH_ENTRIES = 256
FLUSH_SECONDS = 1.0
LOOK_SECONDS = 1.0
_LOOKUP_KEYS = 1000
_MOST_HITS = 1024  # of entries counted until the next flush


class TableCache:
    """Reads the table cache, and holds what this session has yet to write."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._pending: list[CacheEntry] = []
        self._hits: Counter[bytes] = Counter()
        self._generations: list[int] = []
        self._next_look = 0.0
        self._next_flush = 0.0  # the first vector of a session is written at once

    def lookup(self, db: Session, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The stored vectors of these keys, sealed; none where the transaction may not read them."""
        if not _can_read(db.transaction()):
            return {}
        # Looking into every generation takes longer than the rest; one that has just begun is missed for a second.
        if not self._generations or time.monotonic() >= self._next_look:
            self._generations = cache.filled_generations(db)
            self._next_look = time.monotonic() + LOOK_SECONDS
        found: dict[bytes, bytes] = {}
        if self._generations:
            for start in range(0, len(keys), _LOOKUP_KEYS):
                found.update(cache.read_entries(db, keys[start : start + _LOOKUP_KEYS], self._generations))
        if len(self._hits) < _MOST_HITS:
            self._hits.update(found.keys())
        return found

    def add(self, db: Session, entry: CacheEntry) -> None:
        """Remember an entry, and write all that are waiting when there are many."""
        self._pending.append(entry)
        if len(self._pending) >= FLUSH_ENTRIES:
            self._flush(db)

    def flush_if_due(self, db: Session) -> None:
        """Write entries and counts if a second has passed since the last time."""
        if (self._pending or self._counters) and time.monotonic() >= self._next_flush:
            self._flush(db)

    def clear(self) -> None:
        """Forget what is not yet written."""
        self._pending.clear()

    def _flush(self, db: Session) -> None:
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        entries, self._pending = self._pending, []
        hits, self._hits = self._hits, Counter()
        transaction = db.transaction()
        if transaction.is_read_only or not _can_read(transaction):
            return
        counts = self._counters.rows()
        self._counters.clear()
        cache.write(db, entries, hits, counts)


def _can_read(transaction: Transaction) -> bool:
    # Unlogged tables cannot be read on a standby, and would bring 40001 into serializable transactions.
    return not (transaction.is_serializable or transaction.is_standby)
