"""Statements on what models were asked."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_SAMPLE = """
SELECT c.version, c.space_id, c.is_reference, c.input_bytes, c.tokens, c.unknown_share, c.sketch
FROM pgml_tune._drift_calls($1::text, $2::float8, $3::float8, $4::int4) AS c
ORDER BY c.space_id
"""


@dataclass(frozen=True, slots=True)
class AskedCall:
    """What is known of the texts of a call; None where nothing was computed or the setting is off."""

    version: str
    space_id: str
    is_reference: bool
    input_bytes: float  # of a text
    tokens: float | None
    unknown_share: float | None
    sketch: str | None


def read_sample(db: Database, model: str, since_seconds: float, reference_seconds: float, most: int) -> list[AskedCall]:
    """Calls of the last seconds and of those before them, at most so many of each, by space."""
    return [AskedCall(**row) for row in db.fetch(_SAMPLE, model, since_seconds, reference_seconds, most)]
