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
        SELECT c.phase, min(c.share) AS share, c.variant, c.unit, count(c.sqlstate) > 0 AS has_failed,
               coalesce(max(c.model_ms) > promised_ms, false) AS was_slow, avg(ln(c.model_ms)) AS ln_ms
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
    SELECT c.phase, c.variant, count(*), count(c.sqlstate), count(c.model_ms), avg(c.model_ms),
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
        RETURN NEW;
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
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE  -- not STRICT: most are NULL
SET search_path = pg_catalog, pg_temp
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
