"""Which variant of a rollout a unit belongs to: always the same, and as the share grows nobody goes back."""

from __future__ import annotations

from hashlib import sha256

BUCKETS = 10_000
SERVING, CANDIDATE = "serving", "candidate"


def unit_number(salt: str, unit: str) -> int:
    """The first 60 bits of the hash of a unit, as pgml_tune._unit() computes them in SQL."""
    return int.from_bytes(sha256(f"{salt}:{unit}".encode()).digest()[:8], "big") >> 4


def variant_of(unit: int, share: int) -> str:
    """The variant that a unit belongs to while so many of 10,000 go to the candidate."""
    return CANDIDATE if unit % BUCKETS < share else SERVING
