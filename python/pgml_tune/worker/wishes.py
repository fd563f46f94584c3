"""What databases want of the process that serves models: limits, and models to keep. No time, no processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.settings import Limits

SERVED_TASKS = ("embedding", "classification", "text_to_sql")
_SMALLEST = ("max_wait_ms", "batch_size", "batch_tokens", "queue_requests")
_SMALLEST_BUT_ZERO = ("serve_memory_bytes", "serve_threads")  # 0 means that nothing is set
_DEFAULTS = Limits.from_rows({})


@dataclass(frozen=True, slots=True)
class Wish:
    """What one database wants."""

    limits: Mapping[str, int]
    digests: frozenset[str]

    @classmethod
    def of(cls, limits: Limits, digests: Iterable[str]) -> Wish:
        names = (*_SMALLEST, *_SMALLEST_BUT_ZERO)
        return cls({name: getattr(limits, name) for name in names}, frozenset(digests))


def combined(wishes: Iterable[Wish]) -> dict[str, Any]:
    """One order for all: the smallest of each limit that a database has set, and the models of all."""
    wishes = list(wishes)
    order: dict[str, Any] = {"pins": sorted(set().union(*(wish.digests for wish in wishes)))}
    for name in (*_SMALLEST, *_SMALLEST_BUT_ZERO):
        default = getattr(_DEFAULTS, name)
        chosen = [wish.limits[name] for wish in wishes if wish.limits[name] != default]
        order[name] = min(chosen, default=default)
    return order


@dataclass(slots=True)
class Wishes:
    """What the databases want now; told by their threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _by_database: dict[str, Wish] = field(default_factory=dict)

    def tell(self, database: str, wish: Wish) -> None:
        with self._lock:
            self._by_database[database] = wish

    def forget(self, database: str) -> None:
        with self._lock:
            self._by_database.pop(database, None)

    @property
    def is_told(self) -> bool:
        """Whether any database has said what it wants."""
        with self._lock:
            return bool(self._by_database)

    def order(self) -> dict[str, Any]:
        with self._lock:
            return combined(self._by_database.values())
