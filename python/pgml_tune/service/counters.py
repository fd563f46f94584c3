"""What a session counts until the next flush."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Count:
    """Calls of one version; `texts` of them were asked for, the hits among them were not computed."""

    calls: int = 0  # that did not fail
    errors: int = 0
    texts: int = 0
    session_hits: int = 0
    table_hits: int = 0
    truncated: int = 0
    tokens: int = 0
    compute_ms: float = 0.0
    total_ms: float = 0.0  # of whole calls that did not fail, as what follows
    square_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0

    def add_call(self, texts: int, latency_ms: float) -> None:
        """Count a call that did not fail."""
        self.min_ms = min(self.min_ms, latency_ms) if self.calls else latency_ms
        self.max_ms = max(self.max_ms, latency_ms)
        self.total_ms += latency_ms
        self.square_ms += latency_ms * latency_ms
        self.calls += 1
        self.texts += texts


class Counters:
    """Counts per version, taken as a whole when they are flushed."""

    def __init__(self) -> None:
        self._counts: dict[int, Count] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def of(self, model_version_id: int) -> Count:
        """The running count of a version."""
        count = self._counts.get(model_version_id)
        if count is None:
            count = self._counts[model_version_id] = Count()
        return count

    def rows(self) -> list[dict[str, float]]:
        """The counts as rows of `pgml_tune.call_count`."""
        return [{"model_version_id": version, **asdict(count)} for version, count in self._counts.items()]

    def clear(self) -> None:
        self._counts.clear()
