"""What databases want of the process that serves models: limits, and models to keep. No time, no processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.settings import Limits
from pgml_tune.store.engine_choice import EngineChoice

SERVED_TASKS = ("embedding", "classification", "text_to_sql")
_SMALLEST = ("max_wait_ms", "batch_size", "batch_tokens", "queue_requests")
_SMALLEST_BUT_ZERO = ("serve_memory_bytes", "serve_threads")  # 0 means that nothing is set
_DEFAULTS = Limits.from_rows({})


@dataclass(frozen=True, slots=True)
class Wish:
    """What one database wants."""

    limits: Mapping[str, int]
    digests: frozenset[str]
    ways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by digest, what tune_engine() has chosen

    @classmethod
    def of(cls, limits: Limits, digests: Iterable[str], choices: Iterable[EngineChoice] = ()) -> Wish:
        names = (*_SMALLEST, *_SMALLEST_BUT_ZERO)
        ways = {choice.digest: choice.to_json() for choice in choices}
        return cls({name: getattr(limits, name) for name in names}, frozenset(digests), ways)


def combined(wishes: Iterable[Wish]) -> dict[str, Any]:
    """One order for all: the smallest of each limit that a database has set, the models of all, the newest choices."""
    wishes = list(wishes)
    order: dict[str, Any] = {"pins": sorted(set().union(*(wish.digests for wish in wishes)))}
    for name in (*_SMALLEST, *_SMALLEST_BUT_ZERO):
        default = getattr(_DEFAULTS, name)
        chosen = [wish.limits[name] for wish in wishes if wish.limits[name] != default]
        order[name] = min(chosen, default=default)
    chosen_ways = sorted(
        (entry for wish in wishes for entry in wish.ways.items()), key=lambda entry: float(entry[1]["measured_at"])
    )
    return order | {"ways": dict(chosen_ways)}


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
