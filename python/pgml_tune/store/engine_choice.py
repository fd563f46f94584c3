"""Statements on what tune_engine() has chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database
from pgml_tune.records import ModelReference

_FORGET = """
DELETE FROM pgml_tune.engine_choice AS c
USING pgml_tune.model AS m JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
WHERE c.model_version_id = v.model_version_id AND m.name = $1::text AND v.version = $2::text
"""
# Nothing where the version is another one by now.
_KEEP = """
INSERT INTO pgml_tune.engine_choice (
    model_version_id, machine, engine, provider, inference_precision, threads, lanes, batch_size, texts_per_second,
    gain_percent, latency_ms, agreement, job_id, created_by
)
SELECT v.model_version_id, c.machine, c.engine, c.provider, c.precision, c.threads, c.lanes, c.batch_size,
       c.texts_per_second, c.gain_percent, c.latency_ms, c.agreement, $5::int8, $6::text
FROM pgml_tune.model AS m JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id,
     pg_catalog.jsonb_to_record($4::jsonb) AS c (
         machine text, engine text, provider text, precision text, threads integer, lanes integer, batch_size integer,
         texts_per_second double precision, gain_percent double precision, latency_ms double precision,
         agreement double precision
     )
WHERE m.name = $1::text AND v.version = $2::text AND v.artifact_sha256 = $3::text
"""
_CHOICES = """
SELECT v.artifact_sha256 AS digest, m.name, v.version, c.machine, c.engine, c.provider,
       c.inference_precision AS precision, c.threads, c.lanes, c.batch_size, c.agreement,
       pg_catalog.extract('epoch', c.measured_at)::float8 AS measured_at
FROM pgml_tune.engine_choice AS c
JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
ORDER BY c.measured_at, c.model_version_id
"""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The way in which the worker is to run an artifact, on one machine."""

    digest: str
    reference: ModelReference
    machine: str
    way: Mapping[str, Any]
    agreement: float
    measured_at: float  # seconds since 1970

    def to_json(self) -> dict[str, Any]:
        """What the process that serves models is told."""
        return {
            "machine": self.machine,
            "way": dict(self.way),
            "agreement": self.agreement,
            "measured_at": self.measured_at,
        }


def keep(
    db: Database, reference: ModelReference, digest: str, choice: Mapping[str, Any] | None, job_id: int, created_by: str
) -> None:
    """Write down what was chosen for a version in place of what was; None: its own engine."""
    db.fetch(_FORGET, reference.name, reference.version)
    if choice is not None:
        document = json.dumps(dict(choice), allow_nan=False)
        db.fetch(_KEEP, reference.name, reference.version, digest, document, job_id, created_by)


def choices(db: Database) -> list[EngineChoice]:
    """What was chosen, the oldest first."""
    return [
        EngineChoice(
            digest=row.pop("digest"),
            reference=ModelReference(row.pop("name"), row.pop("version")),
            machine=row.pop("machine"),
            agreement=row.pop("agreement"),
            measured_at=row.pop("measured_at"),
            way=row,
        )
        for row in map(dict, db.fetch(_CHOICES))
    ]
