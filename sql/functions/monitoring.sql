-- What the logs and the feedback say: A/B reports, quality, drift. Whoever reads reports sees figures of calls, never their texts.

CREATE OR REPLACE FUNCTION pgml_tune._rollout_units(rollout_id bigint, promised_ms double precision)
RETURNS TABLE (
    phase integer, share integer, variant text, unit bigint, is_newcomer boolean, has_entered boolean, is_in_both boolean,
    has_failed boolean, has_first_failed boolean, was_slow boolean, was_first_slow boolean, ln_ms double precision,
    score double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER  -- the log belongs to nobody else
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH seen AS (
        SELECT c.phase, min(c.share) AS share, c.variant, c.unit, bool_or(c.has_failed) AS has_failed,
               coalesce(max(c.waited_ms) > promised_ms, false) AS was_slow, avg(ln(c.model_ms)) AS ln_ms
        FROM pgml_tune._timed_calls AS c
        WHERE c.rollout_id = _rollout_units.rollout_id AND c.unit IS NOT NULL
        GROUP BY c.phase, c.variant, c.unit
    ), scored AS (
        SELECT f.phase, f.variant, f.unit, avg(f.score) AS score
        FROM pgml_tune.feedback AS f
        WHERE f.rollout_id = _rollout_units.rollout_id AND f.score IS NOT NULL
        GROUP BY f.phase, f.variant, f.unit
    )
    SELECT s.phase, s.share, s.variant, s.unit,
           row_number() OVER of_unit = 1,
           row_number() OVER of_unit_in_variant = 1,
           count(*) OVER (PARTITION BY s.unit, s.phase) > 1,
           s.has_failed,
           s.has_failed AND count(*) FILTER (WHERE s.has_failed) OVER of_unit = 1,
           s.was_slow,
           s.was_slow AND count(*) FILTER (WHERE s.was_slow) OVER of_unit = 1,
           s.ln_ms,
           r.score
    FROM seen AS s
    LEFT JOIN scored AS r ON r.phase = s.phase AND r.variant = s.variant AND r.unit = s.unit
    WINDOW of_unit AS (PARTITION BY s.unit ORDER BY s.phase, s.variant ROWS UNBOUNDED PRECEDING),
           of_unit_in_variant AS (PARTITION BY s.unit, s.variant ORDER BY s.phase);
END
$$;
COMMENT ON FUNCTION pgml_tune._rollout_units(bigint, double precision) IS
    'What each unit met in each phase of a rollout, and whether it met that, or was seen, for the first time.';

CREATE OR REPLACE FUNCTION pgml_tune._rollout_calls(rollout_id bigint)
RETURNS TABLE (
    phase integer, variant text, requests bigint, failed bigint, measured bigint, mean_ms double precision,
    p50_ms double precision, p95_ms double precision, p99_ms double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT c.phase, c.variant, count(*), count(*) FILTER (WHERE c.has_failed), count(c.model_ms), avg(c.model_ms),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY c.model_ms),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY c.model_ms),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY c.model_ms)
    FROM pgml_tune._timed_calls AS c
    WHERE c.rollout_id = _rollout_calls.rollout_id AND c.unit IS NOT NULL
    GROUP BY c.phase, c.variant;
END
$$;
COMMENT ON FUNCTION pgml_tune._rollout_calls(bigint) IS 'Calls of each phase and variant of a rollout: how many, how many failed, how long they took.';

CREATE OR REPLACE FUNCTION @extschema@.ab_report(name text)
RETURNS TABLE (
    rollout_id bigint, phase integer, share_percent double precision, metric text,
    serving_n double precision, serving_value double precision, candidate_n double precision,
    candidate_value double precision, effect double precision, interval_low double precision,
    interval_high double precision, margin double precision, e_value double precision, alpha double precision,
    outcome text, words text, days_to_decision double precision
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import monitoring
return monitoring.ab_report(name)
$python$;
COMMENT ON FUNCTION @extschema@.ab_report(text) IS
    'The rollout of a model that runs and the last one that ended, metric by metric: both versions, the effect with an interval that holds however often one looks, and what follows; the lines without a phase decide, those of each phase come after them.';

-- Whoever may read the reports sees all feedback.
CREATE OR REPLACE FUNCTION pgml_tune._may_judge(viewer_id oid, role_id oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_has_role(viewer_id, role_id, 'USAGE'), false)
        OR has_function_privilege(viewer_id, '@extschema@.ab_report(text)', 'EXECUTE')
$$;
COMMENT ON FUNCTION pgml_tune._may_judge(oid, oid) IS 'Whether calls or feedback of a role are the viewer''s own, or he may read reports.';

CREATE OR REPLACE FUNCTION pgml_tune._check_feedback()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER  -- whoever gives feedback reads no log
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_call record;
BEGIN
    SELECT c.* INTO v_call FROM pgml_tune.call_log AS c WHERE c.call_id = NEW.call_id LIMIT 1;
    IF NOT FOUND THEN
        -- It may not have been ingested yet; of the lines in the spool only its own is taken apart.
        SELECT c.* INTO v_call
        FROM pgml_tune._spooled_calls() AS s (lines), string_to_table(s.lines, E'\n') AS l (line),
             pgml_tune._parse_calls(l.line) AS c
        WHERE split_part(l.line, E'\t', 2) = NEW.call_id::text
        LIMIT 1;
    END IF;
    IF NOT FOUND THEN
        -- Between the two it may have been ingested.
        SELECT c.* INTO v_call FROM pgml_tune.call_log AS c WHERE c.call_id = NEW.call_id LIMIT 1;
    END IF;
    IF NOT FOUND THEN
        RETURN NEW;  -- _ingest_logs() joins them, should the call come later
    END IF;
    IF NOT pgml_tune._may_judge(to_regrole(quote_ident(NEW.given_by)), v_call.role_id) THEN
        RAISE EXCEPTION 'call % is of another role', NEW.call_id USING ERRCODE = '42501';
    END IF;
    NEW.model := v_call.model;
    NEW.version := v_call.version;
    NEW.task := v_call.task;
    NEW.answer := v_call.answer;
    NEW.rollout_id := v_call.rollout_id;
    NEW.phase := v_call.phase;
    NEW.variant := v_call.variant;
    NEW.unit := v_call.unit;
    IF NEW.input_text IS NULL AND NEW.expected IS NOT NULL
        AND pgml_tune._may_see_job(to_regrole(quote_ident(NEW.given_by)), v_call.role_id) THEN
        NEW.input_text := v_call.input_text;  -- NULL unless setting log_text is on, and not from the spool
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_feedback() IS 'Lets a role judge its own calls, and copies what is known of the call.';
-- Rows that a restore brings back come with their time, and as they were.
CREATE OR REPLACE TRIGGER feedback_call BEFORE INSERT ON pgml_tune.feedback
    FOR EACH ROW WHEN (NEW.created_at = now()) EXECUTE FUNCTION pgml_tune._check_feedback();

CREATE OR REPLACE FUNCTION @extschema@.record_feedback(
    call_id bigint, score double precision DEFAULT NULL, label text DEFAULT NULL, expected text DEFAULT NULL,
    input text DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE  -- not STRICT: most are NULL; no SET clause: the path of the caller is kept with it
AS $python$
from pgml_tune.backend import monitoring
return monitoring.record_feedback(call_id, score, label, expected, input)
$python$;
COMMENT ON FUNCTION @extschema@.record_feedback(bigint, double precision, text, text, text) IS
    'Records what a user thought of an answer, by last_call_id(): a score from 0 to 1, the right label, or the right text; with input it can become a training row. Returns its number.';

CREATE OR REPLACE FUNCTION @extschema@.quality_report(name text, since interval DEFAULT '1 day')
RETURNS TABLE (
    version text, metric text, label text, value double precision, interval_low double precision,
    interval_high double precision, n bigint
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import monitoring
return monitoring.quality_report(name, since)
$python$;
COMMENT ON FUNCTION @extschema@.quality_report(text, interval) IS
    'What feedback since then says of each version of a model: mean score, accuracy, and precision, recall and F1, of each label and their mean.';

CREATE OR REPLACE FUNCTION pgml_tune._served_calls(model text, most integer)
RETURNS TABLE (logged_at timestamptz, unit bigint, model_ms double precision, has_failed boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT c.logged_at, coalesce(c.unit, c.call_id), c.model_ms, c.has_failed
    FROM pgml_tune._timed_calls AS c
    WHERE c.model = _served_calls.model AND c.variant IS DISTINCT FROM 'candidate'
    ORDER BY c.logged_at DESC
    LIMIT most;
END
$$;
COMMENT ON FUNCTION pgml_tune._served_calls(text, integer) IS
    'The newest calls that the serving version of a model answered; a call that belongs to no rollout is a unit of its own.';

CREATE OR REPLACE FUNCTION @extschema@.ab_selftest(name text, rounds integer DEFAULT 1000)
RETURNS TABLE (
    metric text, rounds integer, looks integer, units integer, false_alarms integer, rate double precision,
    alpha double precision, outcome text, words text
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import monitoring
return monitoring.ab_selftest(name, rounds)
$python$;
COMMENT ON FUNCTION @extschema@.ab_selftest(text, integer) IS
    'How often each test of a rollout would have been alarmed by nothing: the logged calls of the serving version, split at random again and again, with 50 looks each.';

CREATE OR REPLACE FUNCTION pgml_tune._drift_calls(
    model text, since_seconds double precision, reference_seconds double precision, most integer
)
RETURNS TABLE (
    version text, space_id text, is_reference boolean, input_bytes double precision, tokens double precision,
    unknown_share double precision, sketch text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_since timestamptz := now() - make_interval(secs => since_seconds);
BEGIN
    RETURN QUERY
    SELECT c.version, c.space_id, c.is_reference, c.input_bytes, c.tokens, c.unknown_share, c.sketch
    FROM (
        SELECT l.version, coalesce(v.space_id, l.version) AS space_id, l.logged_at < v_since AS is_reference,
               l.input_bytes::float8 / greatest(l.texts, 1) AS input_bytes,
               l.tokens::float8 / greatest(l.texts, 1) AS tokens,
               l.unknown_tokens::float8 / nullif(l.tokens, 0) AS unknown_share,
               l.sketch,
               row_number() OVER (
                   PARTITION BY coalesce(v.space_id, l.version), l.logged_at < v_since ORDER BY hashint8(l.call_id)
               ) AS place
        FROM pgml_tune._calls AS l
        LEFT JOIN pgml_tune.model AS m ON m.name = l.model
        LEFT JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id AND v.version = l.version
        WHERE l.model = _drift_calls.model AND l.sqlstate IS NULL AND l.task <> 'passages'
          AND l.logged_at >= v_since - make_interval(secs => reference_seconds)
    ) AS c
    WHERE c.place <= most;
END
$$;
COMMENT ON FUNCTION pgml_tune._drift_calls(text, double precision, double precision, integer) IS
    'A sample of what a model was asked lately, and in the time before that (is_reference), without the texts.';

CREATE OR REPLACE FUNCTION @extschema@.drift_report(
    name text, since interval DEFAULT '1 day', reference interval DEFAULT '7 days'
)
RETURNS TABLE (
    versions text, metric text, reference_n integer, current_n integer, reference_value double precision,
    current_value double precision, effect double precision, threshold double precision, p_value double precision,
    outcome text, words text
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import monitoring
return monitoring.drift_report(name, since, reference)
$python$;
COMMENT ON FUNCTION @extschema@.drift_report(text, interval, interval) IS
    'Whether a model is asked something else since then than in the time before: length of texts, share of unknown tokens, and the vectors themselves, with the size of the change and its p value.';
