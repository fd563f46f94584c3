-- What the Python package needs and callers must not have directly: SECURITY DEFINER, and no free text of users.

CREATE OR REPLACE FUNCTION pgml_tune._move_serving(model_id bigint, model_version_id bigint, reason text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_before bigint;
BEGIN
    SELECT s.model_version_id INTO v_before
    FROM pgml_tune.serving AS s WHERE s.model_id = _move_serving.model_id FOR UPDATE;

    INSERT INTO pgml_tune.serving AS s (model_id, model, task, model_version_id, version, artifact_sha256, dimensions)
    SELECT m.model_id, m.name, m.task, v.model_version_id, v.version, v.artifact_sha256, v.dimensions
    FROM pgml_tune.model_version AS v
    JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE v.model_version_id = _move_serving.model_version_id
      AND v.model_id = _move_serving.model_id
      AND v.state = 'ready'
    ON CONFLICT (model_id) DO UPDATE SET
        model_version_id = excluded.model_version_id,
        version = excluded.version,
        artifact_sha256 = excluded.artifact_sha256,
        dimensions = excluded.dimensions,
        changed_at = now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'only a version that is ready can serve' USING ERRCODE = '55000';
    END IF;

    INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, to_target, reason)
    SELECT s.model, 'version',
           (SELECT v.version FROM pgml_tune.model_version AS v WHERE v.model_version_id = v_before),
           (SELECT v.version FROM pgml_tune.model_version AS v WHERE v.model_version_id = s.model_version_id),
           _move_serving.reason
    FROM pgml_tune.serving AS s WHERE s.model_id = _move_serving.model_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._move_serving(bigint, bigint, text) IS
    'Points a model at one of its versions and writes the history.';

CREATE OR REPLACE FUNCTION pgml_tune._move_default(task text, model_id bigint, reason text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_before text;
BEGIN
    UPDATE pgml_tune.serving AS s SET default_of = NULL, changed_at = now()
    WHERE s.default_of = _move_default.task
    RETURNING s.model INTO v_before;
    UPDATE pgml_tune.serving AS s SET default_of = s.task, changed_at = now()
    WHERE s.model_id = _move_default.model_id AND s.task = _move_default.task;

    INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, to_target, reason)
    VALUES (
        _move_default.task, 'default', v_before,
        (SELECT s.model FROM pgml_tune.serving AS s WHERE s.default_of = _move_default.task),
        _move_default.reason
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._move_default(text, bigint, text) IS
    'Points a task at its default model, or with NULL at none, and writes the history.';

CREATE OR REPLACE FUNCTION pgml_tune._add_version(
    model text, task text, description text, version text, base text, artifact_sha256 text, bytes bigint, config jsonb,
    created_by text
)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_model pgml_tune.model;
    v_version_id bigint;
BEGIN
    -- One registration at a time: two first models would both become the default. Nobody who only reads holds it up, and
    -- the move of a pointer does not wait for it.
    LOCK TABLE pgml_tune.model IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO pgml_tune.model (name, task, description, created_by)
    VALUES (_add_version.model, _add_version.task, _add_version.description, _add_version.created_by)
    ON CONFLICT (name) DO NOTHING;
    SELECT m.* INTO STRICT v_model FROM pgml_tune.model AS m WHERE m.name = _add_version.model;
    IF v_model.task <> _add_version.task THEN
        RETURN 'other task';
    END IF;

    IF _add_version.base IS NOT NULL AND NOT EXISTS (
        SELECT FROM pgml_tune.model_version AS v
        WHERE v.model_id = v_model.model_id AND v.version = _add_version.base
    ) THEN
        RETURN 'no base';
    END IF;

    INSERT INTO pgml_tune.model_version (
        model_id, version, state, artifact_sha256, space_id, dimensions, max_tokens, storage, bytes,
        is_batch_invariant, base_version, metrics, source, created_by
    )
    SELECT v_model.model_id, _add_version.version, 'ready', _add_version.artifact_sha256, c.space_id,
           c.dimensions, c.max_tokens, c.storage, _add_version.bytes, c.is_batch_invariant, _add_version.base,
           c.metrics, c.source, _add_version.created_by
    FROM jsonb_to_record(_add_version.config) AS c (
        space_id text, dimensions integer, max_tokens integer, storage text, is_batch_invariant boolean,
        metrics jsonb, source jsonb
    )
    ON CONFLICT (model_id, version) DO NOTHING
    RETURNING model_version_id INTO v_version_id;
    IF NOT FOUND THEN
        RETURN 'taken';
    END IF;

    IF NOT EXISTS (SELECT FROM pgml_tune.serving AS s WHERE s.model_id = v_model.model_id) THEN
        PERFORM pgml_tune._move_serving(v_model.model_id, v_version_id, 'first version');
    END IF;
    IF NOT EXISTS (SELECT FROM pgml_tune.serving AS s WHERE s.default_of = v_model.task) THEN
        PERFORM pgml_tune._move_default(v_model.task, v_model.model_id, 'first model');
    END IF;
    RETURN 'registered';
END
$$;
COMMENT ON FUNCTION pgml_tune._add_version(text, text, text, text, text, text, bigint, jsonb, text) IS
    'Adds a version and its model in the name of a user; says registered, taken, no base or other task.';

-- Whoever may register does so in his own name; the worker, which owns all this, in that of whose job it has run.
CREATE OR REPLACE FUNCTION pgml_tune._register_version(
    model text, task text, description text, version text, base text, artifact_sha256 text, bytes bigint, config jsonb
)
RETURNS text
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgml_tune._add_version(model, task, description, version, base, artifact_sha256, bytes, config, session_user)
$$;
COMMENT ON FUNCTION pgml_tune._register_version(text, text, text, text, text, text, bigint, jsonb) IS
    'Adds a version and its model; says registered, taken, no base or other task.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_version(model text, version text)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_model pgml_tune.model;
    v_version_id bigint;
    v_is_last boolean;
BEGIN
    LOCK TABLE pgml_tune.model IN SHARE ROW EXCLUSIVE MODE;
    SELECT m.* INTO v_model FROM pgml_tune.model AS m WHERE m.name = _drop_version.model;
    -- Whoever begins to use the version holds a lock on its row until he has committed.
    SELECT v.model_version_id INTO v_version_id
    FROM pgml_tune.model_version AS v
    WHERE v.model_id = v_model.model_id AND v.version = _drop_version.version FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    IF EXISTS (SELECT FROM pgml_tune.collection AS c WHERE c.model_version_id = v_version_id)
        OR EXISTS (
            SELECT FROM pgml_tune.collection_route AS r
            WHERE v_model.name || '@' || _drop_version.version IN (r.model_reference, r.candidate_reference)
        )
        OR EXISTS (
            SELECT FROM pgml_tune.rollout AS r
            WHERE r.ended_at IS NULL AND v_version_id IN (r.from_version_id, r.to_version_id)
        )
        OR EXISTS (SELECT FROM pgml_tune.tracked_column AS c WHERE c.model_version_id = v_version_id) THEN
        RETURN 'used';
    END IF;

    v_is_last := NOT EXISTS (
        SELECT FROM pgml_tune.model_version AS v
        WHERE v.model_id = v_model.model_id AND v.model_version_id <> v_version_id
    );
    IF NOT v_is_last AND EXISTS (
        SELECT FROM pgml_tune.serving AS s WHERE v_version_id IN (s.model_version_id, s.wanted_version_id)
    ) THEN
        RETURN 'serving';
    END IF;
    IF NOT v_is_last AND pgml_tune._is_way_back(v_version_id) THEN
        RETURN 'way back';
    END IF;

    IF v_is_last THEN
        IF EXISTS (
            SELECT FROM pgml_tune.serving AS s WHERE s.model_id = v_model.model_id AND s.default_of IS NOT NULL
        ) THEN
            IF EXISTS (
                SELECT FROM pgml_tune.model AS m WHERE m.task = v_model.task AND m.model_id <> v_model.model_id
            ) THEN
                RETURN 'default';
            END IF;
            PERFORM pgml_tune._move_default(v_model.task, NULL, 'last model dropped');
        END IF;
        DELETE FROM pgml_tune.serving AS s WHERE s.model_id = v_model.model_id;
        IF to_regprocedure(pgml_tune._serving_function(v_model.model_id)) IS NOT NULL THEN
            EXECUTE format('DROP FUNCTION %s', pgml_tune._serving_function(v_model.model_id));
        END IF;
        INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, reason)
        VALUES (v_model.name, 'version', _drop_version.version, 'last version dropped');
    END IF;
    DELETE FROM pgml_tune.engine_choice AS c WHERE c.model_version_id = v_version_id;
    DELETE FROM pgml_tune.model_version AS v WHERE v.model_version_id = v_version_id;
    IF v_is_last THEN
        DELETE FROM pgml_tune.model AS m WHERE m.model_id = v_model.model_id;
    END IF;
    RETURN 'dropped';
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_version(text, text) IS
    'Removes a version, and its model with the last one; says dropped, missing, used, serving, way back or default.';

CREATE OR REPLACE FUNCTION pgml_tune._write_setting(name text, value text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Those that settings.py has for superusers.
    IF _write_setting.name = ANY ('{sql_functions,sql_foreign_tables,sql_endpoint,ask_privileged}') THEN
        RAISE EXCEPTION 'permission denied for setting "%"', _write_setting.name USING ERRCODE = '42501';
    END IF;
    DELETE FROM pgml_tune.setting AS s WHERE s.name = _write_setting.name AND _write_setting.value IS NULL;
    INSERT INTO pgml_tune.setting AS s (name, value)
    SELECT _write_setting.name, _write_setting.value WHERE _write_setting.value IS NOT NULL
    ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE
        SET value = excluded.value, changed_by = session_user, changed_at = now();
END
$$;
COMMENT ON FUNCTION pgml_tune._write_setting(text, text) IS 'Sets a setting, or with NULL takes it back to its default.';

-- With the rights of the caller: nobody but a superuser may write the table.
CREATE OR REPLACE FUNCTION pgml_tune._write_superuser_setting(name text, value text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'permission denied for setting "%"', _write_superuser_setting.name
            USING ERRCODE = '42501', DETAIL = 'It takes a superuser.';
    END IF;
    DELETE FROM pgml_tune.setting AS s
    WHERE s.name = _write_superuser_setting.name AND _write_superuser_setting.value IS NULL;
    INSERT INTO pgml_tune.setting AS s (name, value)
    SELECT _write_superuser_setting.name, _write_superuser_setting.value WHERE _write_superuser_setting.value IS NOT NULL
    ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE
        SET value = excluded.value, changed_by = session_user, changed_at = now();
END
$$;
COMMENT ON FUNCTION pgml_tune._write_superuser_setting(text, text) IS
    'Sets a setting that only a superuser may set, or with NULL takes it back to its default.';

CREATE OR REPLACE FUNCTION pgml_tune._read_cache(entry_keys bytea[], generations integer[])
RETURNS bytea[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off  -- an empty generation has no statistics, and a full one is not for scanning
AS $$
DECLARE
    v_vectors bytea[] := array_fill(NULL::bytea, ARRAY[cardinality(entry_keys)]);
    v_vector bytea;
    v_key bytea;
    v_place integer;
    v_missing integer := cardinality(entry_keys);
    v_generation integer;
BEGIN
    FOREACH v_generation IN ARRAY generations LOOP
        v_place := 0;
        FOREACH v_key IN ARRAY entry_keys LOOP
            v_place := v_place + 1;
            CONTINUE WHEN v_vectors[v_place] IS NOT NULL;
            -- A plan for each table: for one key a tenth of the time of their union.
            CASE v_generation
                WHEN 0 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_0 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 1 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_1 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 2 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_2 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 3 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_3 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 4 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_4 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 5 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_5 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 6 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_6 AS e WHERE e.entry_key = v_key LIMIT 1;
                WHEN 7 THEN
                    SELECT e.sealed INTO v_vector FROM pgml_tune.cache_entry_7 AS e WHERE e.entry_key = v_key LIMIT 1;
            END CASE;
            IF FOUND THEN
                v_vectors[v_place] := v_vector;
                v_missing := v_missing - 1;
            END IF;
        END LOOP;
        EXIT WHEN v_missing = 0;
    END LOOP;
    RETURN v_vectors;
END
$$;
COMMENT ON FUNCTION pgml_tune._read_cache(bytea[], integer[]) IS
    'Vectors of these keys that some generations hold, in the order of the keys, NULL where there is none; a key can be computed only with the secret.';

CREATE OR REPLACE FUNCTION pgml_tune._generation_bytes()
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT s.value::bigint FROM pgml_tune.setting AS s WHERE s.name = 'table_cache_bytes'),
        1073741824  -- the default in settings.py
    ) / 8
$$;
COMMENT ON FUNCTION pgml_tune._generation_bytes() IS 'Bytes from which on a generation of the table cache is full.';

CREATE OR REPLACE FUNCTION pgml_tune._write_cache(
    entry_keys bytea[], version_ids bigint[], role_ids bigint[], vectors bytea[]
)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_full bigint := pgml_tune._generation_bytes();
    v_generation integer;
    v_written integer;
BEGIN
    IF coalesce(cardinality(entry_keys), 0) = 0 OR cardinality(entry_keys) > 1024 THEN
        RETURN 0;
    END IF;
    -- The first generation, from the oldest on, that is not full; when all are, maintain() has to empty one.
    SELECT (r.oldest + g.step) % 8 INTO v_generation
    FROM pgml_tune.cache_ring AS r, generate_series(0, 7) AS g (step)
    WHERE pg_total_relation_size(format('pgml_tune.cache_entry_%s', (r.oldest + g.step) % 8)::regclass) < v_full
    ORDER BY g.step
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    EXECUTE format(
        'INSERT INTO pgml_tune.cache_entry_%s (entry_key, model_version_id, role_id, sealed)
         SELECT e.entry_key, e.version_id, e.role_id::oid, e.sealed
         FROM unnest($1, $2, $3, $4) AS e (entry_key, version_id, role_id, sealed)
         WHERE octet_length(e.entry_key) = 32 AND octet_length(e.sealed) <= 65536
           AND EXISTS (SELECT FROM pgml_tune.model_version AS v WHERE v.model_version_id = e.version_id)',
        v_generation
    ) USING entry_keys, version_ids, role_ids, vectors;
    GET DIAGNOSTICS v_written = ROW_COUNT;
    RETURN v_written;
END
$$;
COMMENT ON FUNCTION pgml_tune._write_cache(bytea[], bigint[], bigint[], bytea[]) IS
    'Adds entries to the table cache and says how many; 0 when it is full.';

CREATE OR REPLACE FUNCTION pgml_tune._write_counts(counts jsonb)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.call_count (
        model_version_id, calls, texts, session_hits, table_hits, truncated, tokens, compute_ms,
        errors, total_ms, square_ms, min_ms, max_ms
    )
    -- Whoever may embed may call this: no number is so large that a sum of them could overflow.
    SELECT c.model_version_id, least(c.calls, 1e9), least(c.texts, 1e9), least(c.session_hits, 1e9),
           least(c.table_hits, 1e9), least(c.truncated, 1e9), least(c.tokens, 1e12), least(c.compute_ms, 1e9),
           least(c.errors, 1e9), least(c.total_ms, 1e12), least(c.square_ms, 1e18), least(c.min_ms, 1e9), least(c.max_ms, 1e9)
    FROM jsonb_to_recordset(counts) AS c (
        model_version_id bigint, calls bigint, texts bigint, session_hits bigint, table_hits bigint,
        truncated bigint, tokens bigint, compute_ms double precision,
        errors bigint, total_ms double precision, square_ms double precision, min_ms double precision, max_ms double precision
    )
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    WHERE least(c.calls, c.texts, c.session_hits, c.table_hits, c.truncated, c.tokens, c.errors) >= 0
      AND least(c.compute_ms, c.total_ms, c.square_ms, c.min_ms, c.max_ms) >= 0
      AND greatest(c.compute_ms, c.total_ms, c.square_ms, c.min_ms, c.max_ms) <= 1e300
    LIMIT 64;
$$;
COMMENT ON FUNCTION pgml_tune._write_counts(jsonb) IS 'Adds what a session has counted since its last flush.';

CREATE OR REPLACE FUNCTION pgml_tune._write_hits(entry_keys bytea[], hits bigint[])
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.cache_hit (entry_key, hits)
    SELECT h.entry_key, least(h.hits, 1e9) FROM unnest(entry_keys, hits) AS h (entry_key, hits)
    WHERE octet_length(h.entry_key) = 32 AND h.hits > 0
    LIMIT 1024;
$$;
COMMENT ON FUNCTION pgml_tune._write_hits(bytea[], bigint[]) IS 'Adds how often a session has found entries of the table cache.';

CREATE OR REPLACE FUNCTION pgml_tune._purge_cache(
    version_ids bigint[], role_id oid, older_than interval, min_hits bigint, max_bytes bigint
)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_condition text := '($1 IS NULL OR e.model_version_id = ANY ($1)) AND ($2 IS NULL OR e.role_id = $2)
        AND ($3 IS NULL OR clock_timestamp() - e.cached_at > $3) AND ($4 IS NULL OR $4 > coalesce(
            (SELECT sum(h.hits) FROM pgml_tune.cache_hit AS h WHERE h.entry_key = e.entry_key), 0))';
    v_newest timestamptz := 'infinity';  -- to be deleted
    v_excess bigint;
    v_deleted bigint;
    v_total bigint := 0;
BEGIN
    IF max_bytes IS NOT NULL THEN
        SELECT sum(e.bytes) - max_bytes INTO v_excess FROM pgml_tune._cache_entries AS e;
        IF v_excess IS NULL OR v_excess <= 0 THEN
            RETURN 0;
        END IF;
        EXECUTE format(
            'SELECT coalesce(min(o.cached_at) FILTER (WHERE o.freed >= $5), ''infinity'')
             FROM (
                 SELECT e.cached_at, sum(e.bytes) OVER (ORDER BY e.cached_at) AS freed
                 FROM pgml_tune._cache_entries AS e WHERE %s
             ) AS o',
            v_condition
        ) INTO v_newest USING version_ids, role_id, older_than, min_hits, v_excess;
    END IF;
    FOR v_generation IN 0 .. 7 LOOP
        EXECUTE format(
            'DELETE FROM pgml_tune.cache_entry_%s AS e WHERE %s AND e.cached_at <= $5', v_generation, v_condition
        ) USING version_ids, role_id, older_than, min_hits, v_newest;
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_total := v_total + v_deleted;
    END LOOP;
    RETURN v_total;
END
$$;
COMMENT ON FUNCTION pgml_tune._purge_cache(bigint[], oid, interval, bigint, bigint) IS
    'Deletes entries of these versions and this role, older and less often found than that, until the rest is small enough; NULL sets no condition.';

CREATE OR REPLACE FUNCTION pgml_tune._rotate_cache()
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_oldest integer;
    v_newest integer;
BEGIN
    SELECT r.oldest INTO STRICT v_oldest FROM pgml_tune.cache_ring AS r FOR UPDATE NOWAIT;
    v_newest := (v_oldest + 7) % 8;
    IF pg_total_relation_size(format('pgml_tune.cache_entry_%s', v_newest)::regclass) < pgml_tune._generation_bytes() THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE pgml_tune.cache_entry_%s IN ACCESS EXCLUSIVE MODE NOWAIT', v_oldest);
    EXECUTE format('TRUNCATE pgml_tune.cache_entry_%s', v_oldest);
    UPDATE pgml_tune.cache_ring SET oldest = (v_oldest + 1) % 8;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._rotate_cache() IS 'Empties the oldest generation if the newest is full; never waits for a lock.';

CREATE OR REPLACE FUNCTION pgml_tune._compact_counts()
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (DELETE FROM pgml_tune.call_count RETURNING *)
    INSERT INTO pgml_tune.call_count (
        model_version_id, calls, texts, session_hits, table_hits, truncated, tokens, compute_ms, recorded_at,
        errors, total_ms, square_ms, min_ms, max_ms
    )
    SELECT g.model_version_id, sum(g.calls), sum(g.texts), sum(g.session_hits), sum(g.table_hits),
           sum(g.truncated), sum(g.tokens), sum(g.compute_ms), min(g.recorded_at),
           sum(g.errors), sum(g.total_ms), sum(g.square_ms), coalesce(min(g.min_ms) FILTER (WHERE g.calls > 0), 0), max(g.max_ms)
    FROM gone AS g GROUP BY g.model_version_id;

    WITH gone AS (DELETE FROM pgml_tune.cache_hit RETURNING *)
    INSERT INTO pgml_tune.cache_hit (entry_key, hits)
    SELECT g.entry_key, sum(g.hits)
    FROM gone AS g
    WHERE EXISTS (SELECT FROM pgml_tune._cache_entries AS e WHERE e.entry_key = g.entry_key)
    GROUP BY g.entry_key;
$$;
COMMENT ON FUNCTION pgml_tune._compact_counts() IS
    'Adds up the flushed counters to one row per version, and the hits to one per entry of the table cache.';

