-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pgml_tune" to load this file. \quit

-- Whoever may create objects in the target schema could put his own embed() in front of ours, and so could its owner.
DO $guard$
DECLARE
    v_owner oid;
    v_acl aclitem[];
    v_others text;
BEGIN
    SELECT n.nspowner, n.nspacl INTO STRICT v_owner, v_acl
    FROM pg_catalog.pg_namespace AS n
    WHERE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.=) '@extschema@';

    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.oid OPERATOR(pg_catalog.=) v_owner
          AND (
              r.rolsuper
              OR r.rolname OPERATOR(pg_catalog.=) current_user
              OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
              OR r.oid OPERATOR(pg_catalog.=) (
                  SELECT d.datdba FROM pg_catalog.pg_database AS d
                  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
              )
          )
    ) THEN
        RAISE EXCEPTION 'schema % is owned by a role that could replace functions of pgml_tune', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = pg_catalog.format('Its owner is %s.', pg_catalog.pg_get_userbyid(v_owner)),
                  HINT = pg_catalog.format('ALTER SCHEMA %s OWNER TO %I', '@extschema@', current_user);
    END IF;

    SELECT pg_catalog.string_agg(
        DISTINCT CASE
            WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
        END, ', '
    ) INTO v_others
    FROM pg_catalog.aclexplode(v_acl) AS a
    WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
      AND a.grantee OPERATOR(pg_catalog.<>) v_owner
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_roles AS r
          WHERE r.oid OPERATOR(pg_catalog.=) a.grantee AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user)
      );
    IF v_others IS NOT NULL THEN
        RAISE EXCEPTION 'others may create objects in schema %', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = 'They could put functions of their own in front of those of pgml_tune.',
                  HINT = pg_catalog.format('REVOKE CREATE ON SCHEMA %s FROM %s', '@extschema@', v_others);
    END IF;

    -- What somebody left there may win against our function of the same name: a closer match of the argument types does.
    SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ') INTO v_others
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.=) '@extschema@'
      AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[
          'embed', 'embed_pinned', 'semantic_similarity', 'token_count', 'last_call_id',
          'register_model', 'drop_model_version', 'cache_purge', 'configure', 'doctor',
          'maintain', 'grant_usage', 'grant_operate', 'grant_admin'
      ]::pg_catalog.name[])
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
          WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid OPERATOR(pg_catalog.=) p.oid
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND e.extname OPERATOR(pg_catalog.=) 'pgml_tune'
      );
    IF v_others IS NOT NULL THEN
        RAISE EXCEPTION 'schema % holds functions with names of pgml_tune', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = pg_catalog.format('They are: %s.', v_others),
                  HINT = pg_catalog.format('DROP ROUTINE %s', v_others);
    END IF;
END
$guard$;

CREATE SCHEMA pgml_tune;
COMMENT ON SCHEMA pgml_tune IS 'State and views of the extension pgml_tune.';

CREATE TYPE pgml_tune.version_state AS ENUM (
    'registered',  -- known, not yet to be served
    'ready'        -- servable; the row is frozen from here on
);
COMMENT ON TYPE pgml_tune.version_state IS 'Where a model version stands in its life.';

CREATE TABLE pgml_tune.setting (
    name       text PRIMARY KEY,
    value      text NOT NULL,
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgml_tune.setting IS 'Settings that differ from their default; written by configure().';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.setting', '');

CREATE TABLE pgml_tune.model (
    model_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    task        text NOT NULL,
    description text,  -- NULL: nobody gave one
    created_by  text NOT NULL DEFAULT session_user,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_name_key UNIQUE (name),
    CONSTRAINT model_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$' AND name !~ '\.\.'),
    CONSTRAINT model_task_check CHECK (task IN ('embedding'))
);
COMMENT ON TABLE pgml_tune.model IS 'A named model; its versions are in pgml_tune.model_version.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_model_id_seq', '');

CREATE TABLE pgml_tune.model_version (
    model_version_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id           bigint NOT NULL,
    version            text NOT NULL,
    state              pgml_tune.version_state NOT NULL DEFAULT 'registered',
    artifact_sha256    text NOT NULL,
    space_id           text NOT NULL,
    dimensions         integer NOT NULL,
    max_tokens         integer NOT NULL,
    storage            text NOT NULL,
    bytes              bigint NOT NULL,
    is_batch_invariant boolean NOT NULL,
    base_version       text,  -- NULL: not derived from another version; stays when that one is dropped
    metrics            jsonb NOT NULL DEFAULT '{}',
    source             jsonb NOT NULL DEFAULT '{}',
    created_by         text NOT NULL DEFAULT session_user,
    created_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_version_model_id_version_key UNIQUE (model_id, version),
    CONSTRAINT model_version_model_id_fkey FOREIGN KEY (model_id) REFERENCES pgml_tune.model,
    CONSTRAINT model_version_version_check CHECK (version ~ '^[a-z0-9][a-z0-9_.-]{0,62}$' AND version !~ '\.\.'),
    CONSTRAINT model_version_artifact_sha256_check CHECK (artifact_sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT model_version_dimensions_check CHECK (dimensions BETWEEN 1 AND 16000)
);
COMMENT ON TABLE pgml_tune.model_version IS 'An immutable version of a model: which artifact it is and which vectors it makes.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_version', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_version_model_version_id_seq', '');

CREATE FUNCTION pgml_tune._freeze_model_version()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.state = 'ready' AND to_jsonb(OLD) - 'state' IS DISTINCT FROM to_jsonb(NEW) - 'state' THEN
        RAISE EXCEPTION 'version "%" is ready and cannot be changed', OLD.version
            USING ERRCODE = '55000', HINT = 'Register the changed model as a new version.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER model_version_freeze BEFORE UPDATE ON pgml_tune.model_version
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._freeze_model_version();

-- One row answers a call: what it copies from model and model_version never changes there.
CREATE TABLE pgml_tune.serving (
    model_id         bigint PRIMARY KEY,
    model            text NOT NULL,
    task             text NOT NULL,
    model_version_id bigint NOT NULL,
    artifact_sha256  text NOT NULL,
    dimensions       integer NOT NULL,
    default_of       text,  -- the task whose calls without a model come here; NULL: none
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT serving_model_key UNIQUE (model),
    CONSTRAINT serving_default_of_key UNIQUE (default_of),
    CONSTRAINT serving_default_of_check CHECK (default_of = task),
    CONSTRAINT serving_model_id_fkey FOREIGN KEY (model_id) REFERENCES pgml_tune.model,
    CONSTRAINT serving_model_version_id_fkey FOREIGN KEY (model_version_id) REFERENCES pgml_tune.model_version
);
COMMENT ON TABLE pgml_tune.serving IS 'Which version a model name without a version means, and which model a call without a model.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving', '');

CREATE TABLE pgml_tune.serving_history (
    serving_history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pointer            text NOT NULL,  -- the model name, or the task whose default moved
    kind               text NOT NULL,
    from_target        text,  -- NULL: the pointer did not exist
    to_target          text,  -- NULL: the pointer was removed
    reason             text,  -- NULL: none was given
    changed_by         text NOT NULL DEFAULT session_user,
    changed_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT serving_history_kind_check CHECK (kind IN ('version', 'default'))
);
COMMENT ON TABLE pgml_tune.serving_history IS 'Every move of a pointer of the registry: what it meant before and after, who and when.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving_history', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving_history_serving_history_id_seq', '');

CREATE FUNCTION pgml_tune._refuse_change()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'table "%" is append-only', TG_TABLE_NAME USING ERRCODE = '55000';
END
$$;
CREATE TRIGGER serving_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON pgml_tune.serving_history
    FOR EACH STATEMENT EXECUTE FUNCTION pgml_tune._refuse_change();

-- Eight fixed generations: an entry is only ever added, and a whole generation is emptied at once.
-- Unlogged and not dumped: everything in them can be computed again.
DO $$
BEGIN
    FOR v_generation IN 0 .. 7 LOOP
        EXECUTE pg_catalog.format($table$
            CREATE UNLOGGED TABLE pgml_tune.cache_entry_%1$s (
                entry_key        bytea NOT NULL,  -- HMAC of scope, artifact, prompt and text; never the text
                model_version_id bigint NOT NULL,
                role_id          oid NOT NULL,
                sealed           bytea NOT NULL  -- the vector, masked and signed under the secret
            );
            ALTER TABLE pgml_tune.cache_entry_%1$s ALTER COLUMN sealed SET STORAGE EXTERNAL;
            COMMENT ON TABLE pgml_tune.cache_entry_%1$s IS 'Generation %1$s of the table cache.';
            -- Not unique: two sessions may add the same entry, neither waits for the other.
            CREATE INDEX cache_entry_%1$s_entry_key_idx ON pgml_tune.cache_entry_%1$s (entry_key);
        $table$, v_generation);
    END LOOP;
END
$$;

CREATE TABLE pgml_tune.cache_ring (
    is_single boolean PRIMARY KEY DEFAULT true,
    oldest    integer NOT NULL,
    CONSTRAINT cache_ring_is_single_check CHECK (is_single),
    CONSTRAINT cache_ring_oldest_check CHECK (oldest BETWEEN 0 AND 7)
);
COMMENT ON TABLE pgml_tune.cache_ring IS 'Which generation of the table cache is emptied next; moved by maintain() only.';
INSERT INTO pgml_tune.cache_ring (oldest) VALUES (0);

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
    recorded_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgml_tune.call_count IS 'Calls and cache hits per model version, as flushed by the sessions.';

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

    INSERT INTO pgml_tune.serving AS s (model_id, model, task, model_version_id, artifact_sha256, dimensions)
    SELECT m.model_id, m.name, m.task, v.model_version_id, v.artifact_sha256, v.dimensions
    FROM pgml_tune.model_version AS v
    JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE v.model_version_id = _move_serving.model_version_id
      AND v.model_id = _move_serving.model_id
      AND v.state = 'ready'
    ON CONFLICT (model_id) DO UPDATE SET
        model_version_id = excluded.model_version_id,
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

CREATE OR REPLACE FUNCTION pgml_tune._register_version(
    model text, task text, description text, version text, base text, artifact_sha256 text, bytes bigint, config jsonb
)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
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
    INSERT INTO pgml_tune.model (name, task, description)
    VALUES (_register_version.model, _register_version.task, _register_version.description)
    ON CONFLICT (name) DO NOTHING;
    SELECT m.* INTO STRICT v_model FROM pgml_tune.model AS m WHERE m.name = _register_version.model;
    IF v_model.task <> _register_version.task THEN
        RETURN 'other task';
    END IF;

    IF _register_version.base IS NOT NULL AND NOT EXISTS (
        SELECT FROM pgml_tune.model_version AS v
        WHERE v.model_id = v_model.model_id AND v.version = _register_version.base
    ) THEN
        RETURN 'no base';
    END IF;

    INSERT INTO pgml_tune.model_version (
        model_id, version, state, artifact_sha256, space_id, dimensions, max_tokens, storage, bytes,
        is_batch_invariant, base_version, metrics, source
    )
    SELECT v_model.model_id, _register_version.version, 'ready', _register_version.artifact_sha256, c.space_id,
           c.dimensions, c.max_tokens, c.storage, _register_version.bytes, c.is_batch_invariant, _register_version.base,
           c.metrics, c.source
    FROM jsonb_to_record(_register_version.config) AS c (
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
    SELECT v.model_version_id INTO v_version_id
    FROM pgml_tune.model_version AS v
    WHERE v.model_id = v_model.model_id AND v.version = _drop_version.version;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;

    v_is_last := NOT EXISTS (
        SELECT FROM pgml_tune.model_version AS v
        WHERE v.model_id = v_model.model_id AND v.model_version_id <> v_version_id
    );
    IF NOT v_is_last AND EXISTS (SELECT FROM pgml_tune.serving AS s WHERE s.model_version_id = v_version_id) THEN
        RETURN 'serving';
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
        INSERT INTO pgml_tune.serving_history (pointer, kind, from_target, reason)
        VALUES (v_model.name, 'version', _drop_version.version, 'last version dropped');
    END IF;
    DELETE FROM pgml_tune.model_version AS v WHERE v.model_version_id = v_version_id;
    IF v_is_last THEN
        DELETE FROM pgml_tune.model AS m WHERE m.model_id = v_model.model_id;
    END IF;
    RETURN 'dropped';
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_version(text, text) IS
    'Removes a version, and its model with the last one; says dropped, missing, serving or default.';

CREATE OR REPLACE FUNCTION pgml_tune._write_setting(name text, value text)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM pgml_tune.setting AS s WHERE s.name = _write_setting.name AND _write_setting.value IS NULL;
    INSERT INTO pgml_tune.setting AS s (name, value)
    SELECT _write_setting.name, _write_setting.value WHERE _write_setting.value IS NOT NULL
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed_by = session_user, changed_at = now();
$$;
COMMENT ON FUNCTION pgml_tune._write_setting(text, text) IS 'Sets a setting, or with NULL takes it back to its default.';

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
        model_version_id, calls, texts, session_hits, table_hits, truncated, tokens, compute_ms
    )
    -- Whoever may embed may call this: no number is so large that a sum of them could overflow.
    SELECT c.model_version_id, least(c.calls, 1e9), least(c.texts, 1e9), least(c.session_hits, 1e9),
           least(c.table_hits, 1e9), least(c.truncated, 1e9), least(c.tokens, 1e12), least(c.compute_ms, 1e9)
    FROM jsonb_to_recordset(counts) AS c (
        model_version_id bigint, calls bigint, texts bigint, session_hits bigint, table_hits bigint,
        truncated bigint, tokens bigint, compute_ms double precision
    )
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    WHERE least(c.calls, c.texts, c.session_hits, c.table_hits, c.truncated, c.tokens) >= 0
      AND c.compute_ms BETWEEN 0 AND 1e300
    LIMIT 64;
$$;
COMMENT ON FUNCTION pgml_tune._write_counts(jsonb) IS 'Adds what a session has counted since its last flush.';

CREATE OR REPLACE FUNCTION pgml_tune._purge_cache(version_ids bigint[], role_id oid)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_deleted bigint;
    v_total bigint := 0;
BEGIN
    FOR v_generation IN 0 .. 7 LOOP
        EXECUTE format(
            'DELETE FROM pgml_tune.cache_entry_%s AS e
             WHERE ($1 IS NULL OR e.model_version_id = ANY ($1)) AND ($2 IS NULL OR e.role_id = $2)',
            v_generation
        ) USING version_ids, role_id;
        GET DIAGNOSTICS v_deleted = ROW_COUNT;
        v_total := v_total + v_deleted;
    END LOOP;
    RETURN v_total;
END
$$;
COMMENT ON FUNCTION pgml_tune._purge_cache(bigint[], oid) IS 'Deletes entries of these versions and this role; NULL means all.';

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
        model_version_id, calls, texts, session_hits, table_hits, truncated, tokens, compute_ms, recorded_at
    )
    SELECT g.model_version_id, sum(g.calls), sum(g.texts), sum(g.session_hits), sum(g.table_hits),
           sum(g.truncated), sum(g.tokens), sum(g.compute_ms), min(g.recorded_at)
    FROM gone AS g GROUP BY g.model_version_id;
$$;
COMMENT ON FUNCTION pgml_tune._compact_counts() IS 'Adds up the flushed counters to one row per version.';

CREATE OR REPLACE FUNCTION @extschema@.embed(input text, model text DEFAULT NULL, kind text DEFAULT 'passage')
RETURNS vector
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed(input, model, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed(text, text, text) IS
    'Embedding of a text under a model (name or name@version; NULL: the default) as a vector of its dimensions; kind is passage or query.';

CREATE OR REPLACE FUNCTION @extschema@.embed(inputs text[], model text DEFAULT NULL, kind text DEFAULT 'passage')
RETURNS vector[]
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_many(inputs, model, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed(text[], text, text) IS
    'Embeddings of many texts, computed in batches: same order and length as the input, NULL for NULL.';

CREATE OR REPLACE FUNCTION pgml_tune._embed_passages(
    texts text[], model text, chunk_tokens integer, chunk_overlap integer
)
RETURNS TABLE (text_no integer, chunk_no integer, embedding vector)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000 ROWS 1000  -- not STRICT: no chunk_tokens, one chunk per text
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_passages(texts, model, chunk_tokens, chunk_overlap)
$python$;
COMMENT ON FUNCTION pgml_tune._embed_passages(text[], text, integer, integer) IS
    'Embeddings of texts in chunks of at most so many tokens, numbered from 1 in each text; NULL for chunk_tokens is one chunk per text.';

CREATE OR REPLACE FUNCTION @extschema@.embed_pinned(input text, model text, version text, kind text DEFAULT 'passage')
RETURNS vector
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_pinned(input, model, version, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed_pinned(text, text, text, text) IS
    'Embedding of a text under one immutable version; reads no table, so it may stand in generated columns and index expressions.';

CREATE OR REPLACE FUNCTION @extschema@.semantic_similarity(a text, b text, model text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 20000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.semantic_similarity(a, b, model)
$python$;
COMMENT ON FUNCTION @extschema@.semantic_similarity(text, text, text) IS
    'Cosine of the embeddings of two texts, from -1 to 1; higher means closer in meaning.';

CREATE OR REPLACE FUNCTION @extschema@.token_count(input text, model text DEFAULT NULL)
RETURNS integer
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 1000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.token_count(input, model)
$python$;
COMMENT ON FUNCTION @extschema@.token_count(text, text) IS
    'Tokens of a text for a model, its special tokens included and nothing cut; beyond max_tokens of the version embed() cuts.';

CREATE OR REPLACE FUNCTION @extschema@.last_call_id()
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.last_call_id()
$python$;
COMMENT ON FUNCTION @extschema@.last_call_id() IS
    'Identifier of the last inference call of this session; NULL before the first.';

CREATE OR REPLACE FUNCTION @extschema@.register_model(
    name text, artifact text, task text, version text DEFAULT NULL, options jsonb DEFAULT '{}'
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import registry
return registry.register_model(name, artifact, task, version, options)
$python$;
COMMENT ON FUNCTION @extschema@.register_model(text, text, text, text, jsonb) IS
    'Adds a version to a model and returns its name; artifact is a sha256 below the model root or a name@version bound there; options: description, base.';

CREATE OR REPLACE FUNCTION @extschema@.drop_model_version(name text, version text)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import registry
return registry.drop_model_version(name, version)
$python$;
COMMENT ON FUNCTION @extschema@.drop_model_version(text, text) IS
    'Removes a version that does not serve, and the model with its last version; files stay, for embed_pinned().';

CREATE OR REPLACE FUNCTION @extschema@.cache_purge(model text DEFAULT NULL, role regrole DEFAULT NULL)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.cache_purge(model, role)
$python$;
COMMENT ON FUNCTION @extschema@.cache_purge(text, regrole) IS
    'Deletes cached vectors of a model (name or name@version) and a role, NULL meaning all, and returns how many; other sessions keep theirs in memory until they end.';

CREATE OR REPLACE FUNCTION pgml_tune._pending_counts()
RETURNS jsonb
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.pending_counts()
$python$;
COMMENT ON FUNCTION pgml_tune._pending_counts() IS 'What this session has counted and not yet flushed.';

CREATE OR REPLACE FUNCTION @extschema@.configure(name text, value text)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.configure(name, value)
$python$;
COMMENT ON FUNCTION @extschema@.configure(text, text) IS
    'Sets a setting for the whole database from the next statement on, NULL taking it back to its default, and returns the value in force; see pgml_tune.settings.';

CREATE OR REPLACE FUNCTION pgml_tune._settings()
RETURNS TABLE (name text, value text, default_value text, valid text, trades text)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.settings()
$python$;
COMMENT ON FUNCTION pgml_tune._settings() IS 'Every setting with its value, default, range and what it trades.';

CREATE OR REPLACE FUNCTION @extschema@.doctor()
RETURNS TABLE (check_name text, status text, detail text, fix text)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.doctor()
$python$;
COMMENT ON FUNCTION @extschema@.doctor() IS
    'One row per check of the installation: ok, warn or fail, what was found, and the command or statement that mends it.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.maintain()
LANGUAGE plpgsql
AS $$
BEGIN
    BEGIN
        IF pgml_tune._rotate_cache() THEN
            RAISE NOTICE 'table cache: oldest generation emptied';
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'table cache: oldest generation is in use, left for the next run';
    END;
    -- At once, because of the lock on the emptied table; in a transaction block this is an error that lets go of it.
    COMMIT;
    PERFORM pgml_tune._compact_counts();
END
$$;
COMMENT ON PROCEDURE @extschema@.maintain() IS
    'Empties the oldest generation of the table cache when the cache is full and adds up the counters; run it every few minutes, outside a transaction block.';

CREATE OR REPLACE FUNCTION pgml_tune._grant(role regrole, level text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_role text := role::text;
    v_statement text;
BEGIN
    IF role IS NULL OR role = 0::regrole OR NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = role::oid) THEN
        RAISE EXCEPTION 'there is no such role' USING ERRCODE = '42704', HINT = 'SELECT rolname FROM pg_roles';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_extension AS e
        WHERE e.extname = 'pgml_tune' AND pg_has_role(current_user, e.extowner, 'USAGE')
    ) THEN
        RAISE EXCEPTION 'only the owner of extension "pgml_tune" may grant its use'
            USING ERRCODE = '42501', HINT = format('SET ROLE %s', (
                SELECT quote_ident(pg_get_userbyid(e.extowner)) FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
            ));
    END IF;
    FOR v_statement IN
        SELECT format('GRANT %s ON %s TO %s', p.privilege, p.object, v_role)
        FROM pgml_tune._privilege AS p
        WHERE array_position('{usage,operate,admin}', p.level) <= array_position('{usage,operate,admin}', _grant.level)
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._grant(regrole, text) IS 'Grants a role all that a level, and the levels below it, needs.';

CREATE OR REPLACE FUNCTION @extschema@.grant_usage(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'usage') $$;
COMMENT ON FUNCTION @extschema@.grant_usage(regrole) IS
    'Lets a role embed texts and read the registry, and nothing else; call it as owner of the extension.';

CREATE OR REPLACE FUNCTION @extschema@.grant_operate(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'operate') $$;
COMMENT ON FUNCTION @extschema@.grant_operate(regrole) IS
    'Lets a role do what grant_usage() gives, read the statistics and run maintain().';

CREATE OR REPLACE FUNCTION @extschema@.grant_admin(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'admin') $$;
COMMENT ON FUNCTION @extschema@.grant_admin(regrole) IS
    'Lets a role do what grant_operate() gives, register and drop versions, change settings, purge the cache and run doctor().';

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

-- Functions are granted to PUBLIC when they are made, and default privileges may grant more; nothing of ours is granted to
-- anybody but its owner. Roles get their rights by grant_usage() and its kin.
DO $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        WITH member AS (
            SELECT d.classid, d.objid
            FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pgml_tune'
            WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
        ), granted AS (
            SELECT 'ROUTINE ' || p.oid::regprocedure AS object, p.proowner AS owner,
                   coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
            FROM pg_catalog.pg_proc AS p
            JOIN member AS m ON m.objid = p.oid AND m.classid = 'pg_catalog.pg_proc'::regclass
            UNION ALL
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, c.relowner, c.relacl
            FROM pg_catalog.pg_class AS c
            JOIN member AS m ON m.objid = c.oid AND m.classid = 'pg_catalog.pg_class'::regclass
            UNION ALL
            SELECT 'SCHEMA pgml_tune', n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'pgml_tune'
        )
        SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s', g.object,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM granted AS g, LATERAL pg_catalog.aclexplode(g.acl) AS a
        WHERE a.grantee <> g.owner
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
