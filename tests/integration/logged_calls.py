"""Rollouts and calls that tests write into the log, as if they had happened."""

from typing import Any

import psycopg
from conditions import fetch_value

_ROLLOUT = """
INSERT INTO pgml_tune.rollout (
    model_id, model, from_version_id, from_version, to_version_id, to_version, is_same_space, share, phase, salt,
    guardrails, expires_at, on_expiry, phase_began_at
)
SELECT m.model_id, m.name, 1, 'v1', 2, 'v1-int8', true, %(share)s, %(phase)s, 'salt', %(guardrails)s::jsonb,
       now() + interval '7 days', 'rollback', now() - interval '1 day'
FROM pgml_tune.model AS m WHERE m.name = 'minilm'
RETURNING rollout_id
"""
# A unit has a speed of its own, which it keeps from phase to phase, and calls that differ around it.
_CALLS = """
INSERT INTO pgml_tune.call_log (
    logged_at, call_id, task, model, version, variant, rollout_id, phase, share, unit, texts, input_bytes, tokens,
    unknown_tokens, output_count, cache, latency_ms, is_cold, is_fallback, sqlstate, sample_rate, role_id
)
SELECT now() - interval '1 hour', c.call_id, 'embed', 'minilm',
       CASE WHEN c.is_candidate THEN 'v1-int8' ELSE 'v1' END,
       CASE WHEN c.is_candidate THEN 'candidate' ELSE 'serving' END,
       %(rollout_id)s, %(phase)s, %(share)s, c.unit, 1, 20 + c.call_id %% 30, 6, 0, 384, 'miss',
       exp(1 + 0.5 * c.unit_noise + 0.3 * c.call_noise) * CASE WHEN c.is_candidate THEN %(slower)s ELSE 1 END,
       false, false,
       CASE
           WHEN c.fate < CASE WHEN c.is_candidate THEN %(candidate_errors)s ELSE %(serving_errors)s END THEN '58000'
       END,
       1, %(role)s::regrole
FROM (
    SELECT u.unit, u.unit %% 10000 < %(share)s AS is_candidate,
           %(first)s * 1000 + u.number * %(calls)s + n AS call_id,
           sqrt(-2 * ln(1 - pgml_test_share('a', u.number))) * cos(2 * pi() * pgml_test_share('b', u.number))
               AS unit_noise,
           sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()) AS call_noise,
           random() AS fate
    FROM (
        SELECT g AS number, ('x' || substr(md5('salt:' || g), 1, 15))::bit(60)::bigint AS unit
        FROM generate_series(%(first)s, %(first)s + %(units)s - 1) AS g
    ) AS u, generate_series(1, %(calls)s) AS n
) AS c
WHERE NOT (c.is_candidate AND pgml_test_share('lost', c.unit) < %(lost)s)
"""
# A number in 0..1 that belongs to a value.
_SHARE = """
CREATE OR REPLACE FUNCTION pgml_test_share(salt text, value bigint) RETURNS float8 LANGUAGE sql IMMUTABLE
AS $$ SELECT ('x' || substr(md5(salt || value), 1, 8))::bit(32)::bigint / 4294967296.0::float8 $$
"""


def forget_calls(db: psycopg.Connection[Any]) -> None:
    """As if nothing had happened yet in a database that several tests share."""
    db.execute("TRUNCATE pgml_tune.call_log, pgml_tune.feedback")
    db.execute("DELETE FROM pgml_tune.rollout")
    db.execute("SELECT configure('log_sample', '0')")


def begin_rollout(db: psycopg.Connection[Any], share: int = 5000, phase: int = 1, guardrails: str = "{}") -> int:
    """A rollout of model minilm that runs since a day."""
    parameters = {"share": share, "phase": phase, "guardrails": guardrails}
    return int(fetch_value(db, _ROLLOUT, parameters))


def log_calls(
    db: psycopg.Connection[Any],
    rollout_id: int | None,
    units: int,
    *,
    calls: int = 1,
    phase: int = 1,
    share: int = 5000,
    first: int = 0,
    slower: float = 1.0,
    candidate_errors: float = 0.0,
    serving_errors: float = 0.0,
    lost: float = 0.0,
    role: str = "postgres",
) -> None:
    """Calls of so many units, split as a rollout would; `lost` of those of the candidate are not written down."""
    db.execute(_SHARE)
    db.execute("SELECT setseed(0.5)")
    db.execute(_CALLS, {name: value for name, value in locals().items() if name != "db"})
