"""What databases want of the process that serves models: limits, and models to keep. No time, no processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.engine.choice import INVARIANT
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
    known: frozenset[str] = frozenset()  # artifacts of all its versions, whether they serve or not

    @classmethod
    def of(
        cls,
        limits: Limits,
        digests: Iterable[str],
        choices: Iterable[EngineChoice] = (),
        known: Iterable[str] = (),
    ) -> Wish:
        names = (*_SMALLEST, *_SMALLEST_BUT_ZERO)
        ways = {choice.digest: choice.to_json() for choice in choices}
        values = {name: getattr(limits, name) for name in names}
        return cls(values, frozenset(digests), ways, frozenset(known) | ways.keys())

    def agrees(self, digest: str) -> bool:
        """Whether vectors of the artifact may be a little others than those of its own engine."""
        return digest not in self.known or (digest in self.ways and is_lossy(self.ways[digest]))


def is_lossy(way: Mapping[str, Any]) -> bool:
    """Whether a way was let in though its vectors differ from those that the version stands for."""
    return float(way["agreement"]) < INVARIANT


def combined(wishes: Iterable[Wish], *, is_whole: bool = True) -> dict[str, Any]:
    """One order for all: the smallest of each limit that a database has set, the models of all, the newest choices.

    A choice that changes vectors counts only where every database that has the version has made one; so none does
    while a database has not told yet.
    """
    wishes = list(wishes)
    order: dict[str, Any] = {"pins": sorted(set().union(*(wish.digests for wish in wishes)))}
    for name in (*_SMALLEST, *_SMALLEST_BUT_ZERO):
        default = getattr(_DEFAULTS, name)
        chosen = [wish.limits[name] for wish in wishes if wish.limits[name] != default]
        order[name] = min(chosen, default=default)
    ways = sorted(
        (entry for wish in wishes for entry in wish.ways.items()), key=lambda entry: float(entry[1]["measured_at"])
    )
    counting = {
        digest: way
        for digest, way in ways
        if not is_lossy(way) or (is_whole and all(wish.agrees(digest) for wish in wishes))
    }
    return order | {"ways": counting}


@dataclass(slots=True)
class Wishes:
    """What the databases want now; told by their threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _by_database: dict[str, Wish] = field(default_factory=dict)
    _expected: set[str] | None = None  # None: which databases there are is not known yet

    def expect(self, databases: Iterable[str]) -> None:
        """Wait for these before anything is done that all have to agree to."""
        with self._lock:
            self._expected = set(databases)

    def tell(self, database: str, wish: Wish) -> None:
        with self._lock:
            self._by_database[database] = wish

    def forget(self, database: str) -> None:
        with self._lock:
            self._by_database.pop(database, None)
            if self._expected is not None:
                self._expected.discard(database)

    @property
    def is_told(self) -> bool:
        """Whether any database has said what it wants."""
        with self._lock:
            return bool(self._by_database)

    def order(self) -> dict[str, Any]:
        with self._lock:
            is_whole = self._expected is not None and self._expected <= self._by_database.keys()
            return combined(self._by_database.values(), is_whole=is_whole)
