-- Counters are added up by the sessions and flushed as rows: nobody updates a row, so nobody waits.
CREATE UNLOGGED TABLE pgml_tune.call_count (
    model_version_id bigint NOT NULL,
    calls            bigint NOT NULL,
    texts            bigint NOT NULL,
    session_hits     bigint NOT NULL,
    table_hits       bigint NOT NULL,
    truncated        bigint NOT NULL,
    tokens           bigint NOT NULL,
    compute_ms       double precision NOT NULL,
    recorded_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    errors           bigint NOT NULL,
    total_ms         double precision NOT NULL,  -- of the calls that did not fail, as what follows
    square_ms        double precision NOT NULL,
    min_ms           double precision NOT NULL,
    max_ms           double precision NOT NULL
);
COMMENT ON TABLE pgml_tune.call_count IS 'Calls and cache hits per model version, as flushed by the sessions.';

