"""How long requests take and how full batches are, counted as they pass; all by one thread."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.engine.dynamic_batching import Part

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_RECENT = 1000  # requests of which quantiles are told


@dataclass(slots=True)
class Histogram:
    """How many values are at most as large as each of some bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)  # of what lies between two bounds; the last: beyond all
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def told(self) -> dict[str, Any]:
        return {"bounds": self.bounds, "counts": self.counts, "sum": round(self.total, 6)}


def _by_class() -> dict[bool, Histogram]:
    return {False: Histogram(_SECONDS), True: Histogram(_SECONDS)}


@dataclass(slots=True)
class Figures:
    """What has passed since the start."""

    request_seconds: dict[bool, Histogram] = field(default_factory=_by_class)  # True: bulk
    wait_seconds: dict[bool, Histogram] = field(default_factory=_by_class)
    batch_texts: Histogram = field(default_factory=lambda: Histogram(_TEXTS))
    tokens: int = 0
    padding_tokens: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def begun(self, batch: Sequence[Part], now: float) -> None:
        """A lane takes these."""
        for part in batch:
            self.wait_seconds[part.is_bulk].add(now - part.arrived)
        texts = sum(part.texts for part in batch)
        self.batch_texts.add(texts)
        if batch[0].is_mixable:  # else it may be computed in several pieces
            tokens = sum(part.tokens for part in batch)
            self.tokens += tokens
            self.padding_tokens += texts * max(part.longest for part in batch) - tokens

    def answered(self, is_bulk: bool, seconds: float) -> None:
        """A request has its answer."""
        self.request_seconds[is_bulk].add(seconds)
        if not is_bulk:
            self._recent.append(seconds)

    def told(self) -> dict[str, Any]:
        """All of it, for the status."""
        recent = sorted(self._recent)
        return {
            "tokens": self.tokens,
            "padding_tokens": self.padding_tokens,
            "recent_requests": len(recent),
            "recent_seconds": [recent[len(recent) * percent // 100] for percent in (50, 95, 99)] if recent else [],
            "histograms": {
                "request_seconds": _told_by_class(self.request_seconds),
                "wait_seconds": _told_by_class(self.wait_seconds),
                "batch_texts": {"": self.batch_texts.told()},
            },
        }


def _told_by_class(histograms: dict[bool, Histogram]) -> dict[str, Any]:
    return {"bulk" if is_bulk else "interactive": histogram.told() for is_bulk, histogram in histograms.items()}
