"""What the report shows, as one snapshot of the database."""

from __future__ import annotations

from dataclasses import replace

from pgml_tune.db import Connection, Database
from pgml_tune.errors import InvalidArgument, NotReady
from pgml_tune.store.facts import (
    Cache,
    Drift,
    Facts,
    Finding,
    Job,
    Latency,
    Moment,
    Move,
    Place,
    Quality,
    Rollout,
    Usage,
    Version,
)

_MOMENTS = 48  # parts of the time that latency is shown over
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_PATIENCE = "SET LOCAL statement_timeout = '10min'"  # a month of logs is large
_PLACE = """
SELECT current_database()::text AS database, current_user::text AS role, quote_ident(n.nspname) AS schema,
       current_setting('server_version') AS server_version, e.extversion AS extension_version,
       pg_is_in_recovery() AS is_standby, now() - $1::interval AS since, now() AS until
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'pgml_tune'
"""
_VERSIONS = """
SELECT v.model, v.version, v.task, v.is_serving
FROM pgml_tune.model_versions AS v
ORDER BY v.model, v.created_at, v.version
"""
_BEGINNING = "SELECT min(h.changed_at) AS at FROM pgml_tune.rollout_history AS h"
_MOVES = """
SELECT h.kind, h.pointer, h.from_target, h.to_target, h.reason, h.changed_by, h.changed_at
FROM pgml_tune.rollout_history AS h
ORDER BY h.rollout_history_id
"""
_PENDING = "SELECT t.model FROM pgml_tune.traffic AS t WHERE t.embed_version <> t.serving_version ORDER BY t.model"
_ROLLOUTS = """
SELECT r.rollout_id, r.model, r.from_version, r.to_version, r.state::text AS state, r.share / 10000.0::float8 AS share,
       r.plan, r.created_at, r.looked_at, r.expires_at, r.ended_at, r.reason
FROM pgml_tune.rollout AS r
WHERE r.ended_at IS NULL OR r.ended_at >= $1::timestamptz
ORDER BY r.ended_at IS NOT NULL, r.created_at DESC
"""
# The functions are in the schema that the extension was created in.
_FINDINGS = """
SELECT a.rollout_id, a.metric, a.outcome, coalesce(a.words, '') AS words, a.effect, a.interval_low, a.interval_high,
       a.margin, a.days_to_decision
FROM {}.ab_report($1::text) AS a
WHERE a.phase IS NULL AND a.rollout_id = $2::bigint
"""
_QUALITY = """
SELECT m.model, q.version, q.metric, q.value, q.interval_low, q.interval_high, q.n
FROM pgml_tune.models AS m
CROSS JOIN LATERAL {}.quality_report(m.model, $1::interval) AS q
WHERE q.label IS NULL AND q.interval_low IS NOT NULL
ORDER BY m.model, q.metric, q.version
"""
_DRIFT = """
SELECT m.model, d.versions, d.metric, d.reference_value, d.current_value, d.effect, d.threshold, d.p_value, d.outcome
FROM pgml_tune.models AS m
CROSS JOIN LATERAL {}.drift_report(m.model) AS d
WHERE d.outcome <> 'no_data'
ORDER BY m.model, d.versions, d.metric
"""
# A call logged with sample_rate 0.1 stands for ten. One that its caller has cancelled has not failed.
_USAGE = """
SELECT c.model, c.version, sum(1 / c.sample_rate) AS calls,
       coalesce(sum(1 / c.sample_rate) FILTER (WHERE c.outcome = 'error' AND c.sqlstate <> '57014'), 0) AS errors,
       coalesce(sum(1 / c.sample_rate) FILTER (WHERE c.outcome = 'fallback'), 0) AS fallbacks,
       coalesce(sum(1 / c.sample_rate) FILTER (WHERE c.outcome = 'lost'), 0) AS lost
FROM pgml_tune.inference_logs AS c
WHERE c.logged_at >= $1::timestamptz AND c.logged_at < $2::timestamptz
GROUP BY c.model, c.version
ORDER BY c.model, c.version
"""
# What the model takes: calls that computed all they returned, with a model that was loaded already.
_COMPUTED = """
    SELECT c.model, c.version, c.task, c.latency_ms, 1 / c.sample_rate::float8 AS weight,
           date_bin($3::interval, c.logged_at, $1::timestamptz) + $3::interval / 2 AS at
    FROM pgml_tune.inference_logs AS c
    WHERE c.logged_at >= $1::timestamptz AND c.logged_at < $2::timestamptz
      AND c.outcome = 'ok' AND c.cache = 'miss' AND NOT c.is_cold AND c.latency_ms > 0
"""
# The interval is of the geometric mean, which a few slow calls do not move; weighted rows count as fewer than they are.
_LATENCIES = f"""
WITH computed AS ({_COMPUTED}), ranked AS (
    SELECT c.*, sum(c.weight) OVER (PARTITION BY c.model, c.task, c.version ORDER BY c.latency_ms)
                / sum(c.weight) OVER (PARTITION BY c.model, c.task, c.version) AS quantile
    FROM computed AS c
), summed AS (
    SELECT c.model, c.task, c.version, sum(c.weight) AS calls, sum(c.weight) ^ 2 / sum(c.weight ^ 2) AS count,
           sum(c.weight * ln(c.latency_ms)) / sum(c.weight) AS mean,
           sum(c.weight * ln(c.latency_ms) ^ 2) / sum(c.weight) AS mean_square,
           min(c.latency_ms) FILTER (WHERE c.quantile >= 0.5) AS p50,
           min(c.latency_ms) FILTER (WHERE c.quantile >= 0.95) AS p95,
           min(c.latency_ms) FILTER (WHERE c.quantile >= 0.99) AS p99
    FROM ranked AS c
    GROUP BY c.model, c.task, c.version
), known AS (
    SELECT s.*, 1.96 * sqrt(greatest(s.mean_square - s.mean ^ 2, 0) / greatest(s.count - 1, 1)) AS half_width
    FROM summed AS s
)
SELECT k.model, k.task, k.version, k.calls, k.p50, k.p95, k.p99,
       exp(k.mean) AS mean, exp(k.mean - k.half_width) AS low, exp(k.mean + k.half_width) AS high
FROM known AS k
ORDER BY k.model, k.task, k.version
"""
_COURSE = f"""
WITH computed AS ({_COMPUTED}), ranked AS (
    SELECT c.*, sum(c.weight) OVER (PARTITION BY c.model, c.task, c.version, c.at ORDER BY c.latency_ms)
                / sum(c.weight) OVER (PARTITION BY c.model, c.task, c.version, c.at) AS quantile
    FROM computed AS c
)
SELECT c.model, c.task, c.version, c.at,
       min(c.latency_ms) FILTER (WHERE c.quantile >= 0.5) AS p50,
       min(c.latency_ms) FILTER (WHERE c.quantile >= 0.95) AS p95
FROM ranked AS c
GROUP BY c.model, c.task, c.version, c.at
ORDER BY c.model, c.task, c.version, c.at
"""
# These counters are unlogged: a standby has none.
_CACHES = """
SELECT s.model, s.version, s.texts, s.session_hits, s.table_hits, s.hit_ratio::float8 AS hit_ratio, s.saved_seconds,
       s.entries, s.bytes
FROM pgml_tune.stat_cache AS s
WHERE s.texts > 0
ORDER BY s.texts DESC
"""
_JOBS = """
SELECT j.job_id, j.kind, j.model, j.state::text AS state, j.created_by, j.created_at, j.run_time, j.sqlstate, j.message,
       j.result ->> 'summary' AS summary
FROM pgml_tune.jobs AS j
WHERE j.created_at >= $1::timestamptz OR j.ended_at IS NULL
ORDER BY j.job_id DESC
LIMIT 30
"""
_JOB_COUNTS = """
SELECT j.state::text AS state, sum(j.jobs)::bigint AS jobs FROM pgml_tune.stat_jobs AS j GROUP BY j.state
"""
_LOG = "SELECT l.dropped_bytes FROM pgml_tune.stat_log AS l"


def read(db: Connection, since: str) -> Facts:
    """All that the report shows, of the time that began `since` (an interval) ago."""
    with db.transaction():
        db.fetch(_SNAPSHOT)
        db.fetch(_PATIENCE)
        place = _place(db, since)
        part = (place.until - place.since) / _MOMENTS
        window = (place.since, place.until)
        rollouts = [Rollout(**row) for row in db.fetch(_ROLLOUTS, place.since)]
        return Facts(
            place=place,
            versions=[Version(**row) for row in db.fetch(_VERSIONS)],
            moves=[Move(**row) for row in db.fetch(_MOVES)],
            pending=[row["model"] for row in db.fetch(_PENDING)],
            rollouts=rollouts,
            findings=[row for rollout in rollouts if rollout.ended_at is None for row in _findings(db, place, rollout)],
            usage=[Usage(**row) for row in db.fetch(_USAGE, *window)],
            latencies=[Latency(**row) for row in db.fetch(_LATENCIES, *window, part)],
            course=[Moment(**row) for row in db.fetch(_COURSE, *window, part)],
            qualities=[Quality(**row) for row in db.fetch(_QUALITY.format(place.schema), since)],
            caches=[] if place.is_standby else [Cache(**row) for row in db.fetch(_CACHES)],
            drifts=[Drift(**row) for row in db.fetch(_DRIFT.format(place.schema))],
            jobs=[Job(**row) for row in db.fetch(_JOBS, place.since)],
            job_counts={row["state"]: row["jobs"] for row in db.fetch(_JOB_COUNTS)},
            dropped_bytes=db.fetch(_LOG)[0]["dropped_bytes"],
        )


def _place(db: Database, since: str) -> Place:
    rows = db.fetch(_PLACE, since)
    if not rows:
        raise NotReady('extension "pgml_tune" is not installed here', hint="CREATE EXTENSION pgml_tune CASCADE")
    place = Place(**rows[0])
    if place.since >= place.until:
        raise InvalidArgument(f'"{since}" is no time that has passed', hint="Write an interval, for example '7 days'.")
    # Nothing happened before the first model was registered.
    beginning = db.fetch(_BEGINNING)[0]["at"]
    return place if beginning is None else replace(place, since=max(place.since, beginning))


def _findings(db: Database, place: Place, rollout: Rollout) -> list[Finding]:
    rows = db.fetch(_FINDINGS.format(place.schema), rollout.model, rollout.rollout_id)
    return [Finding(**row) for row in rows]
