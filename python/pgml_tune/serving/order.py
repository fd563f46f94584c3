"""Which models may run now: one that may have crashed the process runs alone, so that the next crash tells."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_LATE_SECONDS = 0.5  # that a model which has to run alone waits at most until others make way


@dataclass(slots=True)
class Order:
    """What runs, and who has to wait for that; used by the thread of the event loop alone."""

    suspects: frozenset[str] = frozenset()  # ran while the process crashed
    running: Counter[str] = field(default_factory=Counter)
    # What waits, in so many places: models, and since when by time.monotonic().
    waiting: list[Callable[[], Iterable[tuple[str, float]]]] = field(default_factory=list)

    def begin(self, digest: str) -> None:
        self.running[digest] += 1

    def end(self, digest: str) -> None:
        self.running -= Counter((digest,))  # what falls to zero is gone

    def may_run(self, digest: str) -> bool:
        """Whether a model may run beside what runs now."""
        if not self.suspects:
            return True
        if digest in self.suspects:
            return not self.running
        return not self.suspects & self.running.keys() and not self._is_suspect_late()

    def _is_suspect_late(self) -> bool:
        """Whether one has waited for so long until nothing else runs that nothing else may begin."""
        latest = time.monotonic() - _LATE_SECONDS
        return any(
            digest in self.suspects and since < latest for waiting in self.waiting for digest, since in waiting()
        )
