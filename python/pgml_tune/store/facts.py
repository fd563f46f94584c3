"""What the report is made of: rows of the database as records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Place:
    """Where and of which time the report is."""

    database: str
    role: str
    server_version: str
    extension_version: str
    schema: str
    is_standby: bool
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A version that is registered."""

    model: str
    version: str
    task: str
    is_serving: bool


@dataclass(frozen=True, slots=True)
class Move:
    """A row of pgml_tune.rollout_history."""

    kind: str
    pointer: str
    from_target: str | None
    to_target: str | None
    reason: str | None
    changed_by: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """What ab_report() says of a metric, all phases together."""

    rollout_id: int
    metric: str
    outcome: str
    words: str
    effect: float | None
    interval_low: float | None
    interval_high: float | None
    margin: float | None
    days_to_decision: float | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout that runs, or that ended in the time of the report."""

    rollout_id: int
    model: str
    from_version: str
    to_version: str
    state: str
    share: float
    plan: list[int] | None
    created_at: datetime
    looked_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls of a version, estimated from those that were logged."""

    model: str
    version: str
    calls: float
    errors: float
    fallbacks: float
    lost: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that a version takes for a task: quantiles, and the geometric mean with its interval."""

    model: str
    task: str
    version: str
    calls: float
    p50: float
    p95: float
    p99: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Milliseconds that a version took for a task in a part of the time."""

    model: str
    task: str
    version: str
    at: datetime
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What the feedback says of a version."""

    model: str
    version: str
    metric: str
    value: float
    interval_low: float
    interval_high: float
    n: int


@dataclass(frozen=True, slots=True)
class Drift:
    """What drift_report() says of the texts that a model gets."""

    model: str
    versions: str
    metric: str
    reference_value: float | None
    current_value: float | None
    effect: float | None
    threshold: float | None
    p_value: float | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Cache:
    """Texts of a version, and where their vectors came from."""

    model: str
    version: str
    texts: int
    session_hits: int
    table_hits: int
    hit_ratio: float
    saved_seconds: float | None  # that computing them would have taken
    entries: int | None  # of the table cache
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A row of pgml_tune.jobs."""

    job_id: int
    kind: str
    model: str | None
    state: str
    created_by: str
    created_at: datetime
    run_time: timedelta | None
    sqlstate: str | None
    message: str | None
    summary: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the report shows."""

    place: Place
    versions: list[Version]
    moves: list[Move]
    rollouts: list[Rollout]
    findings: list[Finding]  # of the rollouts that run
    usage: list[Usage]
    latencies: list[Latency]
    course: list[Moment]
    qualities: list[Quality]
    caches: list[Cache]
    drifts: list[Drift]
    jobs: list[Job]
    job_counts: dict[str, int]  # of all roles, by state
    pending: list[str]  # models whose plain embed() has yet to follow the searches
    dropped_bytes: int  # of logs, beyond the cap of the spool
