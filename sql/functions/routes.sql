-- To whom calls and searches of a model go. Whoever changes it holds the row of the model in pgml_tune.serving, so one does it at a
-- time; who only reads is never held up.

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

CREATE OR REPLACE FUNCTION pgml_tune._ending_statements(relations oid[], modes text[])
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(DISTINCT format('SELECT pg_terminate_backend(%s)', l.pid), '; ')
    FROM pg_locks AS l
    WHERE l.relation = ANY (relations) AND (modes IS NULL OR l.mode = ANY (modes)) AND l.granted
      AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
      AND l.pid <> pg_backend_pid()
$$;
COMMENT ON FUNCTION pgml_tune._ending_statements(oid[], text[]) IS
    'Statements that end the other sessions with a lock on one of these tables, in one of these modes or, with NULL, in any; NULL if there is none.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_model(model_id bigint)
RETURNS pgml_tune.serving
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s pgml_tune.serving;
    v_lock_timeout text := current_setting('lock_timeout');
BEGIN
    BEGIN
        -- Whoever has left a transaction open shall not keep everybody else from taking a model back without a word.
        PERFORM set_config('lock_timeout', '3s', true);
        SELECT o.* INTO s FROM pgml_tune.serving AS o WHERE o.model_id = _hold_model.model_id FOR UPDATE;
        PERFORM set_config('lock_timeout', v_lock_timeout, true);
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'another transaction is changing what the model serves, and has not ended'
            USING ERRCODE = '55P03', HINT = coalesce(
                -- Who only embeds holds less.
                pgml_tune._ending_statements(
                    ARRAY['pgml_tune.serving'::regclass::oid], '{RowShareLock,RowExclusiveLock}'
                ), 'SELECT * FROM pg_prepared_xacts'
            );
    END;
    RETURN s;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_model(bigint) IS
    'What a model serves now; nobody else changes it until the transaction ends. 55P03 if somebody has held it for 3 seconds.';

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
    LEFT JOIN pgml_tune.model_version AS v
        ON v.model_version_id = o.to_version_id AND o.is_same_space
        -- Not while plain embed() has yet to follow from another space: it would share itself out between two.
        AND EXISTS (
            SELECT FROM pgml_tune.serving AS n JOIN pgml_tune.model_version AS w ON w.model_version_id = n.model_version_id
            WHERE n.model_id = o.model_id AND (w.space_id = v.space_id OR n.task <> 'embedding')
        )
    WHERE s.model_id = o.model_id;
    UPDATE pgml_tune.collection_route AS r
    SET rollout_id = o.rollout_id, phase = o.phase, share = o.share, salt = o.salt, changed_at = now(),
        candidate_id = m.vectors, candidate_reference = v_candidate
    FROM (
        SELECT n.name, pgml_tune._vectors_in_space(n.name, o.to_version_id) AS vectors FROM pgml_tune._routes(o.model_id) AS n
    ) AS m
    WHERE r.name = m.name AND r.model_reference <> v_candidate AND m.vectors IS NOT NULL;
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
