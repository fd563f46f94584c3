"""What is done beside the lanes, in threads of its own: models are loaded, and write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pgml_tune.serving.order import Order


@dataclass(frozen=True, slots=True)
class Held:
    """What has not begun."""

    digest: str
    since: float
    begin: Callable[[], object]


@dataclass(slots=True)
class Beside:
    """Begins what waits as soon as its model may run."""

    order: Order
    _held: list[Held] = field(default_factory=list)
    _loader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "loader"))
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "writer"))

    def __post_init__(self) -> None:
        self.order.waiting.append(self._waiting)

    def load(self, digest: str, work: Callable[[], None]) -> None:
        """Have a model loaded, which counts as running until the order is told that it has ended."""
        self._hold(digest, lambda: self._loader.submit(work))

    def write(self, digest: str, work: Callable[[], None]) -> None:
        """Let a model write, the same way: one text at a time, for its library uses all threads for that."""
        self._hold(digest, lambda: self._writer.submit(work))

    def pump(self) -> None:
        """Begin what may."""
        if not self._held:
            return
        for held in list(self._held):
            if self.order.may_run(held.digest):
                self._held.remove(held)
                self.order.begin(held.digest)
                held.begin()

    def close(self) -> None:
        self._loader.shutdown(wait=False)
        self._writer.shutdown(wait=False)

    def _hold(self, digest: str, begin: Callable[[], object]) -> None:
        self._held.append(Held(digest, time.monotonic(), begin))

    def _waiting(self) -> Iterator[tuple[str, float]]:
        return ((held.digest, held.since) for held in self._held)
