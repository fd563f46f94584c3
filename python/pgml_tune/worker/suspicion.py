"""Decides which models are not run any more because they crash the process that runs them."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

MOST_CRASHES = 3
MOST_EXCUSED = 10  # texts that were found to be at fault, and no model
# What native code dies of. SIGKILL and SIGTERM come from outside and are nobody's fault.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)


@dataclass(slots=True)
class Suspicion:
    """How often each model ran while the process crashed; used by several threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _crashes: Counter[str] = field(default_factory=Counter)
    _excused: Counter[str] = field(default_factory=Counter)  # crashes that are not held against it
    _texts: Counter[str] = field(default_factory=Counter)  # that were at fault

    def ended(self, status: int, running: Collection[str]) -> bool:
        """Whether a process that ended with this status has crashed; then the models that it ran are suspects."""
        has_crashed = -status in _CRASHES
        if has_crashed:
            with self._lock:
                self._crashes.update(running)
        return has_crashed

    def crashes_of(self, digest: str) -> int:
        """How often it ran while the process crashed, whoever was at fault."""
        with self._lock:
            return self._crashes[digest]

    def excuse(self, digest: str) -> None:
        """Hold no crash so far against a model: a text was at fault, and is not embedded again."""
        with self._lock:
            self._texts[digest] += 1
            if self._texts[digest] <= MOST_EXCUSED:
                self._excused[digest] = self._crashes[digest]

    @property
    def suspects(self) -> list[str]:
        return sorted(digest for digest, crashes in self._held().items() if 0 < crashes < MOST_CRASHES)

    @property
    def quarantined(self) -> list[str]:
        return sorted(digest for digest, crashes in self._held().items() if crashes >= MOST_CRASHES)

    def _held(self) -> dict[str, int]:
        """The crashes that are held against each model."""
        with self._lock:
            return {digest: crashes - self._excused[digest] for digest, crashes in self._crashes.items()}
