"""What a model reports of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Work:
    """What it took to compute."""

    tokens: int = 0
    unknown: int = 0  # tokens for what the vocabulary has no word for
    truncated: int = 0
    seconds: float = 0.0
