"""Statements on what was logged of rollouts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database

_ROLLOUT = """
SELECT r.rollout_id, r.phase, r.share, r.guardrails::text AS guardrails,
       extract(epoch FROM now() - r.phase_began_at)::float8 AS phase_seconds, r.ended_at IS NULL AS is_running
FROM pgml_tune.rollout AS r WHERE r.rollout_id = $1::int8
"""
_SHOWN = """
SELECT r.rollout_id FROM pgml_tune.rollout AS r
WHERE r.model = $1::text
  AND (r.ended_at IS NULL OR r.rollout_id = (
      SELECT max(o.rollout_id) FROM pgml_tune.rollout AS o WHERE o.model = r.model AND o.ended_at IS NOT NULL
  ))
ORDER BY r.ended_at IS NOT NULL
"""
_ARMS = """
SELECT u.phase, u.share, u.variant,
       count(*) AS units,
       count(*) FILTER (WHERE u.has_entered) AS entered,
       count(*) FILTER (WHERE u.is_newcomer) AS newcomers,
       count(*) FILTER (WHERE u.is_in_both) AS in_both,
       count(*) FILTER (WHERE u.has_failed) AS failed,
       count(*) FILTER (WHERE u.has_first_failed) AS first_failed,
       count(*) FILTER (WHERE u.was_slow) AS slow,
       count(*) FILTER (WHERE u.was_first_slow) AS first_slow,
       count(u.ln_ms) AS timed, avg(u.ln_ms) AS ln_ms, coalesce(var_samp(u.ln_ms), 0) AS ln_ms_variance,
       count(u.score) AS scored, avg(u.score) AS score, coalesce(var_samp(u.score), 0) AS score_variance
FROM pgml_tune._rollout_units($1::int8, $2::float8) AS u
GROUP BY u.phase, u.share, u.variant
ORDER BY u.phase
"""
# How the difference of the variants in one phase varies together with that in a later one: through units seen in both.
_OVERLAPS = """
WITH centred AS MATERIALIZED (
    SELECT u.phase, u.unit, u.variant,
           (u.ln_ms - avg(u.ln_ms) OVER w) / count(u.ln_ms) OVER w AS latency,
           (u.score - avg(u.score) OVER w) / count(u.score) OVER w AS score
    FROM pgml_tune._rollout_units($1::int8, $2::float8) AS u
    WINDOW w AS (PARTITION BY u.phase, u.variant)
)
SELECT a.phase, b.phase AS later_phase,
       coalesce(sum(CASE a.variant WHEN b.variant THEN 1 ELSE -1 END * a.latency * b.latency), 0) AS latency,
       coalesce(sum(CASE a.variant WHEN b.variant THEN 1 ELSE -1 END * a.score * b.score), 0) AS score
FROM centred AS a JOIN centred AS b ON b.unit = a.unit AND b.phase > a.phase
GROUP BY a.phase, b.phase
"""
_CALLS = """
SELECT c.phase, c.variant, c.requests, c.failed, c.measured, c.mean_ms, c.p50_ms, c.p95_ms, c.p99_ms
FROM pgml_tune._rollout_calls($1::int8) AS c
"""
_SERVED = """
SELECT c.unit, c.model_ms, c.has_failed FROM pgml_tune._served_calls($1::text, $2::int4) AS c ORDER BY c.logged_at
"""
_IS_MODEL = "SELECT FROM pgml_tune.model AS m WHERE m.name = $1::text"


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout as those see it who judge it."""

    rollout_id: int
    phase: int
    share: int  # units of 10,000
    guardrails: dict[str, Any]
    phase_seconds: float  # since this phase began
    is_running: bool


@dataclass(frozen=True, slots=True)
class ArmRow:
    """What a phase has seen of a variant, in units."""

    phase: int
    share: int
    variant: str
    units: int
    entered: int
    newcomers: int
    in_both: int
    failed: int
    first_failed: int
    slow: int
    first_slow: int
    timed: int
    ln_ms: float | None  # None: no unit was timed
    ln_ms_variance: float
    scored: int
    score: float | None  # None: no unit was scored
    score_variance: float


@dataclass(frozen=True, slots=True)
class OverlapRow:
    """Covariances of two phases."""

    phase: int
    later_phase: int
    latency: float
    score: float


@dataclass(frozen=True, slots=True)
class CallsRow:
    """Calls of a variant in a phase; milliseconds are None where none was measured."""

    phase: int
    variant: str
    requests: int
    failed: int
    measured: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class ServedCall:
    """A call that the serving version answered."""

    unit: int
    model_ms: float | None  # None: its time says nothing of the model
    has_failed: bool


def is_model(db: Database, name: str) -> bool:
    """Whether a model of this name is registered."""
    return bool(db.fetch(_IS_MODEL, name))


def find_rollout(db: Database, rollout_id: int) -> RolloutRow | None:
    """The rollout of this number."""
    rows = db.fetch(_ROLLOUT, rollout_id)
    return RolloutRow(**rows[0] | {"guardrails": json.loads(rows[0]["guardrails"])}) if rows else None


def shown_rollouts(db: Database, model: str) -> list[int]:
    """The rollout of a model that runs, and the last one that has ended."""
    return [row["rollout_id"] for row in db.fetch(_SHOWN, model)]


def read_arms(db: Database, rollout_id: int, promised_ms: float | None) -> list[ArmRow]:
    """What was seen of both variants, by phase."""
    return [ArmRow(**row) for row in db.fetch(_ARMS, rollout_id, promised_ms)]


def read_overlaps(db: Database, rollout_id: int) -> list[OverlapRow]:
    """How far the differences of two phases vary together."""
    return [OverlapRow(**row) for row in db.fetch(_OVERLAPS, rollout_id, None)]


def read_calls(db: Database, rollout_id: int) -> list[CallsRow]:
    """How many calls each variant had in each phase, and how long they took."""
    return [CallsRow(**row) for row in db.fetch(_CALLS, rollout_id)]


def read_served(db: Database, model: str, most: int) -> list[ServedCall]:
    """The newest calls that the serving version of a model answered, the oldest first."""
    return [ServedCall(**row) for row in db.fetch(_SERVED, model, most)]
