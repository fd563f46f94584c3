-- Rollouts: their shares, their ends, the history and the way back.

CREATE OR REPLACE FUNCTION pgml_tune._rollout_facts(name text, version text)
RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'model_id', m.model_id, 'from_version_id', f.model_version_id, 'from_version', f.version,
        'to_version_id', t.model_version_id, 'to_state', t.state,
        -- Labels are of no space: calls of a classifier can always be shared out.
        'is_same_space', f.space_id = t.space_id OR m.task <> 'embedding',
        'collections', (SELECT count(*) FROM pgml_tune._routes(m.model_id)),
        'has_strays', t.model_version_id = f.model_version_id AND (
            EXISTS (
                SELECT FROM pgml_tune._routes(m.model_id) AS r
                WHERE r.model_reference <> m.name || '@' || f.version
                  AND pgml_tune._vectors_in_space(r.name, f.model_version_id) IS NOT NULL
            ) OR EXISTS (
                SELECT FROM pgml_tune._columns_to_prepare(m.model_id, f.model_version_id) AS c WHERE c.is_done
            )
        ),
        'rollout', (SELECT to_jsonb(r) FROM pgml_tune.rollout AS r WHERE r.model_id = m.model_id AND r.ended_at IS NULL)
    )
    FROM pgml_tune.model AS m
    JOIN pgml_tune.serving AS s ON s.model_id = m.model_id
    JOIN pgml_tune.model_version AS f ON f.model_version_id = coalesce(s.wanted_version_id, s.model_version_id)
    LEFT JOIN pgml_tune.model_version AS t ON t.model_id = m.model_id AND t.version = _rollout_facts.version
    WHERE m.name = _rollout_facts.name
$$;
COMMENT ON FUNCTION pgml_tune._rollout_facts(text, text) IS
    'What a model serves, what the version named is, and the rollout that runs; NULL: no such model serves.';

CREATE OR REPLACE FUNCTION pgml_tune._write_history(
    model text, kind text, from_target text, to_target text, reason text, rollout_id bigint, undoes bigint
)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, to_target, reason, rollout_id, undoes)
    VALUES (model, kind, from_target, to_target, reason, rollout_id, undoes)
    RETURNING serving_history_id
$$;
COMMENT ON FUNCTION pgml_tune._write_history(text, text, text, text, text, bigint, bigint) IS
    'Adds a move to the history, and says its number.';

CREATE OR REPLACE FUNCTION pgml_tune._share_text(version text, share integer)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('%s %s %%', version, (share / 100.0)::numeric(5, 2)::text::double precision) $$;
COMMENT ON FUNCTION pgml_tune._share_text(text, integer) IS 'A version and its share, as the history tells it.';

CREATE OR REPLACE FUNCTION pgml_tune._begin_rollout(settings jsonb)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s pgml_tune.serving := pgml_tune._hold_model((settings ->> 'model_id')::bigint);
    v pgml_tune.model_version;
    f pgml_tune.model_version;
    v_rollout_id bigint;
BEGIN
    SELECT o.* INTO f FROM pgml_tune.model_version AS o
    WHERE o.model_version_id = coalesce(s.wanted_version_id, s.model_version_id) FOR KEY SHARE;
    -- Whoever drops the version waits for this lock, and then finds the rollout.
    SELECT o.* INTO v FROM pgml_tune.model_version AS o
    WHERE o.model_version_id = (settings ->> 'to_version_id')::bigint AND o.model_id = s.model_id AND o.state = 'ready'
    FOR KEY SHARE;
    IF v.model_version_id IS NULL OR f.model_version_id <> (settings ->> 'from_version_id')::bigint
        OR EXISTS (SELECT FROM pgml_tune.rollout AS r WHERE r.model_id = s.model_id AND r.ended_at IS NULL) THEN
        RETURN NULL;  -- somebody else was faster
    END IF;
    INSERT INTO pgml_tune.rollout (
        model_id, model, from_version_id, from_version, to_version_id, to_version, is_same_space, share, plan, salt, guardrails,
        expires_at, on_expiry
    )
    VALUES (
        s.model_id, s.model, f.model_version_id, f.version, v.model_version_id, v.version,
        f.space_id = v.space_id OR s.task <> 'embedding',
        (settings ->> 'share')::integer,
        CASE WHEN settings ? 'plan' THEN ARRAY(SELECT p::integer FROM jsonb_array_elements_text(settings -> 'plan') AS p) END,
        encode(sha256(uuid_send(gen_random_uuid())), 'hex'), settings -> 'guardrails',
        now() + make_interval(secs => (settings ->> 'seconds')::double precision), settings ->> 'on_expiry'
    )
    RETURNING rollout_id INTO v_rollout_id;
    DELETE FROM pgml_tune.vectors_left AS l
    USING pgml_tune._routes(s.model_id) AS r
    WHERE l.collection_id = pgml_tune._vectors_in_space(r.name, v.model_version_id);
    PERFORM pgml_tune._set_routes(v_rollout_id);
    PERFORM pgml_tune._write_history(
        s.model, 'share', f.version, pgml_tune._share_text(v.version, (settings ->> 'share')::integer), settings ->> 'reason',
        v_rollout_id, NULL
    );
    RETURN v_rollout_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._begin_rollout(jsonb) IS 'Adds a rollout and sends it its first share; NULL if the model has changed meanwhile.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_rollout(rollout_id bigint)
RETURNS pgml_tune.rollout
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o pgml_tune.rollout;
BEGIN
    PERFORM pgml_tune._hold_model((SELECT r.model_id FROM pgml_tune.rollout AS r WHERE r.rollout_id = _hold_rollout.rollout_id));
    SELECT r.* INTO o FROM pgml_tune.rollout AS r WHERE r.rollout_id = _hold_rollout.rollout_id AND r.ended_at IS NULL;
    RETURN o;  -- a row of NULLs if it has ended
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_rollout(bigint) IS 'A rollout that runs; nobody else changes it until the transaction ends.';

CREATE OR REPLACE FUNCTION pgml_tune._change_rollout(rollout_id bigint, settings jsonb)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    o pgml_tune.rollout := pgml_tune._hold_rollout(rollout_id);
    v_share integer := (settings ->> 'share')::integer;
BEGIN
    IF o.rollout_id IS NULL OR o.phase <> (settings ->> 'expected_phase')::integer THEN
        RETURN false;
    END IF;
    UPDATE pgml_tune.rollout AS r
    SET share = v_share, state = 'running',
        phase = r.phase + (v_share <> r.share)::integer,
        phase_began_at = CASE WHEN v_share <> r.share THEN now() ELSE r.phase_began_at END,
        plan = CASE WHEN settings ? 'plan'
            THEN ARRAY(SELECT p::integer FROM jsonb_array_elements_text(settings -> 'plan') AS p) ELSE r.plan END,
        guardrails = coalesce(settings -> 'guardrails', r.guardrails),
        expires_at = coalesce(now() + make_interval(secs => (settings ->> 'seconds')::double precision), r.expires_at),
        on_expiry = coalesce(settings ->> 'on_expiry', r.on_expiry)
    WHERE r.rollout_id = o.rollout_id;
    PERFORM pgml_tune._set_routes(o.rollout_id);
    IF v_share <> o.share THEN
        PERFORM pgml_tune._write_history(
            o.model, 'share', pgml_tune._share_text(o.to_version, o.share), pgml_tune._share_text(o.to_version, v_share),
            settings ->> 'reason', o.rollout_id, NULL
        );
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._change_rollout(bigint, jsonb) IS
    'Changes a rollout that runs: its share, which begins a phase, and what else is given of plan, guardrails, seconds and on_expiry; false if it has ended, or is not in the phase expected.';

CREATE OR REPLACE FUNCTION pgml_tune._set_verdict(rollout_id bigint, verdict jsonb, state pgml_tune.rollout_state)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgml_tune._hold_rollout(rollout_id);
    UPDATE pgml_tune.rollout AS r
    SET verdict = _set_verdict.verdict, state = coalesce(_set_verdict.state, r.state), looked_at = now()
    WHERE r.rollout_id = _set_verdict.rollout_id AND r.ended_at IS NULL
$$;
COMMENT ON FUNCTION pgml_tune._set_verdict(bigint, jsonb, pgml_tune.rollout_state) IS
    'Keeps what the last look at a rollout has found; NULL leaves its state.';

CREATE OR REPLACE FUNCTION pgml_tune._end_rollout(
    rollout_id bigint, state pgml_tune.rollout_state, reason text, expected_phase integer
)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    o pgml_tune.rollout := pgml_tune._hold_rollout(rollout_id);
    v_move bigint;
    v_missing text;
BEGIN
    IF o.rollout_id IS NULL OR o.phase <> expected_phase THEN
        RETURN false;
    END IF;
    IF _end_rollout.state = 'promoted' THEN
        SELECT string_agg(DISTINCT m.statement, '; ') INTO v_missing
        FROM pgml_tune._missing_steps(o.model_id, o.to_version_id) AS m WHERE m.what <> 'untracked' AND NOT o.is_same_space;
        IF v_missing IS NOT NULL THEN
            RAISE EXCEPTION 'model "%" is not ready for version "%"', o.model, o.to_version
                USING ERRCODE = '55000', HINT = v_missing;
        END IF;
        v_move := pgml_tune._write_history(o.model, 'version', o.from_version, o.to_version, reason, o.rollout_id, NULL);
        -- Before the routes are cleared, which counts candidates among those that were left.
        PERFORM pgml_tune._point_model(o.model_id, o.to_version_id, v_move, NULL);
    ELSE
        PERFORM pgml_tune._write_history(
            o.model, 'share', pgml_tune._share_text(o.to_version, o.share), o.from_version, reason, o.rollout_id, NULL
        );
    END IF;
    PERFORM pgml_tune._clear_routes(o.model_id);
    UPDATE pgml_tune.rollout AS r
    SET state = _end_rollout.state, ended_at = now(), reason = _end_rollout.reason,
        share = CASE _end_rollout.state WHEN 'promoted' THEN 10000 ELSE 0 END
    WHERE r.rollout_id = o.rollout_id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._end_rollout(bigint, pgml_tune.rollout_state, text, integer) IS
    'Lets the candidate of a rollout answer all searches (promoted) or none (rolled_back); false if it has ended already, or is not in the phase expected; NULL expects any.';

CREATE OR REPLACE FUNCTION pgml_tune._open_moves(model text)
RETURNS TABLE (move bigint, from_target text, rollout_id bigint, changed_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.rollout_history_id, h.from_target, h.rollout_id, h.changed_at
    FROM pgml_tune.rollout_history AS h
    WHERE h.pointer = _open_moves.model AND h.kind = 'version' AND h.undoes IS NULL AND h.to_target IS NOT NULL
      AND h.rollout_history_id > coalesce((
          -- A model of the same name may have been dropped.
          SELECT max(d.rollout_history_id) FROM pgml_tune.rollout_history AS d
          WHERE d.pointer = _open_moves.model AND d.kind = 'version' AND d.to_target IS NULL
      ), 0)
      AND NOT EXISTS (SELECT FROM pgml_tune.rollout_history AS u WHERE u.undoes = h.rollout_history_id);
END
$$;
COMMENT ON FUNCTION pgml_tune._open_moves(text) IS
    'The moves of a model from one version to the next that were no way back and have not been taken back.';

CREATE OR REPLACE FUNCTION pgml_tune._columns_left(model_id bigint, version_id bigint)
RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(c.label ORDER BY c.label), '{}')
    FROM pgml_tune._columns_to_prepare(model_id, version_id) AS c WHERE NOT c.is_done
$$;
COMMENT ON FUNCTION pgml_tune._columns_left(bigint, bigint) IS
    'Recorded columns whose vectors are of another space than a version, and that have none of it ready.';

CREATE OR REPLACE FUNCTION pgml_tune._bring_along(model_id bigint)
RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s pgml_tune.serving := pgml_tune._hold_model(model_id);
    v_version_id bigint := coalesce(s.wanted_version_id, s.model_version_id);
BEGIN
    RETURN pgml_tune._point_model(s.model_id, v_version_id, NULL, NULL) || pgml_tune._columns_left(s.model_id, v_version_id);
END
$$;
COMMENT ON FUNCTION pgml_tune._bring_along(bigint) IS
    'Lets collections and columns that a rollback has left behind follow, and names those that still have no vectors of the version that serves.';

CREATE OR REPLACE FUNCTION pgml_tune._step_back(model_id bigint, reason text, expected_version_id bigint)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    s pgml_tune.serving := pgml_tune._hold_model(model_id);
    h record;
    v_version_id bigint;
    v_before text;
    v_move bigint;
    v_left text[];
BEGIN
    IF EXISTS (SELECT FROM pgml_tune.rollout AS r WHERE r.model_id = s.model_id AND r.ended_at IS NULL) THEN
        RETURN NULL;  -- its end is the way back
    END IF;
    IF coalesce(s.wanted_version_id, s.model_version_id) <> expected_version_id THEN
        RETURN NULL;  -- somebody else was faster: two steps are not what either wants
    END IF;
    SELECT o.* INTO h
    FROM pgml_tune._open_moves(s.model) AS o
    -- What was dropped is passed over.
    WHERE EXISTS (SELECT FROM pgml_tune.model_version AS v WHERE v.model_id = s.model_id AND v.version = o.from_target)
    ORDER BY o.move DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no version before the one that model "%" serves', s.model
            USING ERRCODE = '55000', HINT = format('SELECT * FROM pgml_tune.rollout_history WHERE pointer = %L', s.model);
    END IF;
    SELECT v.model_version_id INTO STRICT v_version_id
    FROM pgml_tune.model_version AS v WHERE v.model_id = s.model_id AND v.version = h.from_target FOR KEY SHARE;
    v_before := (
        SELECT v.version FROM pgml_tune.model_version AS v
        WHERE v.model_version_id = coalesce(s.wanted_version_id, s.model_version_id)
    );
    v_move := pgml_tune._write_history(
        s.model, 'version', v_before, h.from_target, reason, h.rollout_id, h.move
    );
    v_left := pgml_tune._point_model(s.model_id, v_version_id, v_move, h.move);
    IF cardinality(v_left) > 0 AND NOT EXISTS (SELECT FROM pgml_tune.serving_history AS m WHERE m.part_of = v_move) THEN
        RAISE EXCEPTION 'no collection of model "%" has vectors of version "%" any more', s.model, h.from_target
            USING ERRCODE = '55000', HINT = format('CALL prepare_rollout(%L, %L)', s.model, h.from_target);
    END IF;
    RETURN jsonb_build_object(
        'from_version', v_before, 'to_version', h.from_target, 'left', v_left || pgml_tune._columns_left(s.model_id, v_version_id)
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._step_back(bigint, text, bigint) IS
    'Takes back the last move of a model that has not been taken back: from which version, to which, and the collections that have no vectors of it any more; NULL if a rollout runs, or another version serves than expected.';

CREATE OR REPLACE FUNCTION pgml_tune._rollback_window()
RETURNS interval
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT make_interval(hours => coalesce(
        (SELECT s.value::integer FROM pgml_tune.setting AS s WHERE s.name = 'rollback_window_hours'),
        168  -- the default in settings.py
    ))
$$;
COMMENT ON FUNCTION pgml_tune._rollback_window() IS 'How long vectors that a rollout has left are kept up to date.';

CREATE OR REPLACE FUNCTION pgml_tune._is_way_back(version_id bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pgml_tune.model_version AS v
        JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        JOIN LATERAL pgml_tune._open_moves(m.name) AS h ON h.from_target = v.version
        WHERE v.model_version_id = version_id AND h.changed_at > now() - pgml_tune._rollback_window()
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._is_way_back(bigint) IS
    'Whether rollback_model() may lead to a version that served until lately.';

CREATE OR REPLACE FUNCTION pgml_tune._retire_vectors()
RETURNS TABLE (collection text, model_reference text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
BEGIN
    FOR t IN
        SELECT c.*
        FROM pgml_tune.collection AS c
        JOIN pgml_tune.collection_route AS r ON r.name = c.name
        JOIN pgml_tune.vectors_left AS l ON l.collection_id = c.collection_id
        WHERE l.left_at < now() - pgml_tune._rollback_window() AND c.collection_id <> r.collection_id
          AND c.collection_id IS DISTINCT FROM r.candidate_id
          AND NOT EXISTS (SELECT FROM pg_class AS v WHERE v.oid = c.view_name)
        FOR UPDATE OF c SKIP LOCKED
    LOOP
        collection := t.name;
        model_reference := t.model_reference;
        IF t.retired_xid IS NULL THEN
            UPDATE pgml_tune.collection AS c SET retired_xid = pg_current_xact_id() WHERE c.collection_id = t.collection_id;
            outcome := 'retired';
            RETURN NEXT;
        -- Whoever began before that may still be led there.
        ELSIF t.retired_xid >= pg_snapshot_xmax(pg_current_snapshot()) OR NOT EXISTS (  -- of another cluster, or
            SELECT FROM pg_stat_activity AS a
            WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL
              AND age(a.backend_xmin) >= age(t.retired_xid::xid)
              AND a.backend_type <> 'autovacuum worker'  -- which is led nowhere
        ) AND NOT EXISTS (
            -- A vacuum gives way after a second, in which every search would wait, too.
            SELECT FROM pg_locks AS l
            WHERE l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
              AND l.relation IN (t.source, t.embeddings) AND l.mode = 'ShareUpdateExclusiveLock'
        ) THEN
            BEGIN
                -- So long do all searches wait, at most; there is a next time.
                PERFORM set_config('lock_timeout', '200ms', true);
                PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, NULL, NULL, false);
                DELETE FROM pgml_tune.collection AS c WHERE c.collection_id = t.collection_id;
                UPDATE pgml_tune.collection AS c SET is_twin = false
                FROM pgml_tune.collection_route AS r
                WHERE NOT t.is_twin AND r.name = t.name AND c.collection_id = r.collection_id;
                PERFORM pgml_tune._write_history(t.name, 'vectors', t.model_reference, NULL, 'rollback_window is over', NULL, NULL);
                outcome := 'dropped';
            EXCEPTION WHEN lock_not_available OR dependent_objects_still_exist THEN
                outcome := SQLERRM;
            END;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._retire_vectors() IS
    'Gives up vectors that no search has gone to for so long, and drops those given up before as soon as no transaction can be led there.';

CREATE OR REPLACE FUNCTION @extschema@.rollout_model(
    name text, version text, percent integer DEFAULT 100, options jsonb DEFAULT '{}'
)
RETURNS jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import rollout
return rollout.rollout_model(name, version, percent, options)
$python$;
COMMENT ON FUNCTION @extschema@.rollout_model(text, text, integer, jsonb) IS
    'Lets a version of a model answer this percentage of the units (100: promotes it) and says what it did and how many users or questions a verdict needs; not in a transaction block, which makes embed() wait for its end; options: plan, guardrails, expires, on_expiry, untracked, reason, dry_run.';

CREATE OR REPLACE FUNCTION @extschema@.rollback_model(name text, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import rollout
return rollout.rollback_model(name, reason)
$python$;
COMMENT ON FUNCTION @extschema@.rollback_model(text, text) IS
    'Takes a model back: ends the rollout that runs, else undoes its last promotion (called again, the one before); not in a transaction block, which makes embed() wait for its end; says from which version to which, and in how many milliseconds searches, and plain embed(), have followed.';

CREATE OR REPLACE FUNCTION @extschema@.rollout_explain(rollout_id bigint)
RETURNS jsonb
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import rollout
return rollout.rollout_explain(rollout_id)
$python$;
COMMENT ON FUNCTION @extschema@.rollout_explain(bigint) IS
    'A rollout with every number behind its last verdict: per guardrail the units of both sides, the effect with its interval, the margin, the e-value and what follows.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.rollout_tick()
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import rollout
return rollout.rollout_tick()
$python$;
COMMENT ON PROCEDURE @extschema@.rollout_tick() IS
    'Looks at every rollout that runs: rolls back one that fails its guardrails, takes one that passes to the next step of its plan, holds all others; run it every minute, as often as you like, outside a transaction block.';

-- A worker finds it without knowing the schema of the extension.
CREATE OR REPLACE PROCEDURE pgml_tune._tick()
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import rollout
return rollout.rollout_tick()
$python$;
COMMENT ON PROCEDURE pgml_tune._tick() IS 'As rollout_tick().';

CREATE OR REPLACE FUNCTION pgml_tune._rollout_faults()
RETURNS TABLE (model text, fault text, fix text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.model, format('plain embed(), views and query functions still serve version %s', s.version), 'CALL rollout_tick()'
    FROM pgml_tune.serving AS s WHERE s.wanted_version_id IS NOT NULL
    UNION ALL
    SELECT r.model, format('nobody has looked at its rollout to version %s for 10 minutes', r.to_version), 'CALL rollout_tick()'
    FROM pgml_tune.rollout AS r
    WHERE r.ended_at IS NULL AND coalesce(r.looked_at, r.created_at) < now() - interval '10 minutes'
    UNION ALL
    SELECT split_part(r.model_reference, '@', 1), format('view %s still shows vectors of %s', c.view_name, c.model_reference),
           format('DROP VIEW %s; CALL maintain()', c.view_name)
    FROM pgml_tune.collection AS c
    JOIN pg_class AS v ON v.oid = c.view_name
    JOIN pgml_tune.collection_route AS r ON r.name = c.name AND r.collection_id <> c.collection_id
    WHERE NOT EXISTS (
        SELECT FROM pgml_tune.serving AS s JOIN pgml_tune.model_version AS w ON w.model_id = s.model_id
        WHERE w.model_version_id = c.model_version_id AND s.wanted_version_id IS NOT NULL
    )
    UNION ALL
    SELECT r.model, format('its rollout to version %s is paused: %s', r.to_version, r.verdict ->> 'words'),
           format('SELECT rollout_explain(%s)', r.rollout_id)
    FROM pgml_tune.rollout AS r WHERE r.state = 'paused'
$$;
COMMENT ON FUNCTION pgml_tune._rollout_faults() IS 'What is wrong with rollouts, and the statement that mends it.';

CREATE OR REPLACE PROCEDURE pgml_tune._retire()
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import rollout
return rollout.retire()
$python$;
COMMENT ON PROCEDURE pgml_tune._retire() IS 'Lets plain embed() follow what searches go to, and gives up vectors that no rollback shall come back to.';
