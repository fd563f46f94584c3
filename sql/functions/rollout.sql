-- Which version answers, and of whom: rollouts, promotion, rollback. Whoever changes something here holds the row of the model in
-- pgml_tune.serving, so one does it at a time; who only reads is never held up.

CREATE OR REPLACE FUNCTION pgml_tune._vectors_in_space(name text, version_id bigint, must_be_filled boolean DEFAULT true)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.collection_id
    FROM pgml_tune.collection AS c
    JOIN pgml_tune.model_version AS own ON own.model_version_id = c.model_version_id
    JOIN pgml_tune.model_version AS v ON v.model_version_id = _vectors_in_space.version_id AND v.space_id = own.space_id
    JOIN pgml_tune.collection_route AS r ON r.name = c.name
    JOIN pgml_tune.collection AS s ON s.collection_id = r.collection_id AND s.source = c.source
    WHERE c.name = _vectors_in_space.name AND c.is_ready AND c.retired_xid IS NULL
      -- Not what is lost: its owner may have dropped it.
      AND EXISTS (SELECT FROM pgml_tune._collection_parts(c.collection_id))
      AND (NOT must_be_filled OR c.is_filled AND NOT EXISTS (
          SELECT FROM pgml_tune.vectors_missed AS l WHERE l.collection_id = c.collection_id
      ))
    -- Those that answer before their twins, and among these the newest.
    ORDER BY c.collection_id <> r.collection_id, c.collection_id DESC
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._vectors_in_space(text, bigint, boolean) IS
    'The vectors of a collection that questions under a version can be compared with; NULL if there are none. Unless they must be filled, rows of a partition attached since may lack.';

CREATE OR REPLACE FUNCTION pgml_tune._routes(model_id bigint)
RETURNS SETOF pgml_tune.collection_route
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.*
    FROM pgml_tune.collection_route AS r
    JOIN pgml_tune.collection AS c ON c.collection_id = r.collection_id
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    WHERE v.model_id = _routes.model_id
    ORDER BY r.name
$$;
COMMENT ON FUNCTION pgml_tune._routes(bigint) IS 'The collections that a model answers.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_model(model_id bigint)
RETURNS pgml_tune.serving
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s pgml_tune.serving;
    v_lock_timeout text := current_setting('lock_timeout');
    v_holders text;
BEGIN
    BEGIN
        -- Whoever has left a transaction open shall not keep everybody else from taking a model back without a word.
        PERFORM set_config('lock_timeout', '3s', true);
        SELECT o.* INTO s FROM pgml_tune.serving AS o WHERE o.model_id = _hold_model.model_id FOR UPDATE;
        PERFORM set_config('lock_timeout', v_lock_timeout, true);
    EXCEPTION WHEN lock_not_available THEN
        SELECT string_agg(DISTINCT format('SELECT pg_terminate_backend(%s)', l.pid), '; ') INTO v_holders
        FROM pg_locks AS l
        -- Who only embeds holds less.
        WHERE l.relation = 'pgml_tune.serving'::regclass AND l.mode IN ('RowShareLock', 'RowExclusiveLock') AND l.granted
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          AND l.pid <> pg_backend_pid();
        RAISE EXCEPTION 'another transaction is changing what the model serves, and has not ended'
            USING ERRCODE = '55P03', HINT = coalesce(v_holders, 'SELECT * FROM pg_prepared_xacts');
    END;
    RETURN s;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_model(bigint) IS
    'What a model serves now; nobody else changes it until the transaction ends. 55P03 if somebody has held it for 3 seconds.';

CREATE OR REPLACE FUNCTION pgml_tune._rollout_facts(name text, version text)
RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'model_id', m.model_id, 'task', m.task, 'from_version_id', f.model_version_id, 'from_version', f.version,
        'to_version_id', t.model_version_id, 'to_state', t.state, -- Labels are of no space: calls of a classifier can always be shared out.
        'is_same_space', f.space_id = t.space_id OR m.task <> 'embedding',
        'is_pending', s.wanted_version_id IS NOT NULL,
        'collections', (SELECT count(*) FROM pgml_tune._routes(m.model_id)),
        'strays', (
            SELECT count(*) FROM pgml_tune._routes(m.model_id) AS r
            WHERE r.model_reference <> m.name || '@' || f.version
              AND pgml_tune._vectors_in_space(r.name, f.model_version_id) IS NOT NULL
        ) + (
            SELECT count(*) FROM pgml_tune._columns_to_prepare(m.model_id, f.model_version_id) AS c WHERE c.is_done
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

CREATE OR REPLACE FUNCTION pgml_tune._set_routes(rollout_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o pgml_tune.rollout;
    v_candidate text;
BEGIN
    SELECT r.* INTO STRICT o FROM pgml_tune.rollout AS r WHERE r.rollout_id = _set_routes.rollout_id;
    v_candidate := o.model || '@' || o.to_version;
    UPDATE pgml_tune.serving AS s
    SET rollout_id = o.rollout_id, phase = o.phase, share = o.share, salt = o.salt, changed_at = now(),
        candidate_version_id = v.model_version_id, candidate_version = v.version, candidate_sha256 = v.artifact_sha256
    FROM (VALUES (1)) AS one
    LEFT JOIN pgml_tune.model_version AS v ON v.model_version_id = o.to_version_id AND o.is_same_space
    WHERE s.model_id = o.model_id;
    UPDATE pgml_tune.collection_route AS r
    SET rollout_id = o.rollout_id, phase = o.phase, share = o.share, salt = o.salt, changed_at = now(),
        candidate_id = pgml_tune._vectors_in_space(r.name, o.to_version_id), candidate_reference = v_candidate
    FROM pgml_tune._routes(o.model_id) AS m
    WHERE r.name = m.name AND r.model_reference <> v_candidate
      AND pgml_tune._vectors_in_space(r.name, o.to_version_id) IS NOT NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._set_routes(bigint) IS 'Sends the share of a rollout to its candidate from now on.';

CREATE OR REPLACE FUNCTION pgml_tune._clear_routes(model_id bigint)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgml_tune.serving AS s
    SET rollout_id = NULL, phase = NULL, share = NULL, salt = NULL, candidate_version_id = NULL, candidate_version = NULL,
        candidate_sha256 = NULL, changed_at = now()
    WHERE s.model_id = _clear_routes.model_id;
    INSERT INTO pgml_tune.vectors_left AS l (collection_id)
    SELECT r.candidate_id FROM pgml_tune._routes(_clear_routes.model_id) AS r WHERE r.candidate_id <> r.collection_id
    ON CONFLICT (collection_id) DO UPDATE SET left_at = now();
    UPDATE pgml_tune.collection_route AS r
    SET rollout_id = NULL, phase = NULL, share = NULL, salt = NULL, candidate_id = NULL, candidate_reference = NULL,
        changed_at = now()
    FROM pgml_tune._routes(_clear_routes.model_id) AS m
    WHERE r.name = m.name;
$$;
COMMENT ON FUNCTION pgml_tune._clear_routes(bigint) IS 'Ends the share that a candidate of a model has.';

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
        OR s.wanted_version_id IS NOT NULL
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
        -- Before the routes are cleared: nothing shall be looked for twice.
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

CREATE OR REPLACE FUNCTION pgml_tune._point_model(model_id bigint, version_id bigint, move bigint, undone bigint)
RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    s pgml_tune.serving := pgml_tune._hold_model(model_id);
    r record;
    v_left text[] := '{}';
BEGIN
    FOR r IN
        SELECT m.name, m.collection_id, m.model_reference, t.target,
               -- On the way back a partition that has come since is no reason to stay: those that answer now may lack it, too.
               pgml_tune._vectors_in_space(m.name, v.model_version_id, undone IS NULL) AS vectors
        FROM pgml_tune._routes(s.model_id) AS m
        CROSS JOIN LATERAL (
            SELECT coalesce(
                -- A move that is taken back leads each collection to where it was before.
                (SELECT h.from_target FROM pgml_tune.serving_history AS h
                 WHERE h.part_of = undone AND h.kind = 'collection' AND h.pointer = m.name),
                (SELECT s.model || '@' || o.version FROM pgml_tune.model_version AS o WHERE o.model_version_id = version_id)
            )
        ) AS t (target)
        LEFT JOIN pgml_tune.model_version AS v ON v.model_id = s.model_id AND s.model || '@' || v.version = t.target
        WHERE m.model_reference <> t.target
    LOOP
        IF r.vectors IS NULL THEN
            -- It stays whole, with the version that it has vectors of, and keeps no other from moving.
            v_left := v_left || r.name;
            CONTINUE;
        END IF;
        INSERT INTO pgml_tune.vectors_left AS l (collection_id) VALUES (r.collection_id)
        ON CONFLICT (collection_id) DO UPDATE SET left_at = now();
        DELETE FROM pgml_tune.vectors_left AS l WHERE l.collection_id = r.vectors;
        UPDATE pgml_tune.collection_route AS o
        SET collection_id = r.vectors, model_reference = r.target, candidate_id = NULL, changed_at = now()
        WHERE o.name = r.name;
        INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, to_target, part_of)
        VALUES (r.name, 'collection', r.model_reference, r.target, move);
    END LOOP;
    UPDATE pgml_tune.serving AS o SET wanted_version_id = version_id, changed_at = now()
    WHERE o.model_id = s.model_id;
    RETURN v_left;
END
$$;
COMMENT ON FUNCTION pgml_tune._point_model(bigint, bigint, bigint, bigint) IS
    'Lets searches of a model go to a version, or each collection to where it was before a move that is taken back, and names the collections that have no vectors for it; plain embed() follows in _align_model().';

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
    h pgml_tune.serving_history;
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
    -- The last move that was not a way back and has not been taken back.
    SELECT o.* INTO h
    FROM pgml_tune.serving_history AS o
    WHERE o.pointer = s.model AND o.kind = 'version' AND o.undoes IS NULL AND o.to_target IS NOT NULL
      -- What was dropped is passed over.
      AND EXISTS (SELECT FROM pgml_tune.model_version AS v WHERE v.model_id = s.model_id AND v.version = o.from_target)
      AND o.serving_history_id > coalesce((
          -- A model of the same name may have been dropped.
          SELECT max(d.serving_history_id) FROM pgml_tune.serving_history AS d
          WHERE d.pointer = s.model AND d.kind = 'version' AND d.to_target IS NULL
      ), 0)
      AND NOT EXISTS (SELECT FROM pgml_tune.serving_history AS u WHERE u.undoes = o.serving_history_id)
    ORDER BY o.serving_history_id DESC
    LIMIT 1;
    IF h.serving_history_id IS NULL THEN
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
        s.model, 'version', v_before, h.from_target, reason, h.rollout_id, h.serving_history_id
    );
    v_left := pgml_tune._point_model(s.model_id, v_version_id, v_move, h.serving_history_id);
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

CREATE OR REPLACE FUNCTION pgml_tune._serving_function(model_id bigint)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('pgml_tune._serving_%s()', model_id) $$;
COMMENT ON FUNCTION pgml_tune._serving_function(bigint) IS 'The function that says what plain embed() serves.';

CREATE OR REPLACE FUNCTION pgml_tune._make_serving_function(model_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    s pgml_tune.serving;
    v_reader text;
BEGIN
    -- Locked: what an old snapshot shows would stay.
    s := pgml_tune._hold_model(model_id);
    IF s.model_id IS NULL THEN
        RETURN;
    END IF;
    -- A view is always the latest, a row is what the snapshot saw. A function is the latest, too, so embed() asks one and stays
    -- with the views, however old the snapshot.
    EXECUTE format(
        'CREATE OR REPLACE FUNCTION %s RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
         AS $body$ SELECT %L::text[] $body$',
        pgml_tune._serving_function(model_id),
        ARRAY[s.model_version_id::text, s.version, s.artifact_sha256, s.dimensions::text]
    );
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', pgml_tune._serving_function(model_id),
        format('What plain embed() serves of model "%s": number, version, artifact, dimensions.', s.model));
    -- It says no more than pgml_tune.serving: for those who may read that.
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', pgml_tune._serving_function(model_id));
    FOR v_reader IN
        SELECT DISTINCT a.grantee::regrole::text
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = 'pgml_tune.serving'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', pgml_tune._serving_function(model_id), v_reader);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._make_serving_function(bigint) IS
    'Makes, or brings up to date, what tells embed() the serving version in step with views and query functions.';

CREATE OR REPLACE FUNCTION pgml_tune._align_objects(model_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    s pgml_tune.serving := pgml_tune._hold_model(model_id);
    r record;
    v_before text := s.version;
    v_statements text[];
BEGIN
    -- Views first: whoever reads one holds it until his transaction ends, and nothing may have changed until we hold all.
    FOR r IN
        SELECT old.collection_id AS old_id, new.collection_id AS new_id, old.view_name::text AS view_name, old.query_function,
               m.model_reference,
               regexp_replace(pgml_tune._query_function(old.collection_id)::regprocedure::text, '\(text\)$', '') AS function_name
        FROM pgml_tune._routes(s.model_id) AS m
        JOIN pgml_tune.collection AS new ON new.collection_id = m.collection_id
        JOIN pgml_tune.collection AS old ON old.name = m.name AND old.view_name IS NOT NULL
        JOIN pg_class AS c ON c.oid = old.view_name AND c.relkind = 'v'
        -- Of what is lost nothing can be made.
        CROSS JOIN LATERAL pgml_tune._collection_parts(new.collection_id) AS p
        WHERE (old.collection_id, old.query_reference) IS DISTINCT FROM (new.collection_id, m.model_reference)
          AND pgml_tune._query_function(old.collection_id) IS NOT NULL
        ORDER BY m.name
    LOOP
        BEGIN
            UPDATE pgml_tune.collection AS c SET view_name = NULL, query_function = NULL, query_reference = NULL
            WHERE c.collection_id = r.old_id;
            UPDATE pgml_tune.collection AS c SET query_reference = r.model_reference WHERE c.collection_id = r.new_id;
            v_statements := pgml_tune._query_statements(r.new_id, r.view_name, r.function_name);
            BEGIN
                PERFORM pgml_tune._run(v_statements);
            EXCEPTION WHEN invalid_table_definition OR invalid_function_definition THEN
                -- Its column was renamed, or somebody has made something else of them.
                PERFORM pgml_tune._run(ARRAY['DROP VIEW ' || r.view_name, format('DROP FUNCTION %s(text)', r.function_name)]
                    || v_statements);
            END;
            UPDATE pgml_tune.collection AS c SET view_name = r.view_name::regclass, query_function = r.query_function
            WHERE c.collection_id = r.new_id;
            PERFORM pgml_tune._mend_collection(r.new_id);
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                RAISE;
            WHEN others THEN
                -- What was built on one view keeps no other, and not embed(), on the version before.
                RAISE WARNING 'view % does not follow: %', r.view_name, SQLERRM;
        END;
    END LOOP;
    PERFORM pgml_tune._swap_columns(s.model_id, s.wanted_version_id);
    -- Who has called embed() holds this till the end of his transaction, and stays with one version.
    LOCK TABLE pgml_tune.serving IN ACCESS EXCLUSIVE MODE;
    UPDATE pgml_tune.serving AS o
    SET model_version_id = v.model_version_id, version = v.version, artifact_sha256 = v.artifact_sha256,
        dimensions = v.dimensions, wanted_version_id = NULL, changed_at = now()
    FROM pgml_tune.model_version AS v
    WHERE o.model_id = s.model_id AND v.model_version_id = s.wanted_version_id
    RETURNING o.* INTO STRICT s;
    IF to_regprocedure(pgml_tune._serving_function(s.model_id)) IS NOT NULL THEN
        PERFORM pgml_tune._make_serving_function(s.model_id);
    END IF;
    IF s.version <> v_before THEN  -- else rolled back before all had followed
        PERFORM pgml_tune._write_history(s.model, 'catalog', v_before, s.version, NULL, NULL, NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._align_objects(bigint) IS
    'Lets plain embed(), views, query functions and filled columns follow what searches go to, all of them together.';

CREATE OR REPLACE FUNCTION pgml_tune._run(statements text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_statement text;
BEGIN
    FOREACH v_statement IN ARRAY statements LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._run(text[]) IS 'Runs statements one after the other.';

CREATE OR REPLACE FUNCTION pgml_tune._align_model(model_id bigint, lock_ms integer)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_lock_timeout text := current_setting('lock_timeout');
    v_holders text;
BEGIN
    IF EXISTS (
        SELECT FROM pgml_tune.serving AS s WHERE s.model_id = _align_model.model_id AND s.wanted_version_id IS NULL
    ) THEN
        RETURN NULL;
    END IF;
    -- Who waits for a lock holds up all who come after.
    PERFORM set_config('lock_timeout', greatest(1, least(lock_ms, 1000)) || 'ms', true);
    PERFORM pgml_tune._align_objects(model_id);
    PERFORM set_config('lock_timeout', v_lock_timeout, true);
    RETURN NULL;
-- Nothing that stands in the way of a view takes the way back from the searches. Not a cancel, which is none of these.
EXCEPTION
    WHEN lock_not_available THEN
        SELECT string_agg(DISTINCT format('SELECT pg_terminate_backend(%s)', l.pid), '; ') INTO v_holders
        FROM pg_locks AS l
        WHERE l.granted AND l.pid <> pg_backend_pid()
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          AND l.relation IN (
              SELECT 'pgml_tune.serving'::regclass::oid
              UNION ALL
              SELECT c.view_name FROM pgml_tune._routes(model_id) AS r JOIN pgml_tune.collection AS c ON c.name = r.name
              WHERE c.view_name IS NOT NULL
          );
        RETURN coalesce('open transactions, which end by themselves, or by ' || v_holders, SQLERRM);
    WHEN others THEN
        RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION pgml_tune._align_model(bigint, integer) IS
    'As _align_objects(), unless others hold a lock longer than so many milliseconds, or something else prevents it: what, and it is to be tried again.';

CREATE OR REPLACE FUNCTION pgml_tune._unaligned_models()
RETURNS TABLE (model_id bigint, model text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT s.model_id, s.model FROM pgml_tune.serving AS s WHERE s.wanted_version_id IS NOT NULL ORDER BY s.model $$;
COMMENT ON FUNCTION pgml_tune._unaligned_models() IS 'Models whose plain embed() has yet to follow their searches.';

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
        JOIN pgml_tune.rollout_history AS h ON h.pointer = m.name AND h.kind = 'version' AND h.from_target = v.version
        WHERE v.model_version_id = version_id AND h.undoes IS NULL AND h.changed_at > now() - pgml_tune._rollback_window()
          AND NOT EXISTS (SELECT FROM pgml_tune.rollout_history AS u WHERE u.undoes = h.rollout_history_id)
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
