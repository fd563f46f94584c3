"""Which rows are embedded one by one: native code has crashed while a model had them. No SQL, no processes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pgml_tune.worker.suspicion import Suspicion

_COUNTED_SECONDS = 10.0  # by then it is known whether a process that was lost has crashed
_CAUTIOUS_SECONDS = 120.0  # without progress: their collection may be gone, and others wait


@dataclass(frozen=True, slots=True)
class _Lost:
    """Rows whose vectors did not come, since the process was lost."""

    digest: str
    collection_id: int
    queue_ids: Sequence[int]
    crashes: int  # of the model, before
    until: float


@dataclass(slots=True)
class Caution:
    """What the threads that feed one database know of the rows that may crash a model."""

    suspicion: Suspicion = field(default_factory=Suspicion)
    clock: Callable[[], float] = time.monotonic
    chance: random.Random = field(default_factory=random.Random)
    alone: threading.Lock = field(default_factory=threading.Lock)  # held by who gives a model one row at a time
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lost: list[_Lost] = field(default_factory=list)
    _suspects: dict[str, dict[int, dict[int, None]]] = field(default_factory=dict)  # digest, collection, row
    _until: dict[str, float] = field(default_factory=dict)  # by digest
    _trials: dict[str, tuple[int, int]] = field(default_factory=dict)  # the row alone with a model, its crashes before
    _guilty: set[int] = field(default_factory=set)  # rows of trials that ended in a crash
    _working: set[str] = field(default_factory=set)  # have made vectors since the crash
    _blamed: set[str] = field(default_factory=set)  # texts were found, but these have made no vector yet

    def crashes_of(self, digest: str) -> int:
        """How often the process has crashed that ran this model."""
        return self.suspicion.crashes_of(digest)

    def lose(self, digest: str, collection_id: int, queue_ids: Sequence[int], crashes: int) -> None:
        """Rows were with a model that had crashed so often before, and the process is lost."""
        with self._lock:
            self._lost.append(_Lost(digest, collection_id, queue_ids, crashes, self.clock() + _COUNTED_SECONDS))

    def suspects(self, digest: str) -> dict[int, list[int]]:
        """The rows of each collection that have to be alone with a model; others wait for them."""
        with self._lock:
            for lost in self._lost:
                if self.crashes_of(lost.digest) > lost.crashes:
                    if lost.digest not in self._suspects:
                        self._working.discard(lost.digest)
                    rows = self._suspects.setdefault(lost.digest, {}).setdefault(lost.collection_id, {})
                    # In any order: neighbours are often of one kind, and a model that makes no vector is not excused.
                    rows.update(dict.fromkeys(self.chance.sample(lost.queue_ids, len(lost.queue_ids))))
                    self._until[lost.digest] = self.clock() + _CAUTIOUS_SECONDS
            self._lost = [
                lost for lost in self._lost
                if self.crashes_of(lost.digest) <= lost.crashes and self.clock() < lost.until
            ]  # fmt: skip
            if self.clock() > self._until.get(digest, 0.0):
                self._suspects.pop(digest, None)
            found = self._suspects.get(digest, {})
            return {collection_id: list(rows) for collection_id, rows in found.items()}

    def try_alone(self, digest: str, queue_id: int) -> bool:
        """Begin with a row, or begin again; False: the model has crashed meanwhile, so it is the row's fault."""
        with self._lock:
            crashes = self.crashes_of(digest)
            tried, before = self._trials.pop(digest, (queue_id, crashes))
            if crashes > before:
                self._guilty.add(tried)
            if queue_id in self._guilty:
                self._blamed.add(digest)
                self._excuse(digest)
                return False
            self._trials[digest] = queue_id, crashes
            return True

    def try_later(self, digest: str) -> None:
        """Something else has come between."""
        with self._lock:
            self._trials.pop(digest, None)

    def clear(self, digest: str, collection_id: int, queue_id: int, *, is_embedded: bool) -> None:
        """Of this row is known what becomes of it."""
        with self._lock:
            if is_embedded:
                self._working.add(digest)
                self._excuse(digest)
            if self._trials.get(digest, (None,))[0] == queue_id:
                del self._trials[digest]
            self._guilty.discard(queue_id)
            self._until[digest] = self.clock() + _CAUTIOUS_SECONDS
            collections = self._suspects.get(digest, {})
            rows = collections.get(collection_id, {})
            rows.pop(queue_id, None)
            if not rows:
                collections.pop(collection_id, None)
            if not collections:
                self._suspects.pop(digest, None)

    def _excuse(self, digest: str) -> None:
        """Hold the crashes not against a model that works, but for some texts."""
        if digest in self._working & self._blamed:
            self._blamed.discard(digest)
            self.suspicion.excuse(digest)
