CREATE OR REPLACE VIEW pgml_tune.models AS
SELECT m.name AS model,
       m.task,
       m.description,
       v.version AS serving_version,
       s.default_of IS NOT NULL AS is_default,
       s.dimensions,
       (SELECT count(*) FROM pgml_tune.model_version AS o WHERE o.model_id = m.model_id) AS version_count,
       m.created_by,
       m.created_at
FROM pgml_tune.model AS m
LEFT JOIN pgml_tune.serving AS s ON s.model_id = m.model_id
LEFT JOIN pgml_tune.model_version AS v ON v.model_version_id = s.model_version_id;
COMMENT ON VIEW pgml_tune.models IS 'The models, the version each serves, and the default of each task.';

CREATE OR REPLACE VIEW pgml_tune.model_versions AS
SELECT m.name AS model,
       v.version,
       m.task,
       v.state,
       s.default_of IS NOT NULL AS is_default,
       s.model_id IS NOT NULL AS is_serving,
       v.space_id,
       v.dimensions,
       v.max_tokens,
       v.storage,
       v.bytes,
       v.is_batch_invariant,
       v.base_version,
       v.metrics,
       v.source,
       v.artifact_sha256,
       v.created_by,
       v.created_at
FROM pgml_tune.model_version AS v
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
LEFT JOIN pgml_tune.serving AS s ON s.model_version_id = v.model_version_id;
COMMENT ON VIEW pgml_tune.model_versions IS
    'The immutable versions of all models: their vectors (dimensions, space_id), size in bytes, measured figures and artifact.';

CREATE OR REPLACE VIEW pgml_tune.rollout_history AS
SELECT h.serving_history_id AS rollout_history_id,
       h.kind,
       h.pointer,
       h.from_target,
       h.to_target,
       h.reason,
       h.changed_by,
       h.changed_at
FROM pgml_tune.serving_history AS h;
COMMENT ON VIEW pgml_tune.rollout_history IS
    'Every change of what a model name (kind version) or a call without a model (kind default) means.';

CREATE OR REPLACE VIEW pgml_tune.settings AS
SELECT s.name, s.value, s.default_value, s.valid, s.trades FROM pgml_tune._settings() AS s;
COMMENT ON VIEW pgml_tune.settings IS 'Every setting of configure() with the value in force, its default, what is valid and what it trades.';

CREATE OR REPLACE VIEW pgml_tune._stat AS
SELECT m.name AS model,
       v.version,
       sum(c.calls)::bigint AS calls,
       sum(c.texts)::bigint AS texts,
       sum(c.session_hits)::bigint AS session_hits,
       sum(c.table_hits)::bigint AS table_hits,
       sum(c.truncated)::bigint AS truncated,
       sum(c.tokens)::bigint AS tokens,
       sum(c.compute_ms) AS compute_ms
FROM (
    SELECT f.model_version_id, f.calls, f.texts, f.session_hits, f.table_hits, f.truncated, f.tokens, f.compute_ms
    FROM pgml_tune.call_count AS f
    UNION ALL
    SELECT p.model_version_id, p.calls, p.texts, p.session_hits, p.table_hits, p.truncated, p.tokens, p.compute_ms
    FROM pg_catalog.jsonb_to_recordset(pgml_tune._pending_counts()) AS p (
        model_version_id bigint, calls bigint, texts bigint, session_hits bigint, table_hits bigint,
        truncated bigint, tokens bigint, compute_ms double precision
    )
) AS c
JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
GROUP BY m.name, v.version;
COMMENT ON VIEW pgml_tune._stat IS 'Counters per version: flushed by all sessions, and pending in this one.';

CREATE OR REPLACE VIEW pgml_tune.stat_cache AS
SELECT s.model,
       s.version,
       s.texts,
       s.session_hits,
       s.table_hits,
       s.texts - s.session_hits - s.table_hits AS misses,
       round((s.session_hits + s.table_hits)::numeric / nullif(s.texts, 0), 4) AS hit_ratio
FROM pgml_tune._stat AS s;
COMMENT ON VIEW pgml_tune.stat_cache IS
    'Texts embedded per version and how many came from the session cache or the table cache; other sessions appear within about a second of their next call.';

CREATE OR REPLACE VIEW pgml_tune.stat_inference AS
SELECT s.model,
       s.version,
       s.calls,
       s.texts,
       s.texts - s.session_hits - s.table_hits AS computed,
       s.truncated,
       s.tokens,
       round(s.compute_ms::numeric, 1) AS compute_ms,
       round((s.compute_ms / nullif(s.texts - s.session_hits - s.table_hits, 0))::numeric, 3) AS mean_ms
FROM pgml_tune._stat AS s;
COMMENT ON VIEW pgml_tune.stat_inference IS
    'Calls per version, texts computed by the model, texts cut at its length, tokens, and milliseconds spent computing.';

-- What each level of grant_usage(), grant_operate() and grant_admin() adds to the level before it.
CREATE OR REPLACE VIEW pgml_tune._privilege AS
SELECT p.level, p.privilege, p.object
FROM (
    VALUES
    ('usage', 'USAGE', 'SCHEMA pgml_tune, @extschema@'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.embed(text, text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.embed(text[], text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._embed_passages(text[], text, integer, integer)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.embed_pinned(text, text, text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.semantic_similarity(text, text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.token_count(text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.last_call_id()'),
    ('usage', 'SELECT', 'TABLE pgml_tune.models, pgml_tune.model_versions, pgml_tune.rollout_history'),
    -- embed() reads the registry and the settings as its caller; neither holds a text or a secret.
    ('usage', 'SELECT', 'TABLE pgml_tune.model, pgml_tune.model_version, pgml_tune.serving'),
    ('usage', 'SELECT', 'TABLE pgml_tune.setting'),
    -- embed() uses the cache as its caller; a key can only be made with the secret, which no role can read.
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._read_cache(bytea[], integer[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._write_cache(bytea[], bigint[], bigint[], bytea[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._write_counts(jsonb)'),
    ('operate', 'SELECT', 'TABLE pgml_tune.stat_cache, pgml_tune.stat_inference, pgml_tune.settings'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._pending_counts()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._settings()'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.maintain()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rotate_cache()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._compact_counts()'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.register_model(text, text, text, text, jsonb)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.drop_model_version(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.configure(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.cache_purge(text, regrole)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.doctor()'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._register_version(text, text, text, text, text, text, bigint, jsonb)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._drop_version(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._write_setting(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._purge_cache(bigint[], oid)')
) AS p (level, privilege, object);
COMMENT ON VIEW pgml_tune._privilege IS 'Privileges of the levels usage, operate and admin.';

