"""A database in which there is something to see for whoever watches it."""

from typing import Any

import psycopg

# Two days of calls, a fifth of the later ones under the candidate, which is faster and sometimes falls back.
CALLS = """
INSERT INTO pgml_tune.call_log (
    logged_at, call_id, task, model, version, variant, rollout_id, phase, share, unit, texts, input_bytes, tokens,
    unknown_tokens, output_count, cache, latency_ms, is_cold, is_fallback, sqlstate, sample_rate, role_id
)
SELECT now() - c.number * interval '43 s', c.number, CASE c.number % 2 WHEN 0 THEN 'embed' ELSE 'search' END, 'minilm',
       CASE WHEN c.variant = 'candidate' AND NOT c.is_fallback THEN 'v1-int8-block' ELSE 'v1' END, c.variant,
       r.rollout_id, r.phase, r.share, CASE WHEN r.rollout_id IS NOT NULL THEN c.unit END,
       1, 60 + c.number % 40 + CASE WHEN c.number < 1500 THEN 80 ELSE 0 END, 14, 0, 384,
       (ARRAY['miss', 'miss', 'miss', 'session', 'table'])[1 + c.number % 5],
       exp(2.2 + 0.3 * sin(c.number / 371.0) + 0.4 * sin(c.number * 12.9898) + 0.8 * (c.number % 2)
           - CASE WHEN c.variant = 'candidate' THEN 0.3 ELSE 0 END),
       c.number % 700 = 0, c.is_fallback,
       CASE WHEN c.is_fallback THEN '38000' WHEN c.number % 1501 = 0 THEN '22023' WHEN c.number = 7 THEN '57014' END,
       CASE WHEN r.rollout_id IS NULL THEN 0.1 ELSE 1 END, 'olga'::regrole
FROM (
    SELECT n.*, coalesce(n.variant = 'candidate' AND n.number % 300 = 0, false) AS is_fallback
    FROM (
        SELECT g AS number, g * 7919 AS unit,
               CASE WHEN g >= 2000 THEN NULL WHEN g * 7919 % 10 < 2 THEN 'candidate' ELSE 'serving' END AS variant
        FROM generate_series(1, 4000) AS g
    ) AS n
) AS c
LEFT JOIN pgml_tune.rollout AS r ON r.ended_at IS NULL AND c.variant IS NOT NULL
"""
# A call whose session died.
LOST = """
INSERT INTO pgml_tune.call_log (
    logged_at, call_id, task, model, version, texts, input_bytes, output_count, cache, latency_ms, is_cold, is_fallback,
    sqlstate, sample_rate, role_id
)
VALUES (
    now() - interval '1 min', -1, 'embed', 'minilm', 'v1', 1, 60, 0, 'miss', 0, false, false,
    '58000', 1, 'olga'::regrole
)
"""
# A model of three days ago, which is gone since.
ELDER = """
INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, to_target, changed_at)
VALUES ('elder', 'version', NULL, 'v1', now() - interval '3 days'),
       ('elder', 'version', 'v1', NULL, now() - interval '2 days')
"""
FEEDBACK = """
SELECT record_feedback(c.call_id,
    CASE WHEN c.call_id % 4 = 0 THEN 0.2 WHEN c.variant = 'candidate' THEN 0.95 ELSE 0.9 END)
FROM pgml_tune.call_log AS c WHERE c.call_id BETWEEN 1 AND 600 AND c.call_id % 3 = 0
"""
JOB = """
INSERT INTO pgml_tune.job (kind, parameters, request_sha256)
VALUES ('evaluate_model', '{"models": {"model": {"reference": "minilm@v1"}}}', repeat('0', 64))
"""
FAILED = """
UPDATE pgml_tune.job SET state = 'failed', started_at = now(), ended_at = now(), sqlstate = '22023', message = 'a < b'
"""


def watch(db: psycopg.Connection[Any]) -> None:
    """Lets a rollout end and another one run, and writes down calls and a job."""
    db.execute("SELECT rollout_model('minilm', 'v1-int8', 5)")
    db.execute("SELECT rollback_model('minilm', '<b>too slow</b> & \"more\"')")
    db.execute("SELECT rollout_model('minilm', 'v1-int8-block', 20)")
    for statement in (CALLS, LOST, ELDER, FEEDBACK, JOB, FAILED):
        db.execute(statement)
    db.execute("SELECT embed('a'), embed('a'), embed('b')")
