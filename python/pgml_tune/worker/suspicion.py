"""Decides which models are not run any more because they crash the process that runs them."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

MOST_CRASHES = 3
# What native code dies of. SIGKILL and SIGTERM come from outside and are nobody's fault.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)


@dataclass(slots=True)
class Suspicion:
    """How often each model ran while the process crashed."""

    _crashes: Counter[str] = field(default_factory=Counter)

    def ended(self, status: int, running: Collection[str]) -> bool:
        """Whether a process that ended with this status has crashed; then the models that it ran are suspects."""
        has_crashed = -status in _CRASHES
        if has_crashed:
            self._crashes.update(running)
        return has_crashed

    @property
    def suspects(self) -> list[str]:
        return sorted(digest for digest, crashes in self._crashes.items() if crashes < MOST_CRASHES)

    @property
    def quarantined(self) -> list[str]:
        return sorted(digest for digest, crashes in self._crashes.items() if crashes >= MOST_CRASHES)
