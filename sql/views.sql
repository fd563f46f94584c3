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

CREATE OR REPLACE VIEW pgml_tune.traffic AS
SELECT s.model,
       coalesce(w.version, s.version) AS serving_version,
       round(100 - coalesce(s.share, 0) / 100.0, 2) AS serving_percent,
       r.to_version AS candidate_version,
       round(s.share / 100.0, 2) AS candidate_percent,
       s.version AS embed_version,
       r.rollout_id,
       r.state,
       r.phase,
       r.is_same_space,
       ARRAY(SELECT round(p / 100.0, 2) FROM unnest(r.plan) AS p) AS plan,
       r.expires_at,
       r.verdict ->> 'words' AS verdict,
       r.looked_at,
       r.created_by,
       r.created_at,
       s.changed_at
FROM pgml_tune.serving AS s
LEFT JOIN pgml_tune.model_version AS w ON w.model_version_id = s.wanted_version_id
LEFT JOIN pgml_tune.rollout AS r ON r.rollout_id = s.rollout_id;
COMMENT ON VIEW pgml_tune.traffic IS
    'Which version of each model answers, the share of a candidate in percent, and what plain embed() serves, which follows a promotion as soon as it has the locks.';

CREATE OR REPLACE VIEW pgml_tune.rollouts AS
SELECT r.rollout_id,
       r.model,
       r.from_version,
       r.to_version,
       r.state,
       round(r.share / 100.0, 2) AS candidate_percent,
       r.phase,
       ARRAY(SELECT round(p / 100.0, 2) FROM unnest(r.plan) AS p) AS plan,
       r.is_same_space,
       r.guardrails,
       r.expires_at,
       r.on_expiry,
       r.verdict ->> 'outcome' AS outcome,
       r.verdict ->> 'words' AS verdict,
       r.looked_at,
       r.created_by,
       r.created_at,
       r.phase_began_at,
       r.ended_at,
       r.reason
FROM pgml_tune.rollout AS r;
COMMENT ON VIEW pgml_tune.rollouts IS 'Every rollout there was: share, plan, guardrails, the last verdict and how it ended.';

CREATE OR REPLACE VIEW pgml_tune.rollout_history AS
SELECT h.serving_history_id AS rollout_history_id,
       h.kind,
       h.pointer,
       h.from_target,
       h.to_target,
       h.reason,
       h.changed_by,
       h.changed_at,
       h.rollout_id,
       h.undoes,
       h.part_of
FROM pgml_tune.serving_history AS h;
COMMENT ON VIEW pgml_tune.rollout_history IS
    'Every change of what a model name (kind version) or a call without a model (kind default) means, of shares, of where searches of a collection go, of what plain embed() follows (catalog), and vectors that were given up: who, when, why, from, to.';

CREATE OR REPLACE VIEW pgml_tune.settings AS
SELECT s.name, s.value, s.default_value, s.valid, s.trades FROM pgml_tune._settings() AS s;
COMMENT ON VIEW pgml_tune.settings IS 'Every setting of configure() with the value in force, its default, what is valid and what it trades.';

-- What is still in the spool comes with it, so that no report has to wait for maintain(), but without texts of users.
CREATE OR REPLACE VIEW pgml_tune._calls AS
SELECT l.* FROM pgml_tune.call_log AS l
UNION ALL
SELECT c.* FROM pgml_tune._spooled_calls() AS s (lines), LATERAL pgml_tune._parse_calls(s.lines) AS c;
COMMENT ON VIEW pgml_tune._calls IS 'Every logged call once, as the snapshot of the statement has it.';

CREATE OR REPLACE VIEW pgml_tune.inference_logs WITH (security_barrier) AS
SELECT c.logged_at,
       c.call_id,
       c.task,
       c.model,
       c.version,
       CASE
           WHEN c.sqlstate = '58000' AND c.latency_ms = 0 THEN 'lost'
           WHEN c.is_fallback THEN 'fallback'
           WHEN c.sqlstate IS NOT NULL THEN 'error'
           ELSE 'ok'
       END AS outcome,
       c.sqlstate,
       c.texts,
       c.input_bytes,
       c.tokens,
       c.unknown_tokens,
       c.output_count,
       c.cache,
       c.latency_ms,
       c.is_cold,
       c.is_fallback,
       c.collection,
       c.variant,
       c.rollout_id,
       c.phase,
       c.share,
       c.sample_rate,
       r.rolname AS role,
       c.answer,
       CASE WHEN pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, c.role_id) THEN c.input_text END AS input_text
FROM pgml_tune._calls AS c
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = c.role_id;
COMMENT ON VIEW pgml_tune.inference_logs IS
    'Logged calls: who asked which version for what, how it ended (ok, error, fallback, lost) and how long it took; input_text, if setting log_text is on, only of roles that you belong to.';

CREATE OR REPLACE VIEW pgml_tune.performance_logs AS
SELECT c.logged_at,
       c.call_id,
       c.task,
       c.model,
       c.version,
       c.texts,
       c.input_bytes,
       c.tokens,
       c.output_count,
       c.cache,
       c.is_cold,
       c.latency_ms,
       c.latency_ms / nullif(c.texts, 0) AS ms_per_text,
       c.tokens / nullif(c.latency_ms, 0) * 1000 AS tokens_per_second,
       c.memory_bytes,
       c.gpu_memory_bytes,
       c.sqlstate AS error,
       c.sample_rate
FROM pgml_tune._calls AS c;
COMMENT ON VIEW pgml_tune.performance_logs IS
    'Logged calls: length of input and output, time, and the memory that was in use by the backend and on its GPU.';

CREATE OR REPLACE VIEW pgml_tune.stat_log AS
SELECT i.dropped_bytes, i.refused_lines, i.ingested_at, i.stats_reset_at FROM pgml_tune.log_info AS i;
COMMENT ON VIEW pgml_tune.stat_log IS
    'What was lost of the log of calls, when maintain() last took calls in, and when stat_reset() was last called.';

CREATE OR REPLACE VIEW pgml_tune._stat AS
SELECT v.model_version_id,
       m.name AS model,
       v.version,
       sum(c.calls)::bigint AS calls,
       sum(c.errors)::bigint AS errors,
       sum(c.texts)::bigint AS texts,
       sum(c.session_hits)::bigint AS session_hits,
       sum(c.table_hits)::bigint AS table_hits,
       sum(c.texts - c.session_hits - c.table_hits)::bigint AS computed,
       sum(c.truncated)::bigint AS truncated,
       sum(c.tokens)::bigint AS tokens,
       sum(c.compute_ms) AS compute_ms,
       sum(c.total_ms) AS total_ms,
       sum(c.square_ms) AS square_ms,
       min(c.min_ms) FILTER (WHERE c.calls > 0) AS min_ms,
       max(c.max_ms) FILTER (WHERE c.calls > 0) AS max_ms,
       min(c.recorded_at) AS since
FROM (
    SELECT f.model_version_id, f.calls, f.errors, f.texts, f.session_hits, f.table_hits, f.truncated, f.tokens, f.compute_ms,
           f.total_ms, f.square_ms, f.min_ms, f.max_ms, f.recorded_at
    FROM pgml_tune.call_count AS f
    UNION ALL
    SELECT p.model_version_id, p.calls, p.errors, p.texts, p.session_hits, p.table_hits, p.truncated, p.tokens, p.compute_ms,
           p.total_ms, p.square_ms, p.min_ms, p.max_ms, now()
    FROM pg_catalog.jsonb_to_recordset(pgml_tune._pending_counts()) AS p (
        model_version_id bigint, calls bigint, errors bigint, texts bigint, session_hits bigint, table_hits bigint,
        truncated bigint, tokens bigint, compute_ms double precision,
        total_ms double precision, square_ms double precision, min_ms double precision, max_ms double precision
    )
) AS c
JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
GROUP BY v.model_version_id, m.name, v.version;
COMMENT ON VIEW pgml_tune._stat IS 'Counters per version: flushed by all sessions, and pending in this one.';

CREATE OR REPLACE VIEW pgml_tune._cache_entries AS
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) AS bytes FROM pgml_tune.cache_entry_0 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_1 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_2 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_3 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_4 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_5 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_6 AS e
UNION ALL
SELECT e.entry_key, e.model_version_id, e.role_id, e.cached_at, pg_column_size(e.*) FROM pgml_tune.cache_entry_7 AS e;
COMMENT ON VIEW pgml_tune._cache_entries IS 'The vectors in the table cache: of whom, since when, and how large.';

CREATE OR REPLACE VIEW pgml_tune.stat_cache AS
SELECT s.model,
       s.version,
       s.texts,
       s.session_hits,
       s.table_hits,
       s.computed AS misses,
       s.session_hits + s.table_hits AS hits,
       round((s.session_hits + s.table_hits)::numeric / nullif(s.texts, 0), 4) AS hit_ratio,
       (s.session_hits + s.table_hits) * s.compute_ms / nullif(s.computed, 0) / 1000 AS saved_seconds,
       coalesce(e.entries, 0) AS entries,
       coalesce(e.bytes, 0) AS bytes,
       s.since AS stats_since
FROM pgml_tune._stat AS s
LEFT JOIN (
    SELECT c.model_version_id, count(*) AS entries, sum(c.bytes)::bigint AS bytes
    FROM pgml_tune._cache_entries AS c GROUP BY c.model_version_id
) AS e ON e.model_version_id = s.model_version_id;
COMMENT ON VIEW pgml_tune.stat_cache IS
    'Texts embedded per version, how many came from the session cache or the table cache, and the time that this saved; entries and bytes read the whole table cache, so name the columns you want. Other sessions appear within about a second of their next call.';

-- Calls that are logged by sample stand for those that are not.
CREATE OR REPLACE VIEW pgml_tune._latency AS
SELECT w.model,
       w.version,
       min(w.latency_ms) FILTER (WHERE w.reached >= 0.5 * w.total) AS p50_ms,
       min(w.latency_ms) FILTER (WHERE w.reached >= 0.95 * w.total) AS p95_ms,
       min(w.latency_ms) FILTER (WHERE w.reached >= 0.99 * w.total) AS p99_ms
FROM (
    SELECT c.model,
           c.version,
           c.latency_ms,
           sum(1 / c.sample_rate) OVER (PARTITION BY c.model, c.version ORDER BY c.latency_ms) AS reached,
           sum(1 / c.sample_rate) OVER (PARTITION BY c.model, c.version) AS total
    FROM pgml_tune._calls AS c
    WHERE c.sqlstate IS NULL AND c.logged_at > now() - interval '1 hour'
) AS w
GROUP BY w.model, w.version;
COMMENT ON VIEW pgml_tune._latency IS 'Quantiles of the time of the calls of the last hour, by version.';

CREATE OR REPLACE VIEW pgml_tune.stat_inference AS
SELECT s.model,
       s.version,
       s.calls,
       s.errors,
       s.texts,
       s.computed,
       s.truncated,
       s.tokens,
       s.total_ms AS total_exec_time,
       s.min_ms AS min_exec_time,
       s.max_ms AS max_exec_time,
       s.total_ms / nullif(s.calls, 0) AS mean_exec_time,
       sqrt(greatest(s.square_ms / nullif(s.calls, 0) - (s.total_ms / nullif(s.calls, 0)) ^ 2, 0)) AS stddev_exec_time,
       s.compute_ms AS compute_time,
       l.p50_ms AS p50_exec_time,
       l.p95_ms AS p95_exec_time,
       l.p99_ms AS p99_exec_time,
       s.since AS stats_since
FROM pgml_tune._stat AS s
LEFT JOIN pgml_tune._latency AS l ON l.model = s.model AND l.version = s.version;
COMMENT ON VIEW pgml_tune.stat_inference IS
    'Calls per version in the manner of pg_stat_statements, times in ms: calls that did not fail, errors, texts computed by the model or cut at its length, tokens, time of whole calls and in the model; quantiles are of the calls logged in the last hour.';

-- A cancel is no error of a model, but while it lasted the caller has waited.
CREATE OR REPLACE VIEW pgml_tune._timed_calls AS
SELECT c.logged_at,
       c.call_id,
       c.model,
       c.version,
       c.rollout_id,
       c.phase,
       c.share,
       c.variant,
       c.unit,
       c.is_fallback OR coalesce(c.sqlstate <> '57014', false) AS has_failed,
       CASE WHEN t.is_telling AND c.sqlstate IS NULL THEN c.latency_ms END AS model_ms,
       CASE WHEN t.is_telling AND coalesce(c.sqlstate, '57014') = '57014' THEN c.latency_ms END AS waited_ms
FROM pgml_tune._calls AS c,
     LATERAL (SELECT c.cache = 'miss' AND NOT c.is_cold AND NOT c.is_fallback AND c.latency_ms > 0
                 AND c.task IN ('embed', 'search', 'classify', 'text_to_sql') AS is_telling) AS t;
COMMENT ON VIEW pgml_tune._timed_calls IS
    'Every logged call, with its time if that tells how fast the model is: one text, computed, by a model that had been loaded; waited_ms also of those that were cancelled.';

-- record_feedback() inserts here, as its caller.
CREATE OR REPLACE VIEW pgml_tune.feedback_rows WITH (security_barrier) AS
SELECT f.feedback_id,
       f.call_id,
       f.model,
       f.version,
       f.task,
       f.variant,
       f.answer,
       f.score,
       f.label,
       f.expected,
       f.input_text,
       f.given_by,
       f.created_at,
       f.search_path
FROM pgml_tune.feedback AS f
WHERE pgml_tune._may_judge(quote_ident(current_user)::regrole::oid, to_regrole(quote_ident(f.given_by)));
COMMENT ON VIEW pgml_tune.feedback_rows IS
    'The feedback that you have given (whoever may read reports sees all), with the model and version that answered: rows to train on.';

CREATE OR REPLACE VIEW pgml_tune._readable_sql_examples WITH (security_barrier) AS
SELECT e.* FROM pgml_tune.sql_example AS e WHERE pgml_tune._may_read(e.relations, e.created_by);
COMMENT ON VIEW pgml_tune._readable_sql_examples IS 'Verified examples whose tables and columns you may read.';

-- Many examples read the same tables: what is looked at one by one is asked once for all of these.
CREATE OR REPLACE VIEW pgml_tune._embedded_sql_examples WITH (security_barrier) AS
SELECT e.*
FROM pgml_tune.sql_example AS e
WHERE e.embedding IS NOT NULL AND (e.relations, e.created_by) IN (
    SELECT d.relations, d.created_by
    FROM (SELECT DISTINCT o.relations, o.created_by FROM pgml_tune.sql_example AS o OFFSET 0) AS d
    WHERE pgml_tune._may_read(d.relations, d.created_by)
);
COMMENT ON VIEW pgml_tune._embedded_sql_examples IS 'Verified examples that have a vector and whose tables and columns you may read.';

-- drop_sql_example() deletes here, as its caller.
CREATE OR REPLACE VIEW pgml_tune._own_sql_examples WITH (security_barrier) AS
SELECT e.*
FROM pgml_tune.sql_example AS e
WHERE pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, to_regrole(quote_ident(e.created_by)));
COMMENT ON VIEW pgml_tune._own_sql_examples IS 'Verified examples that you have added; an administrator has all.';

-- Who has added one may drop it, and an administrator, even where they may no longer read what it says.
CREATE OR REPLACE VIEW pgml_tune.sql_examples WITH (security_barrier) AS
SELECT e.sql_example_id,
       CASE WHEN r.is_readable THEN e.question END AS question,
       CASE WHEN r.is_readable THEN e.sql END AS sql,
       e.search_path,
       e.model,
       r.is_readable,
       e.embedding IS NOT NULL AS is_embedded,
       e.created_by,
       e.created_at
FROM pgml_tune.sql_example AS e
CROSS JOIN LATERAL (SELECT pgml_tune._may_read(e.relations, e.created_by) AS is_readable OFFSET 0) AS r
WHERE r.is_readable
   OR pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, to_regrole(quote_ident(e.created_by)));
COMMENT ON VIEW pgml_tune.sql_examples IS
    'Verified examples whose tables and columns you may read: text_to_sql() answers with their SQL where the same is asked by the same search_path. Of those that you may drop and not read (is_readable) there is no text.';

-- Of a call that was corrected twice the last word counts; question and SQL may have come one after the other.
CREATE OR REPLACE VIEW pgml_tune.sql_training_rows WITH (security_barrier) AS
SELECT t.question, t.sql, t.schema, t.origin, t.model, t.given_by, t.created_at
FROM (
    SELECT DISTINCT ON (e.normal_question, e.search_path, e.model)
           e.question, e.sql, e.search_path AS schema, 'example' AS origin, e.model, e.created_by AS given_by, e.created_at
    FROM pgml_tune._readable_sql_examples AS e
    ORDER BY e.normal_question, e.search_path, e.model, pgml_tune._example_rank(e.created_by), e.sql_example_id DESC
) AS t
UNION ALL
SELECT c.question, c.sql, c.schema, 'feedback', c.model, c.given_by, c.created_at
FROM (
    SELECT (array_agg(f.input_text ORDER BY f.feedback_id DESC) FILTER (WHERE f.input_text IS NOT NULL))[1] AS question,
           (array_agg(f.expected ORDER BY f.feedback_id DESC) FILTER (WHERE f.expected IS NOT NULL))[1] AS sql,
           (array_agg(f.search_path ORDER BY f.feedback_id DESC) FILTER (WHERE f.expected IS NOT NULL))[1] AS schema,
           max(f.model) AS model,
           f.given_by,
           max(f.created_at) AS created_at
    FROM pgml_tune.feedback_rows AS f
    WHERE f.task = 'text_to_sql'
    GROUP BY f.call_id, f.given_by
) AS c
WHERE c.question IS NOT NULL AND c.sql IS NOT NULL AND c.schema IS NOT NULL;
COMMENT ON VIEW pgml_tune.sql_training_rows IS
    'Rows for finetune_text_to_sql(): verified examples that you may read, and corrections of answers by record_feedback() that you may see; schema is the search_path by which the SQL was right.';

CREATE OR REPLACE VIEW pgml_tune.embedding_collections AS
SELECT t.name AS collection,
       t.source,
       coalesce(p.plain_content, t.source_column) AS source_column,
       m.name AS model,
       v.version,
       v.space_id,
       t.mode,
       t.storage,
       t.chunk_tokens,
       t.chunk_overlap,
       t.text_search,
       CASE WHEN p.source IS NULL THEN 'lost' WHEN t.is_ready THEN 'ready' ELSE 'filling' END AS state,
       CASE WHEN t.retired_xid IS NOT NULL THEN 'retired'
            WHEN r.collection_id = t.collection_id THEN 'serving'
            WHEN r.candidate_id = t.collection_id THEN 'candidate'
            WHEN EXISTS (SELECT FROM pgml_tune.vectors_left AS l WHERE l.collection_id = t.collection_id) THEN 'left'
            ELSE 'prepared' END AS role,
       CASE pgml_tune._has_hnsw(t.embeddings) WHEN true THEN 'hnsw' WHEN false THEN 'invalid' ELSE 'none' END AS index_state,
       pgml_tune._count_rows(t.collection_id, 'rows') AS rows,
       pgml_tune._count_rows(t.collection_id, 'embedded') AS embedded,
       pgml_tune._count_rows(t.collection_id, 'stale') AS stale,
       pgml_tune._count_rows(t.collection_id, 'missing') = 0 AS is_complete,
       pg_total_relation_size(t.embeddings) AS bytes,
       t.embeddings,
       t.view_name,
       t.query_function,
       t.validation,
       t.created_by,
       t.created_at
FROM pgml_tune.collection AS t
JOIN pgml_tune.model_version AS v ON v.model_version_id = t.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
LEFT JOIN pgml_tune.collection_route AS r ON r.name = t.name
LEFT JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p ON true;
COMMENT ON VIEW pgml_tune.embedding_collections IS
    'Text columns kept embedded, a row for each version they have vectors of, and whether these answer searches (role): version, state, index, size in bytes, and how many of the rows that you may read have vectors of their text; those counts read the whole table, so name the columns you want.';

CREATE OR REPLACE VIEW pgml_tune._queue_lags AS
SELECT c.collection_id, c.name, c.model_reference, s.relowner AS role_id, q.waiting, q.oldest_at, f.given_up
FROM pgml_tune.collection AS c
JOIN pg_catalog.pg_class AS s ON s.oid = c.source
CROSS JOIN LATERAL (
    SELECT count(*), min(o.enqueued_at) FROM pgml_tune.queue AS o WHERE o.collection_id = c.collection_id
) AS q (waiting, oldest_at)
CROSS JOIN LATERAL (
    SELECT count(*) FROM pgml_tune.queue_failure AS o WHERE o.collection_id = c.collection_id
) AS f (given_up)
WHERE c.mode = 'queue';
COMMENT ON VIEW pgml_tune._queue_lags IS
    'Collections in mode queue: how many rows wait for the worker, since when, and how many it has given up.';

CREATE OR REPLACE VIEW pgml_tune.queue_failures WITH (security_barrier) AS
SELECT c.name AS collection,
       c.source,
       c.model_reference AS model,
       -- An owner may have queued what is no key.
       CASE WHEN cardinality(f.key) = cardinality(p.key_names) THEN jsonb_object(p.key_names, f.key) ELSE to_jsonb(f.key) END AS key,
       f.sqlstate,
       f.message,
       f.tries,
       f.enqueued_at,
       f.failed_at
FROM pgml_tune.queue_failure AS f
JOIN pgml_tune.collection AS c ON c.collection_id = f.collection_id
JOIN pg_catalog.pg_class AS s ON s.oid = c.source
CROSS JOIN LATERAL pgml_tune._collection_parts(c.collection_id) AS p
WHERE pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, s.relowner);
COMMENT ON VIEW pgml_tune.queue_failures IS
    'Rows of your tables in mode queue that could not be embedded five times (an administrator sees all): their key, and what went wrong last; requeue_failed() tries them again.';

CREATE OR REPLACE VIEW pgml_tune.tracked_columns AS
SELECT c.source,
       c.target_column,
       m.name AS model,
       v.version,
       v.space_id,
       c.filled_by,
       c.source_column,
       c.shadow_of,
       c.is_filled,
       c.left_at,
       c.created_by,
       c.created_at
FROM pgml_tune.tracked_column AS c
JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id
WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS t WHERE t.oid = c.source);
COMMENT ON VIEW pgml_tune.tracked_columns IS
    'Vector columns of users'' own tables that embed_table() filled, track_column() recorded or prepare_rollout() made beside one of these (shadow_of), and the version their vectors are of.';

CREATE OR REPLACE VIEW pgml_tune.jobs WITH (security_barrier) AS
SELECT j.job_id,
       j.kind,
       coalesce(j.parameters #>> '{models,model,reference}', j.parameters #>> '{models,teacher,reference}', j.parameters #>> '{target,model}')
           AS model,
       j.state,
       p.phase,
       j.created_by,
       j.created_at,
       j.started_at,
       j.ended_at,
       coalesce(j.ended_at, clock_timestamp()) - j.started_at AS run_time,
       j.cancel_requested_at,
       j.result,
       j.sqlstate,
       j.message,
       j.detail,
       j.hint,
       p.worker,
       p.memory_bytes,
       j.parameters
FROM pgml_tune.job AS j
LEFT JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
WHERE pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, j.role_id);
COMMENT ON VIEW pgml_tune.jobs IS
    'Your jobs (an administrator sees all): what was asked, where it stands, what came out, or why it failed.';

CREATE OR REPLACE VIEW pgml_tune.stat_jobs AS
SELECT j.kind, j.state, count(*) AS jobs, min(j.created_at) AS oldest_at, max(j.created_at) AS newest_at
FROM pgml_tune.job AS j
GROUP BY j.kind, j.state;
COMMENT ON VIEW pgml_tune.stat_jobs IS
    'How many jobs of all roles there are of each kind and state, and when the first and the last of them were asked for.';

CREATE OR REPLACE VIEW pgml_tune.loaded_models AS
SELECT l.place, v.versions, l.bytes, l.is_pinned, l.is_quarantined, l.calls, l.last_used_at, l.artifact_sha256,
       l.engine, l.provider, l.inference_precision
FROM pgml_tune._loaded_models() AS l
LEFT JOIN LATERAL (
    SELECT array_agg(r.model || '@' || r.version ORDER BY r.model, r.version) AS versions
    FROM pgml_tune.model_versions AS r
    WHERE r.artifact_sha256 = l.artifact_sha256
) AS v ON true;
COMMENT ON VIEW pgml_tune.loaded_models IS
    'Models in memory: those of the worker, with what it has stopped running after crashes, and those of this session; versions are those of this database.';

CREATE OR REPLACE VIEW pgml_tune.engine_choices AS
SELECT m.name AS model,
       v.version,
       c.engine,
       c.provider,
       c.inference_precision,
       c.threads,
       c.lanes,
       c.batch_size,
       c.texts_per_second,
       c.gain_percent,
       c.latency_ms,
       c.agreement,
       c.machine,
       c.job_id,
       c.created_by,
       c.measured_at
FROM pgml_tune.engine_choice AS c
JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
JOIN pgml_tune.model AS m ON m.model_id = v.model_id;
COMMENT ON VIEW pgml_tune.engine_choices IS
    'Versions that the worker runs in another way than by the engine they were made for, as tune_engine() has found it best, and on which machine.';

CREATE OR REPLACE VIEW pgml_tune.stat_progress WITH (security_barrier) AS
SELECT j.job_id,
       d.oid AS datid,
       d.datname,
       j.kind,
       j.model,
       p.phase,
       p.steps AS steps_total,
       p.step AS steps_done,
       p.loss,
       p.metric,
       p.metric_value,
       CASE WHEN p.step BETWEEN 1 AND p.steps THEN
           extract(epoch FROM p.updated_at - p.phase_started_at)::double precision * (p.steps - p.step) / p.step
       END AS seconds_left,
       p.memory_bytes,
       j.started_at,
       p.updated_at
FROM pgml_tune.jobs AS j
JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
WHERE j.state = 'running'
UNION ALL
SELECT NULL,
       d.oid,
       d.datname,
       'prepare_rollout',
       p.model || '@' || p.version,
       p.phase || ' ' || p.object,
       p.steps,
       p.step,
       NULL,
       NULL,
       NULL,
       CASE WHEN p.step BETWEEN 1 AND p.steps THEN
           extract(epoch FROM p.updated_at - p.phase_began_at)::double precision * (p.steps - p.step) / p.step
       END,
       NULL,
       p.began_at,
       p.updated_at
FROM pgml_tune._preparations() AS p
JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
WHERE pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, p.role_id)
UNION ALL
SELECT NULL,
       d.oid,
       d.datname,
       'queue',
       q.model_reference,
       'embedding collection "' || q.name || '"',
       q.waiting,
       NULL,
       NULL,
       'lag_seconds',
       extract(epoch FROM clock_timestamp() - q.oldest_at)::double precision,
       NULL,
       NULL,
       q.oldest_at,
       clock_timestamp()
FROM pgml_tune._queue_lags AS q
JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
WHERE q.waiting > 0 AND pgml_tune._may_see_job(quote_ident(current_user)::regrole::oid, q.role_id);
COMMENT ON VIEW pgml_tune.stat_progress IS
    'One row for each of your jobs and preparations of rollouts that run now, and each of your collections of which rows wait for the worker (an administrator sees all): phase, steps, loss, metric, seconds left in the phase.';

CREATE OR REPLACE VIEW pgml_tune._job_lines WITH (security_barrier) AS
SELECT l.job_line_id, l.job_id, l.logged_at, l.line
FROM pgml_tune.job_line AS l
JOIN pgml_tune.jobs AS j ON j.job_id = l.job_id;
COMMENT ON VIEW pgml_tune._job_lines IS 'The log lines of the jobs that the caller may see.';

-- Whoever may become the role that took the rows could read them as that role did.
CREATE OR REPLACE VIEW pgml_tune._own_rows WITH (security_barrier) AS
SELECT r.job_id, r.part, r.chunk_no, r.row_count, r.lines
FROM pgml_tune.job_rows AS r WHERE pg_has_role(current_user, r.role_id, 'USAGE');
COMMENT ON VIEW pgml_tune._own_rows IS 'The rows that the caller has taken for jobs that have not ended.';

CREATE OR REPLACE VIEW pgml_tune._own_requests WITH (security_barrier) AS
SELECT j.job_id, j.request_sha256
FROM pgml_tune.job AS j
WHERE j.role_id = quote_ident(current_user)::regrole::oid AND j.state IN ('queued', 'running');
COMMENT ON VIEW pgml_tune._own_requests IS 'What the caller has asked for and has not got yet.';

CREATE OR REPLACE VIEW pgml_tune.evaluations AS
SELECT e.evaluation_id,
       e.model,
       e.version,
       e.metric,
       e.metric_value,
       e.dataset_query,
       e.dataset_rows,
       e.dataset_sha256,
       e.artifact_sha256,
       e.job_id,
       e.created_by,
       e.created_at
FROM pgml_tune.evaluation AS e;
COMMENT ON VIEW pgml_tune.evaluations IS
    'Every figure that jobs have measured of versions: scores times 100, latency_ms, texts_per_second, bytes; and on which rows.';

-- What each level of grant_usage(), grant_operate() and grant_admin() adds to the level before it; ask adds to usage alone.
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
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.classify(text, text, integer)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.text_to_sql(text, text, regclass[])'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.text_to_sql_candidates(text, text, regclass[], integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._readable_schema(regclass[], text[], boolean)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._tables_along(name[], regclass[], text[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._schema_along(name[], regclass[], text[], boolean)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._hold_relations(regclass[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._text_columns(name[], regclass[], text[], real)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._readable_values(text[], integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._values_along(name[], regclass[], text[], integer, real)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._values_named(name[], regclass[], text[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._values_beside(name[], regclass, text, text)'),
    -- What a model has written is judged as its caller, who could run it by himself.
    ('usage', 'USAGE, CREATE', 'SCHEMA pgml_tune_scratch'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._check_sql(text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._analyse_sql(text, boolean, integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._guard_sql()'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._plan_sql(text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._sql_functions(oid[], oid[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._sql_relations(oid[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._planned_functions(oid, boolean)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._type_code()'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._type_users(oid[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._hides_one(text[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._hides_type(oid[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._has_foreign_child(oid)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._hold_relations(oid[])'),
    ('ask', 'EXECUTE', 'FUNCTION @extschema@.ask(text, text, regclass[], integer)'),
    ('ask', 'EXECUTE', 'FUNCTION pgml_tune._ask_hindrance()'),
    ('ask', 'EXECUTE', 'FUNCTION pgml_tune._run_sql(text, integer, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._try_sql(text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._run_sql(text, integer, bigint)'),
    ('usage', 'SELECT', 'TABLE pgml_tune.models, pgml_tune.model_versions, pgml_tune.rollout_history, pgml_tune.traffic'),
    ('operate', 'SELECT', 'TABLE pgml_tune.rollouts, pgml_tune.rollout'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.record_feedback(bigint, double precision, text, text, text)'),
    ('usage', 'SELECT', 'TABLE pgml_tune.feedback_rows'),
    ('usage', 'INSERT (call_id, score, label, expected, input_text, search_path)', 'TABLE pgml_tune.feedback_rows'),
    ('usage', 'SELECT', 'TABLE pgml_tune.sql_examples, pgml_tune._readable_sql_examples, pgml_tune._embedded_sql_examples'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._loaded_models()'),
    ('operate', 'SELECT', 'TABLE pgml_tune.loaded_models'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._may_read(jsonb, text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._is_own(text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._example_rank(text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._may_see_job(oid, oid)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._path_text(text[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._reads_only(jsonb, oid[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._find_sql_examples'),
    -- What is added answers others, too, as far as they may read its tables: who trains models may do that.
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.add_sql_example(text, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.drop_sql_example(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._keep_sql_example(text, bytea)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._embed_sql_examples()'),
    ('operate', 'SELECT (sql_example_id)', 'TABLE pgml_tune._own_sql_examples'),
    ('operate', 'DELETE', 'TABLE pgml_tune._own_sql_examples'),
    ('operate', 'SELECT', 'TABLE pgml_tune.sql_training_rows'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._may_judge(oid, oid)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.ab_report(text)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.quality_report(text, interval)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.ab_selftest(text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.drift_report(text, interval, interval)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._served_calls(text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drift_calls(text, double precision, double precision, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rollout_units(bigint, double precision)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rollout_calls(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.rollout_model(text, text, integer, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.rollback_model(text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.rollout_explain(bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.rollout_tick()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rollout_facts(text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._begin_rollout(jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._change_rollout(bigint, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._set_verdict(bigint, jsonb, pgml_tune.rollout_state)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._end_rollout(bigint, pgml_tune.rollout_state, text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._step_back(bigint, text, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._bring_along(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._is_way_back(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._open_moves(text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rollback_window()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._align_model(bigint, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._unaligned_models()'),
    ('operate', 'SELECT', 'TABLE pgml_tune.vectors_missed'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._retire_vectors()'),
    ('operate', 'EXECUTE', 'PROCEDURE pgml_tune._retire()'),
    ('operate', 'EXECUTE', 'PROCEDURE pgml_tune._tick()'),
    ('usage', 'SELECT', 'TABLE pgml_tune.tracked_columns, pgml_tune.evaluations'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.model_card(text, text)'),
    -- embed() reads the registry and the settings as its caller; neither holds a text or a secret.
    ('usage', 'SELECT', 'TABLE pgml_tune.model, pgml_tune.model_version, pgml_tune.serving'),
    ('usage', 'SELECT', 'TABLE pgml_tune.setting'),
    -- embed() uses the cache as its caller; a key can only be made with the secret, which no role can read.
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._read_cache(bytea[], integer[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._write_cache(bytea[], bigint[], bigint[], bytea[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._write_counts(jsonb)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._write_hits(bytea[], bigint[])'),
    -- Searching runs as its caller: it asks which collection this is, and what the tables and columns are called today.
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.semantic_search(text, text, integer, jsonb)'),
    ('usage', 'EXECUTE', 'FUNCTION @extschema@.hybrid_search(text, text, integer, jsonb, double precision)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._embed_question(text, text, text, jsonb)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._end_search(integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._begin_search(text, text, integer, jsonb, boolean)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._open_collection(text, integer, text, boolean)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._unit(text, text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._filter_condition(regclass, jsonb)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._leaves_few(regclass, text, jsonb)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._text_query(regclass, regconfig, text)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._object_expression(oid, smallint[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._search_by_meaning'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._search_by_words'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._has_hnsw(regclass)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._count_rows(bigint, text)'),
    ('usage', 'SELECT', 'TABLE pgml_tune.collection, pgml_tune.collection_route, pgml_tune.embedding_collections'),
    -- The triggers of a table run as its owner, who may have no more than this level.
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._vector_schema()'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._base_type(oid, integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._equality(oid)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._collection_parts(bigint)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._hold_tables(regclass, regclass)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._sync_statements(bigint, text, oid, bigint)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._miss_vectors(bigint, text)'),
    ('usage', 'INSERT (collection_id, message)', 'TABLE pgml_tune.vectors_missed'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._is_plainly_partitioned(oid)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._keep_part(bigint, oid, bigint, bigint, integer)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._store_vectors'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._keep_orphans(bigint)'),
    -- The same for collections in mode queue; a trigger asks whether whoever queues a row owns its table.
    ('usage', 'INSERT (collection_id, key)', 'TABLE pgml_tune.queue'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._enqueue_statement(bigint, text, oid)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._enqueue_missing(bigint)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._key_parts(regclass)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._read_queued(bigint, text[])'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._store_queued'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._probe_vectors(bigint, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._with_vector(bigint, oid, anyelement)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._leave_shadow(bigint)'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._question_vector(text, text)'),
    -- A trigger of the table asks whether whoever adds or removes a row owns the source.
    ('operate', 'INSERT (name, source, source_column, model_version_id, mode, index_method, storage, chunk_tokens,'
        ' chunk_overlap, batch_size, text_search, model_reference, dimensions, is_twin)', 'TABLE pgml_tune.collection'),
    ('operate', 'UPDATE (index_method, batch_size, validation, mode)', 'TABLE pgml_tune.collection'),
    ('operate', 'INSERT (collection_id)', 'TABLE pgml_tune.collection_drop'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._change_collection(bigint, text, integer, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._may_embed(oid)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.auto_embed(regclass, name, text, text, text, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.drop_auto_embed(text)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.requeue_failed(text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._requeue(bigint)'),  -- that somebody's rows are tried again harms nobody
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._refill_collection(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._fill_queue(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._count_waiting(bigint)'),
    ('operate', 'SELECT', 'TABLE pgml_tune.queue_failures'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._prepare_collection(regclass, name, text, text, text, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._source_facts(regclass, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._object_base(oid, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._source_key(oid, smallint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._find_text_search(text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._collection_row(bigint, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._is_pristine(regclass)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._collection_ids()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_collection(jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drop_collection(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._query_function(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._query_comment(text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drop_parts(bigint, oid, oid, oid, boolean)'),
    ('operate', 'EXECUTE', 'PROCEDURE pgml_tune._fill(bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE pgml_tune._mend()'),
    -- These only bring the catalog to what the row of a collection says.
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._build_collection(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._fill_collection(bigint, text, oid, bigint, bigint, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._finish_collection(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._lost_collections()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._mend_collection(bigint)'),
    ('operate', 'SELECT', 'TABLE pgml_tune.stat_cache, pgml_tune.stat_inference, pgml_tune.settings'),
    ('operate', 'SELECT', 'TABLE pgml_tune.inference_logs, pgml_tune.performance_logs, pgml_tune.stat_log'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._parse_calls(text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._spooled_calls()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._ingest_logs()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rotate_logs()'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.embed_table(regclass, name, name, text, integer, boolean)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.track_column(regclass, name, text)'),
    -- Both run as their caller in all they do; a trigger asks for the right to update the recorded column.
    ('operate', 'SELECT', 'TABLE pgml_tune.tracked_column'),
    ('operate', 'INSERT (source, target_column, model_version_id, filled_by, is_mixed, source_column, shadow_of, is_filled)',
        'TABLE pgml_tune.tracked_column'),
    ('operate', 'UPDATE (model_version_id, filled_by, is_mixed, source_column, is_filled, left_at, created_by, created_at)',
        'TABLE pgml_tune.tracked_column'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._leaves(regclass)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._target_facts(oid, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._fill_statement(text, oid, oid, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._count_unfilled(oid, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._has_vectors(oid, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_vector_column(oid, text, text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._read_part(oid, oid, text, text, bigint, bigint, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._store_part(oid, oid, text, text, bigint, tid[], text[], text[])'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._clear_part(oid, oid, text, bigint, bigint, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._record_column(oid, text, bigint, text, boolean, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._forget_columns()'),
    -- Preparing a rollout only reads of others' tables what the catalog shows anybody; it makes things as the owner of a table.
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.prepare_rollout(text, text, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._missing_steps(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._untracked_uses(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._column_users(oid, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._preparation_facts(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._collections_to_prepare(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._columns_to_prepare(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._routes(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_twin(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._follow_twin(bigint, boolean)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drop_twin(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drop_shadow(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._drop_statements(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._index_twin(bigint, boolean)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._nearest_keys(bigint, boolean, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._golden_rows(text, integer)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._record_validation(bigint, jsonb)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_shadow(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._finish_shadow(bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._shadow_indexes(oid, text, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._free_column(oid, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._free_name(text, text[])'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._mend_shadows(oid)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._retire_shadows()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._write_preparation'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._end_preparation()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._preparations()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._pending_counts()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._settings()'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.maintain()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rotate_cache()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._compact_counts()'),
    -- Who trains reads his rows as himself; what he adds is checked by triggers, which know him by his role.
    ('operate', 'SELECT', 'TABLE pgml_tune.jobs, pgml_tune.stat_progress, pgml_tune._job_lines, pgml_tune._own_rows'),
    ('operate', 'SELECT', 'TABLE pgml_tune._own_requests'),
    ('operate', 'SELECT', 'TABLE pgml_tune.stat_jobs'),  -- numbers only, so that one role can watch all
    ('operate', 'SELECT', 'TABLE pgml_tune._queue_lags'),  -- numbers, and names that embedding_collections shows, too
    ('operate', 'SELECT', 'TABLE pgml_tune.worker'),
    ('operate', 'INSERT (kind, parameters, request_sha256)', 'TABLE pgml_tune.job'),
    ('operate', 'INSERT (job_id)', 'TABLE pgml_tune.job_cancel'),
    ('operate', 'INSERT (job_id, part, chunk_no, row_count, lines)', 'TABLE pgml_tune.job_rows'),
    ('operate', 'INSERT (job_id, part, query, row_count, rows_sha256, column_names, shape)', 'TABLE pgml_tune.job_part'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_job(text, jsonb, text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._next_rows(refcursor)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._take_rows(bigint, text, text, text[], bigint, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._rows_query(text, text[])'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._foreign_types(oid[])'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._add_rows(bigint, text, integer, text[])'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._schemas_of_path(text)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._worker_is_alive()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._server_address()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._job_status(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._expire_jobs()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._file_users()'),
    ('operate', 'EXECUTE', 'FUNCTION pgml_tune._clear_files()'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.cancel_job(bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.job_log(bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.finetune_sbert(text, text, text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.finetune_classifier(text, text, text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.finetune_text_to_sql(text, text, text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.distill_model(text, text, text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.quantize_model(text, text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.export_onnx(text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.export_tensorrt(text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.evaluate_model(text, text, text[], jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'PROCEDURE @extschema@.tune_engine(text, text, jsonb, boolean, bigint)'),
    ('operate', 'EXECUTE', 'FUNCTION @extschema@.reset_engine(text, text)'),
    ('operate', 'SELECT', 'TABLE pgml_tune.engine_choices, pgml_tune.engine_choice'),
    ('operate', 'DELETE', 'TABLE pgml_tune.engine_choice'),
    ('admin', 'EXECUTE', 'PROCEDURE @extschema@.import_model(text, text, text, text, jsonb, boolean, bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.register_model(text, text, text, text, jsonb)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.drop_model_version(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.configure(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.cache_purge(text, regrole, interval, bigint, bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.stat_reset()'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._reset_counts()'),
    ('admin', 'EXECUTE', 'FUNCTION @extschema@.doctor()'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._collection_faults()'),
    ('usage', 'EXECUTE', 'FUNCTION pgml_tune._mode_argument(text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._has_steady_worker()'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._rollout_faults()'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._mending_statements(bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._graph_statement(bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._function_statements(bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._feed_function(bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._query_statements(bigint, text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._leftover_fix(bigint)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._role_name(oid)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._register_version(text, text, text, text, text, text, bigint, jsonb)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._drop_version(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._write_setting(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._write_superuser_setting(text, text)'),
    ('admin', 'EXECUTE', 'FUNCTION pgml_tune._purge_cache(bigint[], oid, interval, bigint, bigint)')
) AS p (level, privilege, object);
COMMENT ON VIEW pgml_tune._privilege IS 'Privileges of the levels usage, operate and admin, and of grant_ask().';

