"""What an administrator allows the worker, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Limits:
    """Settings that may change while the worker runs."""

    max_wait_ms: int
    batch_size: int
    batch_tokens: int
    queue_requests: int


@dataclass(slots=True)
class Totals:
    """What has been done since the start."""

    requests: int = 0
    errors: int = 0
    shed: int = 0
    texts: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
