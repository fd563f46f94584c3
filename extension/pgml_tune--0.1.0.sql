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
          'embed', 'embed_pinned', 'semantic_similarity', 'token_count', 'last_call_id', 'classify',
          'text_to_sql', 'text_to_sql_candidates', 'add_sql_example', 'drop_sql_example',
          'register_model', 'drop_model_version', 'cache_purge', 'stat_reset', 'configure', 'doctor',
          'embed_table', 'track_column', 'prepare_rollout', 'maintain', 'grant_usage', 'grant_operate', 'grant_admin', 'grant_ask', 'ask',
          'auto_embed', 'drop_auto_embed', 'requeue_failed', 'semantic_search', 'hybrid_search',
          'import_model', 'finetune_sbert', 'finetune_classifier', 'finetune_text_to_sql', 'distill_model', 'quantize_model',
          'export_onnx', 'export_tensorrt', 'evaluate_model', 'tune_engine', 'reset_engine', 'model_card', 'cancel_job', 'job_log',
          'rollout_model', 'rollback_model', 'rollout_explain', 'rollout_tick',
          'ab_report', 'ab_selftest', 'record_feedback', 'quality_report', 'drift_report'
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

CREATE SCHEMA pgml_tune_scratch;
COMMENT ON SCHEMA pgml_tune_scratch IS
    'Where views are made to learn what a query means, by whoever asks; always empty, since they are rolled back.';

CREATE TYPE pgml_tune.version_state AS ENUM (
    'registered',  -- known, not yet to be served
    'ready'        -- servable; the row is frozen from here on
);
COMMENT ON TYPE pgml_tune.version_state IS 'Where a model version stands in its life.';


CREATE TYPE pgml_tune.rollout_state AS ENUM ('running', 'paused', 'promoted', 'rolled_back');
COMMENT ON TYPE pgml_tune.rollout_state IS
    'Life of a rollout: a share of the units goes to the candidate (running, or held until somebody looks: paused) until it serves all or none.';
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
    CONSTRAINT model_task_check CHECK (task IN ('embedding', 'classification', 'text_to_sql'))
);
-- No foreign key leads from one of these tables to another: a parallel restore fills them in any order. The functions that
-- write them hold the locks that keep them together.
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
    version          text NOT NULL,
    artifact_sha256  text NOT NULL,
    dimensions       integer NOT NULL,
    default_of       text,  -- the task whose calls without a model come here; NULL: none
    wanted_version_id bigint,  -- the collections search with it already; NULL: plain embed() does, too
    rollout_id       bigint,  -- the one that runs, in this space or into another; NULL: none
    phase            integer,  -- counts the shares that it has had; NULL: none runs
    share            integer,  -- units of 10,000 that go to the candidate; NULL: none runs
    salt             text,  -- which units those are; NULL: none runs
    candidate_version_id bigint,  -- of the same space, so that calls can go to it; NULL: none
    candidate_version    text,
    candidate_sha256     text,
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT serving_share_check CHECK (share BETWEEN 0 AND 10000),
    CONSTRAINT serving_model_key UNIQUE (model),
    CONSTRAINT serving_default_of_key UNIQUE (default_of),
    CONSTRAINT serving_default_of_check CHECK (default_of = task)
);
COMMENT ON TABLE pgml_tune.serving IS 'Which version a model name without a version means, and which model a call without a model.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving', '');

CREATE TABLE pgml_tune.serving_history (
    serving_history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pointer            text NOT NULL,  -- the model name, the task whose default moved, or the collection
    kind               text NOT NULL,
    from_target        text,  -- NULL: the pointer did not exist
    to_target          text,  -- NULL: the pointer was removed
    reason             text,  -- NULL: none was given
    rollout_id         bigint,  -- NULL: no rollout did it
    undoes             bigint,  -- the move that this one takes back; NULL: none
    part_of            bigint,  -- the move of the model that took this collection along; NULL: none
    changed_by         text NOT NULL DEFAULT session_user,
    changed_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT serving_history_kind_check CHECK (kind IN ('version', 'default', 'share', 'collection', 'catalog', 'vectors'))
);
-- version: which version answers; share: of which part of the units a candidate answers, in percent; collection: which version its searches go to; catalog: plain embed(), views
-- and query functions have followed; vectors: the vectors of a collection in a space were dropped.
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
                sealed           bytea NOT NULL,  -- the vector, masked and signed under the secret
                cached_at        timestamptz NOT NULL DEFAULT clock_timestamp()
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


-- Added by the sessions as rows, so that nobody waits for a row; summed by maintain(), which forgets entries that are gone.
CREATE UNLOGGED TABLE pgml_tune.cache_hit (
    entry_key bytea NOT NULL,
    hits      bigint NOT NULL
);
COMMENT ON TABLE pgml_tune.cache_hit IS 'How often entries of the table cache were found; those never found have no row.';
-- cache_purge() asks for the hits of each entry.
CREATE INDEX cache_hit_entry_key_idx ON pgml_tune.cache_hit (entry_key);
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

-- One row for each space that a collection has vectors in; pgml_tune.collection_route says which of them answer.
-- The row is what the owner of the source wants, and his consent: only he may add or remove it. The SECURITY DEFINER functions
-- of functions/collection.sql bring the catalog to what a row says, whoever calls them.
CREATE TABLE pgml_tune.collection (
    collection_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL,
    source           regclass NOT NULL,
    source_column    text NOT NULL,  -- as at set-up; the trigger pgml_tune_<id>_columns follows a rename
    model_version_id bigint NOT NULL,
    model_reference  text NOT NULL,  -- name@version and dimensions of that version, which never change
    dimensions       integer NOT NULL,
    mode             text NOT NULL DEFAULT 'trigger',
    index_method     text NOT NULL,
    storage          text NOT NULL,
    chunk_tokens     integer,  -- NULL: one vector for the whole text
    chunk_overlap    integer NOT NULL,
    batch_size       integer NOT NULL,
    text_search      text,  -- a configuration, qualified where needed; NULL: hybrid_search() is not wanted
    is_ready         boolean NOT NULL DEFAULT false,  -- has been filled once, and is open to searches
    is_filled        boolean NOT NULL DEFAULT false,  -- not while rows of a partition attached since have to be embedded
    embeddings       regclass,  -- the side table; NULL: not built yet
    partitions       oid[],  -- as maintain() last saw them; NULL: there are none
    view_name        regclass,  -- NULL: not filled yet
    query_function   text,  -- with its schema; NULL: not filled yet. pg_upgrade takes no regprocedure or regconfig in a table
    is_twin          boolean NOT NULL DEFAULT false,  -- made by prepare_rollout() beside the vectors that the collection began with
    validation       jsonb,  -- what prepare_rollout() has measured; NULL: nothing
    retired_xid      xid8,  -- of the transaction that has given it up; it is dropped when none is older. NULL: it may answer again
    query_reference  text,  -- name@version in the query function; NULL: it has none now
    created_by       text NOT NULL DEFAULT session_user,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collection_name_model_version_id_key UNIQUE (name, model_version_id),
    CONSTRAINT collection_name_check CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT collection_mode_check CHECK (mode IN ('trigger', 'queue')),
    CONSTRAINT collection_index_method_check CHECK (index_method IN ('auto', 'hnsw', 'none')),
    CONSTRAINT collection_storage_check CHECK (storage IN ('vector', 'halfvec')),
    CONSTRAINT collection_chunk_check CHECK (chunk_overlap >= 0 AND chunk_overlap < coalesce(chunk_tokens, 1)),
    CONSTRAINT collection_batch_size_check CHECK (batch_size BETWEEN 1 AND 100000)
);
COMMENT ON TABLE pgml_tune.collection IS
    'A text column kept embedded: its source, the version and the side table that semantic_search() uses.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.collection', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.collection_collection_id_seq', '');

-- Two rows of one name are two versions of one collection.
CREATE UNIQUE INDEX collection_name_key ON pgml_tune.collection (name) WHERE NOT is_twin;

-- One row answers a search: the model that embeds the question and the vectors it is compared with never part.
CREATE TABLE pgml_tune.collection_route (
    name                text PRIMARY KEY,
    collection_id       bigint NOT NULL,
    model_reference     text NOT NULL,  -- name@version that embeds questions, of the same space as the vectors
    rollout_id          bigint,  -- NULL, as what follows: none runs
    phase               integer,
    share               integer,  -- units of 10,000 that the candidate answers
    salt                text,
    candidate_id        bigint,
    candidate_reference text,
    changed_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collection_route_share_check CHECK (share BETWEEN 0 AND 10000)
);
COMMENT ON TABLE pgml_tune.collection_route IS
    'Which vectors of a collection, and which version for the questions, answer a search, and those that answer the share of a rollout.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.collection_route', '');

-- Not a column of the collection: a fill holds that row as long as a batch takes, and nobody waits for it to go back.
CREATE TABLE pgml_tune.vectors_left (
    collection_id bigint PRIMARY KEY,
    left_at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgml_tune.vectors_left IS
    'Vectors that a rollout or a rollback has led away from, and when; those of others answer, or have not answered yet.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.vectors_left', '');

-- Each time a writer went on although vectors that do not answer could not be made: they lack some rows till they are filled again.
CREATE TABLE pgml_tune.vectors_missed (
    collection_id bigint NOT NULL,
    message       text NOT NULL,
    missed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX vectors_missed_collection_id_idx ON pgml_tune.vectors_missed (collection_id);  -- asked before each promotion
COMMENT ON TABLE pgml_tune.vectors_missed IS
    'Vectors of candidates, prepared and former versions that could not be made; maintain() fills the gaps.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.vectors_missed', '');

CREATE FUNCTION pgml_tune._check_number_owner()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source regclass := (SELECT c.source FROM pgml_tune.collection AS c WHERE c.collection_id = NEW.collection_id);
BEGIN
    IF NOT coalesce(
        (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = v_source),
        (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user)
    ) THEN
        RAISE EXCEPTION 'must be owner of table %', v_source USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_number_owner() IS 'Lets only the owner of a table say by the number of its collection that vectors lack rows, or that it is kept embedded no more.';

CREATE TRIGGER vectors_missed_owner BEFORE INSERT ON pgml_tune.vectors_missed
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_number_owner();

-- Not a row policy: pg_dump writes the policies of an extension's table out, and the restore then fails on the second one.
CREATE FUNCTION pgml_tune._check_collection_owner()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_row pgml_tune.collection := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF NOT coalesce(
        (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = v_row.source),
        (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user)
    ) THEN
        RAISE EXCEPTION 'must be owner of table %', v_row.source USING ERRCODE = '42501';
    END IF;
    -- Else somebody could take the place of another's, though never its searches. A superuser also restores them, in any order.
    IF TG_OP = 'INSERT' AND NEW.is_twin AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user)
       AND NOT EXISTS (SELECT FROM pgml_tune.collection AS c WHERE c.name = NEW.name AND c.source = NEW.source) THEN
        RAISE EXCEPTION 'collection "%" is not of table %', NEW.name, NEW.source USING ERRCODE = '42501';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_collection_owner() IS 'Lets only the owner of a table say that it is kept embedded, and how.';
CREATE FUNCTION pgml_tune._forget_route()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    v_model_id bigint := (SELECT v.model_id FROM pgml_tune.model_version AS v WHERE v.model_version_id = OLD.model_version_id);
BEGIN
    DELETE FROM pgml_tune.collection_route AS r WHERE r.collection_id = OLD.collection_id;
    UPDATE pgml_tune.collection_route AS r
    SET rollout_id = NULL, phase = NULL, share = NULL, salt = NULL, candidate_id = NULL, candidate_reference = NULL
    WHERE r.candidate_id = OLD.collection_id;
    DELETE FROM pgml_tune.vectors_left AS l WHERE l.collection_id = OLD.collection_id;
    DELETE FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = OLD.collection_id;
    -- The worker may hold some, and wait for the table that whoever drops has locked: it clears them away later.
    DELETE FROM pgml_tune.queue AS q WHERE q.ctid = ANY (ARRAY(
        SELECT o.ctid FROM pgml_tune.queue AS o WHERE o.collection_id = OLD.collection_id FOR UPDATE SKIP LOCKED
    ));
    DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = OLD.collection_id;
    IF NOT EXISTS (SELECT FROM pgml_tune._routes(v_model_id)) THEN
        -- There is no view left that it has to stay in step with, and DROP EXTENSION would meet it.
        EXECUTE format('DROP FUNCTION IF EXISTS %s', pgml_tune._serving_function(v_model_id));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._forget_route() IS 'Lets no route lead to vectors that are gone.';
CREATE TRIGGER collection_route AFTER DELETE ON pgml_tune.collection
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._forget_route();

-- Whoever may delete from a table may lock it, and everybody searches by way of this one. A row that is added here is what is to be
-- deleted there: the first trigger runs as whoever adds it, the second deletes, and nothing is kept.
CREATE TABLE pgml_tune.collection_drop (
    collection_id bigint NOT NULL
);
COMMENT ON TABLE pgml_tune.collection_drop IS 'Takes the numbers of collections that their owners drop; always empty.';

CREATE FUNCTION pgml_tune._drop_collection_row()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgml_tune.collection AS c WHERE c.collection_id = NEW.collection_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_collection_row() IS 'Deletes the row of a collection whose owner drops it.';
CREATE TRIGGER collection_drop_1_check BEFORE INSERT ON pgml_tune.collection_drop
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_number_owner();
CREATE TRIGGER collection_drop_2_row BEFORE INSERT ON pgml_tune.collection_drop
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._drop_collection_row();

CREATE TRIGGER collection_owner BEFORE INSERT OR DELETE OR UPDATE OF index_method, batch_size, validation, mode
    ON pgml_tune.collection
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_collection_owner();
-- Keys of rows that the worker has to look at: their text is another, or gone. Rows are added and deleted, never changed, and who
-- writes to a table waits for nobody who reads here.
CREATE TABLE pgml_tune.queue (
    queue_id      bigint GENERATED ALWAYS AS IDENTITY,
    collection_id bigint NOT NULL,
    key           text[] NOT NULL,  -- a value for each column of the key, as PostgreSQL writes it
    tries         integer NOT NULL DEFAULT 0,  -- that have failed
    enqueued_at   timestamptz NOT NULL DEFAULT now(),
    due_at        timestamptz,  -- NULL: at once; else after a failure
    CONSTRAINT queue_pkey PRIMARY KEY (collection_id, queue_id),
    CONSTRAINT queue_key_check CHECK (cardinality(key) > 0 AND array_ndims(key) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE pgml_tune.queue IS 'Rows of collections in mode queue that wait for the worker.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue_queue_id_seq', '');

CREATE TABLE pgml_tune.queue_failure (
    collection_id bigint NOT NULL,
    key           text[] NOT NULL,
    tries         integer NOT NULL,
    sqlstate      text NOT NULL,
    message       text NOT NULL,
    enqueued_at   timestamptz NOT NULL,
    failed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX queue_failure_collection_id_idx ON pgml_tune.queue_failure (collection_id);  -- asked with each batch
COMMENT ON TABLE pgml_tune.queue_failure IS 'Rows that the worker has given up after five tries; see pgml_tune.queue_failures.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue_failure', '');

CREATE FUNCTION pgml_tune._check_queue_owner()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_stranger bigint;
BEGIN
    SELECT q.collection_id INTO v_stranger
    FROM (SELECT DISTINCT n.collection_id FROM pgml_tune_new AS n) AS q
    LEFT JOIN pgml_tune.collection AS c ON c.collection_id = q.collection_id
    LEFT JOIN pg_class AS s ON s.oid = c.source
    WHERE pg_has_role(s.relowner, 'USAGE') IS NOT TRUE AND NOT EXISTS (
        -- After a change of owner the triggers run as the former one, until maintain().
        SELECT FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proname = '_sync_' || q.collection_id
          AND pg_has_role(p.proowner, 'USAGE')
    )
    LIMIT 1;
    -- A superuser also restores them, in any order.
    IF FOUND AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'must be owner of the table of collection %', v_stranger USING ERRCODE = '42501';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_queue_owner() IS 'Lets only the owner of a table queue its rows.';
CREATE TRIGGER queue_owner AFTER INSERT ON pgml_tune.queue REFERENCING NEW TABLE AS pgml_tune_new
    FOR EACH STATEMENT EXECUTE FUNCTION pgml_tune._check_queue_owner();
CREATE TABLE pgml_tune.tracked_column (
    tracked_column_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source            regclass NOT NULL,
    target_column     text NOT NULL,  -- as it was called then: after a rename, record it again under its new name
    model_version_id  bigint NOT NULL,
    filled_by         text NOT NULL,
    source_column     text,  -- NULL: filled by the user, from what only he knows
    is_mixed          boolean NOT NULL DEFAULT false,  -- embed_table() has yet to clear vectors of an earlier model
    shadow_of         text,  -- the column whose name it takes over when its version is promoted; NULL: it is what searches use
    is_filled         boolean NOT NULL DEFAULT true,  -- a shadow: every row with a text had its vector at the end of prepare_rollout()
    left_at           timestamptz,  -- a shadow: when its vectors stopped being what searches use; NULL: they never were
    created_by        text NOT NULL DEFAULT session_user,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tracked_column_source_target_column_key UNIQUE (source, target_column),
    CONSTRAINT tracked_column_filled_by_check CHECK (filled_by IN ('embed_table', 'user')),
    CONSTRAINT tracked_column_shadow_of_check CHECK (shadow_of <> target_column)
);
COMMENT ON TABLE pgml_tune.tracked_column IS
    'Vector columns of users'' own tables, and the version, and so the embedding space, that their vectors are of.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.tracked_column', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.tracked_column_tracked_column_id_seq', '');

-- Not a row policy: pg_dump writes the policies of an extension's table out, and the restore then fails on the second one.
CREATE FUNCTION pgml_tune._check_tracked_column()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A superuser also restores rows of tables that are gone.
    IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolsuper) THEN
        RETURN NEW;
    END IF;
    IF NOT coalesce(has_column_privilege(NEW.source, NEW.target_column, 'UPDATE'), false) THEN
        RAISE EXCEPTION 'permission denied for column "%" of table %', NEW.target_column, NEW.source
            USING ERRCODE = '42501',
                  DETAIL = 'Who records which vectors a column holds must be allowed to update it.';
    END IF;
    -- Its vectors tell of the text, and prepare_rollout() makes them of it with the rights of the owner.
    IF NEW.source_column IS NOT NULL AND NOT coalesce(has_column_privilege(NEW.source, NEW.source_column, 'SELECT'), false) THEN
        RAISE EXCEPTION 'permission denied for column "%" of table %', NEW.source_column, NEW.source USING ERRCODE = '42501';
    END IF;
    -- It is renamed and dropped in the name of the owner.
    IF NEW.shadow_of IS NOT NULL AND NOT coalesce(
        (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = NEW.source), false
    ) THEN
        RAISE EXCEPTION 'must be owner of table %', NEW.source USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_tracked_column() IS 'Lets only those record a column who may update it, and only the owner of its table what takes over its name.';
CREATE TRIGGER tracked_column_privilege BEFORE INSERT OR UPDATE ON pgml_tune.tracked_column
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_tracked_column();

CREATE TYPE pgml_tune.job_state AS ENUM (
    'queued',     -- waits for a worker
    'running',    -- a worker holds its lease
    'succeeded',
    'failed',     -- sqlstate and message say why
    'cancelled'
);
COMMENT ON TYPE pgml_tune.job_state IS 'Where a job stands: queued, running, or ended in one of three ways.';

-- What runs in one database is of no use in another: none of the tables of jobs is dumped.
CREATE TABLE pgml_tune.job (
    job_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL,
    parameters     jsonb NOT NULL,
    request_sha256 text NOT NULL,
    role_id        oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,  -- whose job it is; nobody may name another
    created_by     text NOT NULL DEFAULT session_user,
    created_at     timestamptz NOT NULL DEFAULT now(),
    state          pgml_tune.job_state NOT NULL DEFAULT 'queued',
    fencing_token  integer NOT NULL DEFAULT 0,  -- grows with each claim: what an earlier holder writes is refused
    cancel_requested_at timestamptz,            -- NULL: nobody wants it cancelled
    started_at     timestamptz,                 -- NULL: no worker has claimed it yet
    ended_at       timestamptz,                 -- NULL: it has not ended
    artifacts      jsonb NOT NULL DEFAULT '[]', -- what it has published below the model root; registered when it ends
    evaluations    jsonb NOT NULL DEFAULT '[]', -- what it has measured; becomes rows of evaluation when it ends
    result         jsonb,                       -- NULL: its process has not ended well; else it is not run again
    sqlstate       text,                        -- NULL, as the next three: it has not failed
    message        text,
    detail         text,
    hint           text,
    CONSTRAINT job_parameters_check CHECK (jsonb_typeof(parameters) = 'object'),
    CONSTRAINT job_request_sha256_check CHECK (request_sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT job_ended_at_check CHECK ((ended_at IS NULL) = (state IN ('queued', 'running')))
);
COMMENT ON TABLE pgml_tune.job IS 'What was asked of the worker, by whom, and how it ended; see pgml_tune.jobs.';
-- The same call of a role twice is one job, as long as the first has not ended.
CREATE UNIQUE INDEX job_role_id_request_sha256_key ON pgml_tune.job (role_id, request_sha256) WHERE state IN ('queued', 'running');
-- The worker asks for the oldest of the few that wait or run.
CREATE INDEX job_state_idx ON pgml_tune.job (job_id) WHERE state IN ('queued', 'running');

-- Beside the job because it changes every few seconds.
CREATE TABLE pgml_tune.job_progress (
    job_id        bigint PRIMARY KEY,
    fencing_token integer NOT NULL,
    worker        text NOT NULL,          -- host:pid
    lease_until   timestamptz NOT NULL,   -- by the clock of the server
    phase         text NOT NULL DEFAULT 'starting',
    step          bigint,                 -- NULL, as the next: the phase has no steps
    steps         bigint,
    loss          double precision,       -- NULL: the phase has none
    metric        text,                   -- NULL, as the next: nothing measured yet
    metric_value  double precision,
    lost_count    integer NOT NULL DEFAULT 0,  -- how often its worker was lost or its process killed from outside
    memory_bytes  bigint,                 -- most memory that its processes have held; NULL: not measured yet
    phase_started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE pgml_tune.job_progress IS 'Who runs a job until when, and how far it has come; a row for each job that was ever claimed.';

-- The rows that a job works on, as its caller could read them; deleted when it ends.
CREATE TABLE pgml_tune.job_rows (
    job_id   bigint NOT NULL,
    part     text NOT NULL,
    chunk_no integer NOT NULL,
    row_count integer NOT NULL,
    lines    text NOT NULL,  -- a JSON object per line
    role_id  oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    CONSTRAINT job_rows_pkey PRIMARY KEY (job_id, part, chunk_no),
    CONSTRAINT job_rows_part_check CHECK (part IN ('train', 'eval', 'calibration', 'schema', 'values'))
);
COMMENT ON TABLE pgml_tune.job_rows IS 'Snapshots of the rows that jobs which have not ended work on.';

-- What those rows were: stays as long as the job, and goes into the version that is made of them.
CREATE TABLE pgml_tune.job_part (
    job_id      bigint NOT NULL,
    part        text NOT NULL,
    query       text NOT NULL,
    row_count   bigint NOT NULL,
    rows_sha256 text NOT NULL,
    column_names text[] NOT NULL,
    shape       text NOT NULL,
    role_id     oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    CONSTRAINT job_part_pkey PRIMARY KEY (job_id, part),
    CONSTRAINT job_part_part_check CHECK (part IN ('train', 'eval', 'calibration', 'schema', 'values'))  -- files are named by it
);
COMMENT ON TABLE pgml_tune.job_part IS 'The queries of a job: their text, and number, hash, columns and shape of the rows.';

CREATE TABLE pgml_tune.job_line (
    job_line_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint NOT NULL,
    logged_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    line        text NOT NULL
);
COMMENT ON TABLE pgml_tune.job_line IS 'What jobs have told while they ran; see job_log().';
-- job_log() reads the lines of one job.
CREATE INDEX job_line_job_id_idx ON pgml_tune.job_line (job_id, job_line_id);

-- Stays empty: to add a row is to ask for the cancel of a job, and its trigger knows by the row who asks.
CREATE TABLE pgml_tune.job_cancel (
    job_id  bigint NOT NULL,
    role_id oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid
);
COMMENT ON TABLE pgml_tune.job_cancel IS 'Takes the requests of cancel_job().';

CREATE TABLE pgml_tune.worker (
    name          text PRIMARY KEY,      -- host:pid
    backend_pid   integer NOT NULL,      -- of its session: whoever has lost that is gone
    is_one_shot   boolean NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgml_tune.worker IS 'The workers of this database; one that was not seen for half a minute, or has lost its session, is gone.';
CREATE TABLE pgml_tune.evaluation (
    evaluation_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model          text NOT NULL,
    version        text NOT NULL,
    artifact_sha256 text NOT NULL,
    metric         text NOT NULL,
    metric_value   double precision NOT NULL,
    dataset_query  text,  -- NULL, as the next two: the texts that come with the package
    dataset_rows   bigint,
    dataset_sha256 text,
    job_id         bigint NOT NULL,
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgml_tune.evaluation IS 'Figures of model versions: what was measured, on which rows, by which job.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.evaluation', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.evaluation_evaluation_id_seq', '');
-- evaluations and model_card() look for one version.
CREATE INDEX evaluation_model_version_idx ON pgml_tune.evaluation (model, version);
-- What is routed stands in serving and collection_route; this is why, and how it goes on.
CREATE TABLE pgml_tune.rollout (
    rollout_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id        bigint NOT NULL,
    model           text NOT NULL,
    from_version_id bigint NOT NULL,
    from_version    text NOT NULL,
    to_version_id   bigint NOT NULL,
    to_version      text NOT NULL,
    is_same_space   boolean NOT NULL,
    state           pgml_tune.rollout_state NOT NULL DEFAULT 'running',
    share           integer NOT NULL,  -- units of 10,000
    phase           integer NOT NULL DEFAULT 1,  -- counts the shares; figures of two phases are never pooled
    plan            integer[],  -- shares of the steps, ascending, ending in 10,000; NULL: the share changes by hand only
    salt            text NOT NULL,
    guardrails      jsonb NOT NULL,  -- complete: alpha, margins, expected_units, ...
    expires_at      timestamptz NOT NULL,
    on_expiry       text NOT NULL,
    verdict         jsonb,  -- every number of the last look; NULL: nobody has looked yet
    created_by      text NOT NULL DEFAULT session_user,
    created_at      timestamptz NOT NULL DEFAULT now(),
    phase_began_at  timestamptz NOT NULL DEFAULT now(),
    looked_at       timestamptz,  -- NULL: not yet
    ended_at        timestamptz,  -- NULL: it runs
    reason          text,  -- of its end; NULL: none was given
    CONSTRAINT rollout_share_check CHECK (share BETWEEN 0 AND 10000),
    CONSTRAINT rollout_on_expiry_check CHECK (on_expiry IN ('rollback', 'hold', 'promote')),
    CONSTRAINT rollout_ended_at_check CHECK ((ended_at IS NULL) = (state IN ('running', 'paused')))
);
-- One at a time for each model.
CREATE UNIQUE INDEX rollout_model_id_key ON pgml_tune.rollout (model_id) WHERE ended_at IS NULL;
COMMENT ON TABLE pgml_tune.rollout IS 'Rollouts: from which version to which, the share now, the plan, the guardrails and the last verdict.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.rollout', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.rollout_rollout_id_seq', '');

-- How far a prepare_rollout() that runs has come; its session writes here with each batch that it commits.
CREATE UNLOGGED TABLE pgml_tune.preparation (
    pid        integer NOT NULL,
    role_id    oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    model      text NOT NULL,
    version    text NOT NULL,
    object     text NOT NULL,  -- a collection, or table.column
    phase      text NOT NULL,
    steps      bigint NOT NULL,
    step       bigint NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT now(),
    phase_began_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT preparation_pkey PRIMARY KEY (pid)
);
COMMENT ON TABLE pgml_tune.preparation IS 'Progress of the prepare_rollout() calls that run.';
-- One row for each logged call, by day. Partitions are made and retired by maintain(); what fits none goes to the default one.
CREATE TABLE pgml_tune.call_log (
    logged_at        timestamptz NOT NULL,
    call_id          bigint NOT NULL,
    task             text NOT NULL,  -- embed, batch, search, passages, similarity, classify, text_to_sql
    model            text NOT NULL,  -- no number: the row outlives the version
    version          text NOT NULL,  -- which answered
    variant          text,  -- serving or candidate: whose call it was by its unit, whoever answered; NULL: no rollout ran
    rollout_id       bigint,  -- NULL, as what follows: no rollout ran
    phase            integer,
    share            integer,  -- units of 10,000 that were to go to the candidate
    unit             bigint,  -- first 60 bits of sha256(salt:unit); its remainder by 10,000 is the bucket
    collection       text,  -- NULL: no search
    texts            integer NOT NULL,
    input_bytes      bigint NOT NULL,
    tokens           integer,  -- NULL: nothing was computed
    unknown_tokens   integer,  -- NULL: nothing was computed
    output_count     integer NOT NULL,  -- dimensions, labels or rows
    cache            text NOT NULL,  -- miss (all texts computed), session, table, mixed
    latency_ms       double precision NOT NULL,
    is_cold          boolean NOT NULL,  -- a model was loaded
    is_fallback      boolean NOT NULL,  -- the candidate failed, the serving version answered
    sqlstate         text,  -- NULL: no error; 58000 with outcome lost: the backend ended within the call
    memory_bytes     bigint,  -- resident memory of the backend, looked at once a second; NULL: not known
    gpu_memory_bytes bigint,  -- in use on the device, by all processes; NULL: the backend uses no GPU
    sample_rate      real NOT NULL,  -- share of such calls that are logged; 1/sample_rate is the weight of the row
    role_id          oid NOT NULL,
    sketch           text,  -- of the mean vector: 32 numbers, base64; NULL: setting log_sketch is off, or nothing was computed
    answer           text,  -- the most probable label; NULL: no classifier, or it is longer than 200 bytes
    input_text       text  -- NULL: setting log_text is off
) PARTITION BY RANGE (logged_at);
CREATE TABLE pgml_tune.call_log_default PARTITION OF pgml_tune.call_log DEFAULT;
-- Each partition has indexes of its own, made like these. One of the whole table would make them when a restored partition
-- is attached, and the restore could then not make them again.
-- ab_report() and what judges a rollout read one rollout.
CREATE INDEX call_log_default_rollout_idx ON pgml_tune.call_log_default (rollout_id, phase) WHERE rollout_id IS NOT NULL;
-- record_feedback() finds the call.
CREATE INDEX call_log_default_call_id_idx ON pgml_tune.call_log_default (call_id);
CREATE INDEX call_log_default_logged_at_idx ON pgml_tune.call_log_default USING brin (logged_at);
COMMENT ON TABLE pgml_tune.call_log IS 'Logged inference calls, ingested from the spool; no text of users unless setting log_text is on.';
COMMENT ON TABLE pgml_tune.call_log_default IS 'Calls of days that have no partition yet.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.call_log_default', '');

-- How far each spool file has been ingested: written in the transaction that adds the rows, so each line counts once.
CREATE TABLE pgml_tune.log_file (
    file     text PRIMARY KEY,
    bytes    bigint NOT NULL,
    done_xid xid8,  -- its writer is gone and all is ingested; it is removed when no transaction can be older. NULL: it may grow
    done_at  timestamptz
);
COMMENT ON TABLE pgml_tune.log_file IS 'Spool files and how many of their bytes have been ingested.';

-- Calls whose beginning was ingested and whose end was not yet.
CREATE TABLE pgml_tune.open_call (
    file       text NOT NULL,
    call_id    bigint NOT NULL,
    line       text NOT NULL,
    CONSTRAINT open_call_pkey PRIMARY KEY (file, call_id)
);
COMMENT ON TABLE pgml_tune.open_call IS 'Calls that have begun and not ended, by the spool; when the writer of a file is gone they count as lost.';

CREATE TABLE pgml_tune.log_info (
    is_only_row     boolean PRIMARY KEY DEFAULT true,
    dropped_bytes   bigint NOT NULL DEFAULT 0,  -- of the spool, beyond its cap
    refused_lines   bigint NOT NULL DEFAULT 0,  -- that could not be understood
    ingested_at     timestamptz,  -- NULL: never
    stats_reset_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_info_check CHECK (is_only_row)
);
INSERT INTO pgml_tune.log_info DEFAULT VALUES;
COMMENT ON TABLE pgml_tune.log_info IS 'What was lost of the logs, when they were last ingested, and since when statistics count.';

-- It outlives the log of its call: what the reports need of that is copied when the feedback comes.
CREATE TABLE pgml_tune.feedback (
    feedback_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id     bigint NOT NULL,
    model       text,  -- NULL, as what follows: the call was not logged
    version     text,  -- which answered
    task        text,
    answer      text,  -- the most probable label, of a classifier; NULL: of another model
    rollout_id  bigint,  -- NULL, as what follows: no rollout ran
    phase       integer,
    variant     text,
    unit        bigint,
    score       double precision,  -- 0 to 1, as a click or a star; NULL: not given
    label       text,  -- what the caller holds for right, of a classifier; NULL: not given
    expected    text,  -- the right answer, or a better text; NULL: not given
    input_text  text,  -- as the caller gives it, else as setting log_text has kept it; NULL: the call cannot become a training row
    given_by    text NOT NULL DEFAULT current_user,  -- by name: numbers of roles do not survive a dump
    created_by  text NOT NULL DEFAULT session_user,
    created_at  timestamptz NOT NULL DEFAULT now(),
    search_path text,  -- of whoever gave it, by which SQL that he expects finds its tables; NULL: not known
    CONSTRAINT feedback_score_check CHECK (score BETWEEN 0 AND 1),
    -- Who inserts past record_feedback() meets these instead of the settings.
    CONSTRAINT feedback_length_check CHECK (
        length(label) <= 1000 AND octet_length(expected) <= 4194304 AND octet_length(input_text) <= 4194304
        AND octet_length(search_path) <= 1048576
    ),
    CONSTRAINT feedback_given_check CHECK (num_nonnulls(score, label, expected) > 0)
);
CREATE INDEX feedback_rollout_id_idx ON pgml_tune.feedback (rollout_id) WHERE rollout_id IS NOT NULL;  -- ab_report()
CREATE INDEX feedback_call_id_idx ON pgml_tune.feedback (call_id);  -- calls that are ingested after it
CREATE INDEX feedback_created_at_idx ON pgml_tune.feedback (created_at);  -- quality_report()
COMMENT ON TABLE pgml_tune.feedback IS 'What users thought of answers, by the identifier of the call.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.feedback', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.feedback_feedback_id_seq', '');
-- One row for each question whose SQL somebody has verified. It names no object by number: neither survives a dump, nor
-- has to exist when the row comes back.
CREATE TABLE pgml_tune.sql_example (
    sql_example_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    question        text NOT NULL,
    normal_question text NOT NULL,  -- as equal questions read the same: see service/questions.py
    sql             text NOT NULL,
    search_path     text NOT NULL,  -- where its names were found, as SET takes it
    relations       jsonb NOT NULL,  -- what it reads: [{"schema": "shop", "name": "customer", "columns": ["city"]}]
    model           text,  -- NULL: for every model
    embedding       vector,  -- of the question; NULL, as what follows: no model has embedded it yet
    space_id        text,
    created_by      text NOT NULL DEFAULT current_user,  -- by name, as it is dumped
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sql_example_question_check CHECK (length(question) BETWEEN 1 AND 10000 AND length(normal_question) BETWEEN 1 AND 40000),
    CONSTRAINT sql_example_sql_check CHECK (octet_length(sql) BETWEEN 1 AND 65536 AND octet_length(search_path) <= 1048576),
    CONSTRAINT sql_example_relations_check CHECK (jsonb_typeof(relations) = 'array' AND jsonb_array_length(relations) <= 100),
    CONSTRAINT sql_example_embedding_check CHECK ((embedding IS NULL) = (space_id IS NULL))
);
-- text_to_sql() asks for the same question; a tree takes no text as long as one may be.
CREATE INDEX sql_example_normal_question_idx ON pgml_tune.sql_example USING hash (normal_question);
COMMENT ON TABLE pgml_tune.sql_example IS 'Questions with SQL that was verified: text_to_sql() answers with it, and models train on it.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.sql_example', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.sql_example_sql_example_id_seq', '');
-- A version that has no row is run by the engine that it was made for, as sessions run all of them.
CREATE TABLE pgml_tune.engine_choice (
    model_version_id    bigint PRIMARY KEY,
    machine             text NOT NULL,  -- in words: on another one the choice does not count
    engine              text NOT NULL,
    provider            text NOT NULL,
    inference_precision text NOT NULL,
    threads             integer NOT NULL,  -- that compute a batch
    lanes               integer NOT NULL,  -- batches at once
    batch_size          integer NOT NULL,
    texts_per_second    double precision NOT NULL,
    gain_percent        double precision NOT NULL,  -- over the version's own engine, measured in turns with it
    latency_ms          double precision NOT NULL,
    agreement           double precision NOT NULL,
    job_id              bigint NOT NULL,
    created_by          text NOT NULL,
    measured_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT engine_choice_engine_check CHECK (engine IN ('onnxruntime', 'openvino')),
    CONSTRAINT engine_choice_provider_check CHECK (provider IN ('cpu', 'cuda', 'tensorrt')),
    CONSTRAINT engine_choice_inference_precision_check CHECK (inference_precision IN ('fp32', 'bf16')),
    CONSTRAINT engine_choice_threads_check CHECK (threads > 0 AND lanes > 0 AND batch_size > 0)
);
COMMENT ON TABLE pgml_tune.engine_choice IS 'In which way the worker runs a version, as tune_engine() has found it best; see pgml_tune.engine_choices.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.engine_choice', '');

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

CREATE OR REPLACE FUNCTION pgml_tune._embed_question(query text, model text, version text, route jsonb)
RETURNS vector
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: a route that is missing is an error
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_question(query, model, version, route)
$python$;
COMMENT ON FUNCTION pgml_tune._embed_question(text, text, text, jsonb) IS
    'Begins a search: the vector of its question, of kind query, under one version; NULL where the candidate of a rollout failed, and the serving version is to be asked with is_fallback in the route.';

CREATE OR REPLACE FUNCTION pgml_tune._end_search(result_count integer)
RETURNS void
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.end_search(result_count)
$python$;
COMMENT ON FUNCTION pgml_tune._end_search(integer) IS 'Ends the search that _embed_question() has begun, which found so many rows.';

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

CREATE OR REPLACE FUNCTION @extschema@.classify(input text, model text, top_k integer DEFAULT 1)
RETURNS TABLE (label text, score double precision)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000 ROWS 1  -- not STRICT: a NULL for top_k is an error
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import classification
return classification.classify(input, model, top_k)
$python$;
COMMENT ON FUNCTION @extschema@.classify(text, text, integer) IS
    'The top_k most probable labels of a text under a classification model (name or name@version), with their probabilities, the greatest first; no rows for NULL.';

-- All of these run with the rights of the caller: what he may not read he does not find.

CREATE OR REPLACE FUNCTION pgml_tune._tables_along(path name[], tables regclass[], schemas text[])
RETURNS TABLE (relation oid, kind "char", nspname name, relname name, name text, place integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET jit = off  -- it takes longer than the search
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.oid, c.relkind, n.nspname, c.relname,
           CASE
               -- Each of these schemas is a path of its own.
               WHEN schemas IS NOT NULL THEN quote_ident(c.relname)
               WHEN n.nspname = ANY (_tables_along.path) AND NOT EXISTS (
                   SELECT FROM pg_class AS o
                   WHERE o.relname = c.relname AND o.oid <> c.oid AND (
                       o.relnamespace IN ('pg_catalog'::regnamespace, pg_my_temp_schema())
                       OR array_position(
                           _tables_along.path, (SELECT s.nspname FROM pg_namespace AS s WHERE s.oid = o.relnamespace)
                       ) < array_position(_tables_along.path, n.nspname)
                   )
               ) THEN quote_ident(c.relname)
               ELSE format('%I.%I', n.nspname, c.relname)
           END,
           array_position(_tables_along.path, n.nspname)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT c.relispartition
      AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgml_tune')
      AND has_schema_privilege(n.oid, 'USAGE')
      AND CASE
          WHEN tables IS NOT NULL THEN c.oid = ANY (tables)
          -- What an extension has made is about the extension.
          ELSE n.nspname = ANY (coalesce(schemas::name[], _tables_along.path)) AND NOT EXISTS (
              SELECT FROM pg_depend AS d
              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
          )
      END
      AND has_any_column_privilege(c.oid, 'SELECT');
END
$$;
COMMENT ON FUNCTION pgml_tune._tables_along(name[], regclass[], text[]) IS
    'The tables and views of which the caller may read at least a column, and how he has to name them under this search path.';

CREATE OR REPLACE FUNCTION pgml_tune._schema_along(
    path name[], tables regclass[], schemas text[], with_values boolean
)
RETURNS TABLE (
    relation oid, schema_name text, name text, comment text, columns jsonb, foreign_keys jsonb
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    c_most_values CONSTANT integer := 10;  -- of a column
    c_longest_value CONSTANT integer := 60;  -- characters
    c_longest_comment CONSTANT integer := 200;
BEGIN
    RETURN QUERY
    WITH readable AS MATERIALIZED (
        SELECT t.* FROM pgml_tune._tables_along(_schema_along.path, _schema_along.tables, schemas) AS t
    ), readable_column AS MATERIALIZED (
        SELECT r.relation, r.kind, r.nspname, r.relname, a.attnum, a.attname,
               CASE t.typtype WHEN 'd' THEN (SELECT b.base FROM pgml_tune._base_type(t.oid, -1) AS b) ELSE t.oid END AS base
        FROM readable AS r
        JOIN pg_attribute AS a ON a.attrelid = r.relation AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE has_column_privilege(r.relation, a.attnum, 'SELECT')
    ), known AS MATERIALIZED (
        -- The view shows what the caller may know; row security hides all of it.
        SELECT c.relation, c.attnum, s.most_common_vals
        FROM pg_stats AS s
        JOIN readable_column AS c ON c.nspname = s.schemaname AND c.relname = s.tablename AND c.attname = s.attname
        JOIN pg_type AS t ON t.oid = c.base
        WHERE with_values AND s.inherited = (c.kind = 'p')
          -- Values of other types could only be written by code of their owners.
          AND (t.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) OR t.typtype = 'e')
    ), frequent AS (
        SELECT k.relation, k.attnum, jsonb_agg(v.value ORDER BY v.place) AS frequent
        FROM known AS k
        CROSS JOIN LATERAL unnest(k.most_common_vals::text::text[]) WITH ORDINALITY AS v (value, place)
        WHERE v.place <= c_most_values AND length(v.value) <= c_longest_value
        GROUP BY k.relation, k.attnum
    ), described AS (
        SELECT c.relation, jsonb_agg(jsonb_build_object(
            'name', quote_ident(c.attname),
            -- The schema of a type is not for everybody to know, and says nothing to a model.
            'type', CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(t.oid, NULL) ELSE t.typname END,
            'comment', left(col_description(c.relation, c.attnum), c_longest_comment),
            'is_key', EXISTS (
                SELECT FROM pg_index AS i
                WHERE i.indrelid = c.relation AND i.indisprimary AND c.attnum = ANY (i.indkey::smallint[])
            ),
            'values', coalesce(f.frequent, '[]')
        ) ORDER BY c.attnum) AS columns
        FROM readable_column AS c
        JOIN pg_type AS t ON t.oid = c.base
        LEFT JOIN frequent AS f ON f.relation = c.relation AND f.attnum = c.attnum
        GROUP BY c.relation
    ), reference AS (
        SELECT k.conrelid, jsonb_agg(jsonb_build_object(
            'columns', p.columns, 'table', o.name, 'target_columns', p.target_columns
        ) ORDER BY k.conkey, o.name) AS foreign_keys
        FROM pg_constraint AS k
        JOIN readable AS r ON r.relation = k.conrelid
        JOIN readable AS o ON o.relation = k.confrelid
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(quote_ident(a.attname) ORDER BY u.place) AS columns,
                   jsonb_agg(quote_ident(b.attname) ORDER BY u.place) AS target_columns
            FROM unnest(k.conkey, k.confkey) WITH ORDINALITY AS u (own, other, place)
            JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.own
            JOIN pg_attribute AS b ON b.attrelid = k.confrelid AND b.attnum = u.other
            HAVING bool_and(
                has_column_privilege(k.conrelid, u.own, 'SELECT') AND has_column_privilege(k.confrelid, u.other, 'SELECT')
            )
        ) AS p
        WHERE k.contype = 'f'
        GROUP BY k.conrelid
    )
    SELECT r.relation, r.nspname::text, r.name, left(obj_description(r.relation, 'pg_class'), c_longest_comment),
           d.columns, coalesce(f.foreign_keys, '[]')
    FROM readable AS r
    JOIN described AS d ON d.relation = r.relation
    LEFT JOIN reference AS f ON f.conrelid = r.relation
    ORDER BY r.place, r.nspname, r.relname;
END
$$;
COMMENT ON FUNCTION pgml_tune._schema_along(name[], regclass[], text[], boolean) IS
    'What _readable_schema() gives to a caller whose search path is this.';

CREATE OR REPLACE FUNCTION pgml_tune._readable_schema(
    tables regclass[] DEFAULT NULL, schemas text[] DEFAULT NULL, with_values boolean DEFAULT false
)
RETURNS TABLE (
    relation oid, schema_name text, name text, comment text, columns jsonb, foreign_keys jsonb
)
LANGUAGE plpgsql STABLE  -- without a search_path: that of the caller says which tables he names how
AS $$
BEGIN
    RETURN QUERY SELECT s.* FROM pgml_tune._schema_along(pg_catalog.current_schemas(false), tables, schemas, with_values) AS s;
END
$$;
COMMENT ON FUNCTION pgml_tune._readable_schema(regclass[], text[], boolean) IS
    'The tables and views of which the caller may read at least a column, with those columns, keys and comments: these tables, or all in these schemas, or all in his search path. Names are as he has to write them; where schemas are given, as under each of these alone. With the frequent values that the statistics have for him.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_relations(relations regclass[])
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import schema
return schema.hold_relations(relations)
$python$;
COMMENT ON FUNCTION pgml_tune._hold_relations(regclass[]) IS
    'Lets nobody turn relations into something else until the transaction ends, without planning a query on them.';

CREATE OR REPLACE FUNCTION pgml_tune._text_columns(path name[], tables regclass[], schemas text[], most_rows real)
RETURNS TABLE (
    relation oid, schema_name text, name text, members regclass[], rows real, column_name text, labels text[]
)
LANGUAGE plpgsql VOLATILE  -- called again after a wait for locks it has to see what has happened meanwhile
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    -- No object that the server has by itself has so long a number.
    c_foreign_code CONSTANT text := ' [0-9]{5}';
    c_least_row_bytes CONSTANT real := 40;
    c_most_bytes CONSTANT bigint := 128 * 1024 * 1024;  -- without what is stored apart
BEGIN
    RETURN QUERY
    WITH readable AS MATERIALIZED (
        SELECT t.*, p.members, p.rows
        FROM pgml_tune._tables_along(_text_columns.path, _text_columns.tables, schemas) AS t
        LEFT JOIN LATERAL (
            WITH RECURSIVE tree (part) AS (
                SELECT t.relation
                UNION
                SELECT i.inhrelid FROM tree AS u JOIN pg_inherits AS i ON i.inhparent = u.part
            )
            -- Nothing of these may run code of others with the rights of the caller: no view, no row security, no other
            -- server, and no expression that the planner would fold.
            SELECT array_agg(o.oid::regclass) AS members, sum(
                -- The statistics may be of a time when it was smaller, or there are none.
                CASE WHEN o.relpages > 0 AND o.reltuples > 0
                    THEN o.reltuples / o.relpages * (z.size / current_setting('block_size')::real)
                    ELSE z.size / c_least_row_bytes END
            )::real AS rows
            FROM tree AS u JOIN pg_class AS o ON o.oid = u.part
            CROSS JOIN LATERAL (
                SELECT CASE WHEN o.relkind IN ('r', 'm') THEN coalesce(pg_relation_size(o.oid), 0) ELSE 0 END AS size
            ) AS z
            HAVING bool_and(o.relispopulated AND (o.relkind = 'p' OR o.relkind IN ('r', 'm') AND pg_relation_filenode(o.oid) IS NOT NULL))
               AND sum(z.size) <= c_most_bytes
               AND NOT bool_or(EXISTS (
                   SELECT FROM pg_index AS i
                   WHERE i.indrelid = o.oid AND concat(i.indexprs::text, i.indpred::text) ~ c_foreign_code
               ) OR EXISTS (
                   SELECT FROM pg_statistic_ext AS x WHERE x.stxrelid = o.oid AND x.stxexprs::text ~ c_foreign_code
               ) OR EXISTS (
                   SELECT FROM pg_partitioned_table AS q WHERE q.partrelid = o.oid AND q.partexprs::text ~ c_foreign_code
               ))
        ) AS p ON t.kind IN ('r', 'p', 'm') AND NOT row_security_active(t.relation)
    )
    SELECT r.relation, r.nspname::text, r.name, r.members, r.rows, quote_ident(a.attname), e.labels
    FROM readable AS r
    JOIN pg_attribute AS a ON a.attrelid = r.relation AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        -- Labels are in the catalog: a cast of the type to text could be code of its owner.
        SELECT array_agg(l.enumlabel::text ORDER BY l.enumsortorder) AS labels FROM pg_enum AS l WHERE l.enumtypid = t.oid
    ) AS e
    WHERE has_column_privilege(r.relation, a.attnum, 'SELECT') AND (
        t.typtype = 'e'
        OR t.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) AND a.attgenerated <> 'v' AND r.rows <= most_rows
        -- An older snapshot would show an older catalog than the planner goes by.
        AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
    )
    ORDER BY r.rows, r.nspname, r.relname, a.attnum;
END
$$;
COMMENT ON FUNCTION pgml_tune._text_columns(name[], regclass[], text[], real) IS
    'The columns of texts whose values the caller may look at without running code of others: the labels of an enumeration, or NULL where the values are to be read, of tables with at most so many rows.';

CREATE OR REPLACE FUNCTION pgml_tune._readable_values(schemas text[] DEFAULT NULL, most integer DEFAULT 10000)
RETURNS TABLE (schema_name text, table_name text, column_name text, value text)
LANGUAGE plpgsql VOLATILE  -- without a search_path: that of the caller says which tables he names how
AS $$
BEGIN
    RETURN QUERY SELECT v.* FROM pgml_tune._values_along(
        pg_catalog.current_schemas(false), NULL, schemas, most, 'Infinity'
    ) AS v;
END
$$;
COMMENT ON FUNCTION pgml_tune._readable_values(text[], integer) IS
    'The different texts in the columns of small tables that the caller may read, at most so many of each column, with table and column as in _readable_schema().';

-- What follows reads tables of others. Should it run any code of theirs after all, that could write nothing: it is read-only, and
-- taken back with its locks.

CREATE OR REPLACE FUNCTION pgml_tune._values_along(
    path name[], tables regclass[], schemas text[], most integer, most_rows real
)
RETURNS TABLE (schema_name text, table_name text, column_name text, value text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET constraint_exclusion = off  -- no CHECK is evaluated while a query is planned
SET lock_timeout = '50ms'  -- nobody can change a table while this waits for it
AS $$
DECLARE
    c_most_rows CONSTANT real := 100000;  -- of a table
    c_longest_value CONSTANT integer := 200;  -- characters
    v_rows real := 0;
    v_relation oid;
    r record;
BEGIN
    BEGIN
        PERFORM set_config('transaction_read_only', 'on', true);
        PERFORM pgml_tune._hold_relations(array_agg(DISTINCT m.member))
        FROM pgml_tune._text_columns(path, tables, schemas, c_most_rows) AS t
        CROSS JOIN LATERAL unnest(t.members) AS m (member) WHERE t.labels IS NULL
        HAVING count(*) > 0;
        FOR r IN SELECT * FROM pgml_tune._text_columns(path, tables, schemas, c_most_rows) LOOP
            IF r.labels IS NOT NULL THEN
                RETURN QUERY SELECT r.schema_name, r.name, r.column_name, l.label FROM unnest(r.labels[:most]) AS l (label);
                CONTINUE;
            END IF;
            IF r.relation IS DISTINCT FROM v_relation THEN
                v_relation := r.relation;
                v_rows := v_rows + r.rows;
            END IF;
            IF v_rows <= most_rows THEN
                RETURN QUERY EXECUTE format(
                    'SELECT $1, $2, $3, v.value FROM (
                         SELECT DISTINCT s.%1$s::text COLLATE "C" AS value FROM %2$s AS s
                         WHERE length(s.%1$s) BETWEEN 1 AND %3$s
                     ) AS v ORDER BY v.value LIMIT $4',
                    r.column_name, r.relation::regclass, c_longest_value
                ) USING r.schema_name, r.name, r.column_name, most;
            END IF;
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'PGML0';
    EXCEPTION WHEN SQLSTATE 'PGML0' OR lock_not_available THEN
        NULL;
    END;
END
$$;
COMMENT ON FUNCTION pgml_tune._values_along(name[], regclass[], text[], integer, real) IS
    'What _readable_values() gives to a caller whose search path is this, of tables with so many rows together, the smallest first.';

CREATE OR REPLACE FUNCTION pgml_tune._values_named(path name[], tables regclass[], terms text[])
RETURNS TABLE (table_name text, column_name text, value text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET constraint_exclusion = off  -- no CHECK is evaluated while a query is planned
SET lock_timeout = '50ms'  -- nobody can change a table while this waits for it
AS $$
DECLARE
    c_most_rows CONSTANT real := 100000;  -- of a table
    c_most_rows_together CONSTANT real := 500000;
    c_most_values CONSTANT integer := 1000;  -- of a table
    c_longest_value CONSTANT integer := 1000;  -- bytes as stored: what is longer is not even fetched
    v_rows real := 0;
    r record;
BEGIN
    BEGIN
        PERFORM set_config('transaction_read_only', 'on', true);
        PERFORM pgml_tune._hold_relations(array_agg(DISTINCT m.member))
        FROM pgml_tune._text_columns(path, tables, NULL, c_most_rows) AS t
        CROSS JOIN LATERAL unnest(t.members) AS m (member) WHERE t.labels IS NULL
        HAVING count(*) > 0;
        FOR r IN
            SELECT t.relation, t.name, t.rows,
                   string_agg(format('(%L, s.%s::text)', t.column_name, t.column_name), ', ') FILTER (WHERE t.labels IS NULL) AS pairs,
                   jsonb_object_agg(t.column_name, t.labels) FILTER (WHERE t.labels IS NOT NULL) AS labels
            FROM pgml_tune._text_columns(path, tables, NULL, c_most_rows) AS t
            GROUP BY t.relation, t.name, t.rows
            ORDER BY t.rows, t.name
        LOOP
            RETURN QUERY
            SELECT r.name, c.key, l.label
            FROM jsonb_each(r.labels) AS c CROSS JOIN LATERAL jsonb_array_elements_text(c.value) AS l (label)
            WHERE lower(l.label) = ANY (terms);
            v_rows := v_rows + coalesce(r.rows, 0);
            IF r.pairs IS NOT NULL AND v_rows <= c_most_rows_together THEN
                RETURN QUERY EXECUTE format(
                    'SELECT DISTINCT $1, v.name, v.value COLLATE "C"
                     FROM %s AS s CROSS JOIN LATERAL (VALUES %s) AS v (name, value)
                     WHERE CASE WHEN pg_column_size(v.value) <= %s THEN lower(v.value COLLATE "default") = ANY ($2) END LIMIT %s',
                    r.relation::regclass, r.pairs, c_longest_value, c_most_values
                ) USING r.name, terms;
            END IF;
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'PGML0';
    EXCEPTION WHEN SQLSTATE 'PGML0' OR lock_not_available THEN
        NULL;
    END;
END
$$;
COMMENT ON FUNCTION pgml_tune._values_named(name[], regclass[], text[]) IS
    'Which of some texts in lower case stand in columns that the caller may look at, along this search path, and how.';

CREATE OR REPLACE FUNCTION pgml_tune._values_beside(
    path name[], relation regclass, column_name text, literal text
)
RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET constraint_exclusion = off  -- no CHECK is evaluated while a query is planned
SET lock_timeout = '50ms'  -- nobody can change a table while this waits for it
AS $$
#variable_conflict use_variable
DECLARE
    c_most_rows CONSTANT real := 100000;
    c_most_values CONSTANT integer := 10000;
    c_longest_value CONSTANT integer := 1000;  -- bytes as stored: what is longer is not even fetched
    r record;
    v_is_there boolean;
    v_values text[];
BEGIN
    BEGIN
        PERFORM set_config('transaction_read_only', 'on', true);
        PERFORM pgml_tune._hold_relations(array_agg(DISTINCT m.member))
        FROM pgml_tune._text_columns(path, ARRAY[relation], NULL, c_most_rows) AS t
        CROSS JOIN LATERAL unnest(t.members) AS m (member) WHERE t.labels IS NULL
        HAVING count(*) > 0;
        SELECT t.labels INTO r FROM pgml_tune._text_columns(path, ARRAY[relation], NULL, c_most_rows) AS t
        WHERE t.column_name = _values_beside.column_name;
        IF r.labels IS NOT NULL THEN
            v_values := CASE WHEN literal <> ALL (r.labels) THEN r.labels END;
        ELSIF FOUND THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %s AS s WHERE s.%s = $1)', relation, column_name)
            INTO v_is_there USING literal;
        END IF;
        IF NOT v_is_there THEN
            EXECUTE format(
                'SELECT array_agg(DISTINCT s.%1$s::text COLLATE "C") FROM %2$s AS s
                 WHERE CASE WHEN pg_column_size(s.%1$s) <= %3$s THEN lower(s.%1$s::text COLLATE "default") = lower($1) END',
                column_name, relation, c_longest_value
            ) INTO v_values USING literal;
            IF v_values IS NULL THEN
                EXECUTE format(
                    'SELECT array_agg(v.value) FROM (
                         SELECT DISTINCT s.%1$s::text COLLATE "C" AS value FROM %2$s AS s
                         WHERE pg_column_size(s.%1$s) <= %3$s LIMIT %4$s
                     ) AS v', column_name, relation, c_longest_value, c_most_values + 1
                ) INTO v_values;
                -- Of some of them the closest may be another thing than of all.
                IF cardinality(v_values) > c_most_values THEN
                    v_values := NULL;
                END IF;
            END IF;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'PGML0';
    EXCEPTION WHEN SQLSTATE 'PGML0' OR lock_not_available THEN
        NULL;
    END;
    RETURN v_values;
END
$$;
COMMENT ON FUNCTION pgml_tune._values_beside(name[], regclass, text, text) IS
    'The values of a column in which a text does not stand, those alone that differ in case if there are any; NULL if it stands there, there are too many, or the caller may not look.';
-- Both name the tables of the caller as he does, so they run under his search_path; nothing of ours is found through it.

CREATE OR REPLACE FUNCTION @extschema@.text_to_sql(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000  -- not STRICT: model and tables may be NULL
AS $python$
from pgml_tune.backend import text_to_sql
return text_to_sql.text_to_sql(question, model, tables)
$python$;
COMMENT ON FUNCTION @extschema@.text_to_sql(text, text, regclass[]) IS
    'An SQL query that answers a question about the tables the caller may read, checked by the server but not run; NULL for NULL.';

CREATE OR REPLACE FUNCTION @extschema@.text_to_sql_candidates(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL, k integer DEFAULT 4
)
RETURNS TABLE (rank integer, sql text, score double precision, valid boolean, error text, cost double precision)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 4  -- not STRICT: model and tables may be NULL
AS $python$
from pgml_tune.backend import text_to_sql
return text_to_sql.candidates(question, model, tables, k)
$python$;
COMMENT ON FUNCTION @extschema@.text_to_sql_candidates(text, text, regclass[], integer) IS
    'All candidates for text_to_sql(), in the order in which it tries them: with the score of the model, whether the server takes them, why not, and the cost that its planner expects; no rows for NULL.';
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

CREATE OR REPLACE FUNCTION @extschema@.cache_purge(
    model text DEFAULT NULL,
    role regrole DEFAULT NULL,
    older_than interval DEFAULT NULL,
    min_hits bigint DEFAULT NULL,
    max_bytes bigint DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.cache_purge(model, role, older_than, min_hits, max_bytes)
$python$;
COMMENT ON FUNCTION @extschema@.cache_purge(text, regrole, interval, bigint, bigint) IS
    'Deletes cached vectors and returns how many: of a model (name or name@version), of a role, older than an interval, found fewer than min_hits times by later sessions; with max_bytes the oldest of them, until all that stay take no more. NULL sets no condition. Other sessions keep theirs in memory until they end.';

CREATE OR REPLACE FUNCTION pgml_tune._pending_counts()
RETURNS jsonb
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.pending_counts()
$python$;
COMMENT ON FUNCTION pgml_tune._pending_counts() IS 'What this session has counted and not yet flushed.';

-- What tables, columns, keys and operators are called now: catalogs are asked, nothing is remembered, so renames and restores do
-- no harm. What every statement of a trigger asks is in plpgsql, which keeps the plans; an SQL function would plan for
-- milliseconds each time.

CREATE OR REPLACE FUNCTION pgml_tune._vector_schema()
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT quote_ident(n.nspname)
        FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._vector_schema() IS 'Where pgvector is, quoted.';

CREATE OR REPLACE FUNCTION pgml_tune._base_type(type oid, modifier integer)
RETURNS TABLE (base oid, base_modifier integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE step AS (
        SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, _base_type.modifier AS modifier
        FROM pg_type AS t WHERE t.oid = _base_type.type
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, s.typtypmod
        FROM step AS s JOIN pg_type AS t ON t.oid = s.typbasetype
        WHERE s.typtype = 'd'
    )
    SELECT s.oid, s.modifier FROM step AS s WHERE s.typtype <> 'd';
END
$$;
COMMENT ON FUNCTION pgml_tune._base_type(oid, integer) IS
    'The type below a domain, and below the domains below it. What works on base types runs no CHECK of anybody.';

CREATE OR REPLACE FUNCTION pgml_tune._equality(type oid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT CASE
            WHEN t.typtype IN ('e', 'r', 'm') THEN 'OPERATOR(pg_catalog.=)'
            WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN
                CASE WHEN pgml_tune._equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END
            ELSE (
                SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
                FROM pg_opclass AS c
                JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
                JOIN pg_amop AS a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
                    AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
                JOIN pg_operator AS o ON o.oid = a.amopopr
                JOIN pg_namespace AS n ON n.oid = o.oprnamespace
                WHERE c.opcdefault
                  AND c.opcintype = CASE t.oid WHEN 'varchar'::regtype THEN 'text'::regtype::oid
                                               WHEN 'cidr'::regtype THEN 'inet'::regtype::oid ELSE t.oid END
            )
        END
        FROM pg_type AS t WHERE t.oid = _equality.type
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._equality(oid) IS
    'The operator that compares values of a base type, with its schema; NULL if there is none that does so for certain.';

CREATE OR REPLACE FUNCTION pgml_tune._source_key(source oid, content smallint)
RETURNS smallint[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (i.indkey::smallint[])[0:i.indnkeyatts - 1]
    FROM pg_index AS i
    WHERE i.indrelid = _source_key.source
      AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indnkeyatts <= 31  -- the key of the side table has one more
      AND NOT EXISTS (
          SELECT FROM unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AS k (attnum)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, -1) AS b
          WHERE NOT a.attnotnull OR pgml_tune._equality(b.base) IS NULL OR a.attnum = content
      )
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._source_key(oid, smallint) IS
    'The columns of the primary key, or of a unique index over columns that are NOT NULL, without the text itself; NULL if there is none.';

CREATE OR REPLACE FUNCTION pgml_tune._object_base(source oid, source_column text, collection text)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.short
    FROM pg_class AS c
    CROSS JOIN LATERAL (
        VALUES (1, c.relname || '_' || source_column), (2, CASE WHEN strpos(collection, '.') = 0 THEN collection END)
    ) AS n (place, name)
    CROSS JOIN LATERAL (
        -- 63 bytes with the suffix: a longer name is cut to what certainly fits, and told apart by a hash of the whole.
        SELECT CASE WHEN octet_length(n.name) <= 53 THEN n.name ELSE left(n.name, 11) || '_' || left(md5(n.name), 8) END
    ) AS b (short)
    WHERE c.oid = source AND n.name IS NOT NULL
      AND NOT EXISTS (
          SELECT FROM pg_class AS o WHERE o.relnamespace = c.relnamespace AND o.relname = b.short || '_embedding'
      ) AND NOT EXISTS (
          SELECT FROM pg_type AS o WHERE o.typnamespace = c.relnamespace AND o.typname = b.short || '_embedding'
      ) AND NOT EXISTS (
          SELECT FROM pg_proc AS o WHERE o.pronamespace = c.relnamespace AND o.proname = b.short || '_query'
      )
    ORDER BY n.place
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._object_base(oid, text, text) IS
    'What the names of the view and the query function begin with: table and column, or where these are taken the collection; NULL if that is taken, too.';

CREATE OR REPLACE FUNCTION pgml_tune._free_name(name text, taken text[])
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.name FROM (
        SELECT repeat('_', g) AS tail, _free_name.name || repeat('_', g) AS name FROM generate_series(0, 40) AS g
    ) AS c WHERE c.name <> ALL (taken) ORDER BY length(c.tail) LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._free_name(text, text[]) IS 'A name, with as many underscores as keep it apart from others.';

CREATE OR REPLACE FUNCTION pgml_tune._mode_argument(mode text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE mode WHEN 'trigger' THEN '' ELSE format(', mode => %L', mode) END $$;
COMMENT ON FUNCTION pgml_tune._mode_argument(text) IS 'What follows in a call of auto_embed() for a collection in a mode.';

CREATE OR REPLACE FUNCTION pgml_tune._role_name(role oid)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END $$;
COMMENT ON FUNCTION pgml_tune._role_name(oid) IS 'A grantee as GRANT writes it.';

CREATE OR REPLACE FUNCTION pgml_tune._may_embed(role oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT has_schema_privilege(role, 'pgml_tune', 'USAGE')
        AND has_function_privilege(role, 'pgml_tune._sync_statements(bigint, text, oid, bigint)', 'EXECUTE')
$$;
COMMENT ON FUNCTION pgml_tune._may_embed(oid) IS 'Whether triggers can run as a role.';

CREATE OR REPLACE FUNCTION pgml_tune._source_facts(source regclass, source_column text, collection text)
RETURNS TABLE (
    source_oid bigint, schema_name text, default_name text, kind text, is_temporary boolean, is_ours boolean,
    is_partition boolean, is_inherited boolean, is_forced boolean, owner text, is_owner boolean,
    owner_may_embed boolean, owner_may_create boolean, has_names boolean, has_column boolean, is_text boolean, is_virtual boolean,
    has_key boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::bigint, n.nspname::text,
           -- A collection keeps its name when its table or column is renamed.
           coalesce(
               (SELECT t.name
                FROM pgml_tune.collection AS t
                CROSS JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p
                WHERE t.source = c.oid AND p.plain_content = _source_facts.source_column AND strpos(t.name, '.') > 0
                LIMIT 1),
               n.nspname || '.' || c.relname || '.' || _source_facts.source_column
           ),
           c.relkind::text, c.relpersistence = 't',
           n.nspname IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast'),
           c.relispartition,
           c.relkind = 'r' AND NOT c.relispartition
               AND EXISTS (SELECT FROM pg_inherits AS h WHERE c.oid IN (h.inhparent, h.inhrelid)),
           c.relforcerowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper,
           quote_ident(r.rolname), pg_has_role(c.relowner, 'USAGE'),
           pgml_tune._may_embed(c.relowner),
           has_schema_privilege(c.relowner, n.oid, 'CREATE'),
           pgml_tune._object_base(c.oid, _source_facts.source_column, _source_facts.collection) IS NOT NULL,
           a.attnum IS NOT NULL,
           (SELECT t.typcategory = 'S' FROM pgml_tune._base_type(a.atttypid, -1) AS b JOIN pg_type AS t ON t.oid = b.base),
           a.attgenerated = 'v',
           pgml_tune._source_key(c.oid, a.attnum) IS NOT NULL
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_roles AS r ON r.oid = c.relowner
    LEFT JOIN pg_attribute AS a
        ON a.attrelid = c.oid AND a.attname = _source_facts.source_column AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid = _source_facts.source
$$;
COMMENT ON FUNCTION pgml_tune._source_facts(regclass, text, text) IS 'What decides whether a column can be kept embedded.';

CREATE OR REPLACE FUNCTION pgml_tune._collection_parts(collection_id bigint)
RETURNS TABLE (
    source text, embeddings text, content text, plain_content text, key_attnums smallint[], key_names text[], numbered_keys text, key_list text, key_match text, row_match text,
    model text, storage text, chunk_tokens integer, chunk_overlap integer, lexemes text, is_filled boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.source::text, t.embeddings::text,
           quote_ident(k.names[cardinality(k.names)]),
           k.names[cardinality(k.names)], (g.tgattr::smallint[])[0:cardinality(k.names) - 2],
           k.names[:cardinality(k.names) - 1], k.numbered, k.listed, k.matches, k.row_matches,
           t.model_reference, x.vector_type || '(' || t.dimensions || ')', t.chunk_tokens, t.chunk_overlap,
           -- A tsvector holds 1 MB at most, and a word may count twice. A configuration that was dropped makes none.
           coalesce((
               SELECT format(
                   'CASE WHEN v.chunk_no = 1 THEN to_tsvector(%L::regconfig, left(f.content, 100000)) END', t.text_search
               )
               FROM pg_ts_config AS y WHERE y.oid::regconfig::text = t.text_search
           ), 'NULL::tsvector'),
           t.is_filled
    FROM pgml_tune.collection AS t
    JOIN pg_trigger AS g ON g.tgrelid = t.source AND g.tgname = 'pgml_tune_' || t.collection_id || '_columns'
    CROSS JOIN LATERAL (SELECT pgml_tune._vector_schema() || '.' || t.storage) AS x (vector_type)
    CROSS JOIN LATERAL (
        SELECT bool_and(c.is_text OR c.base = i.atttypid) AS has_keys,
               array_agg(c.name ORDER BY c.position) AS names,
               string_agg(format('s.%I AS key_%s', c.name, c.position), ', ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS numbered,
               string_agg('key_' || c.position, ', ' ORDER BY c.position) FILTER (WHERE NOT c.is_text) AS listed,
               string_agg(format('s.%I %s e.key_%s', c.name, c.equality, c.position), ' AND ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS matches,
               string_agg(format('s.%1$I %2$s n.%1$I', c.name, c.equality), ' AND ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS row_matches
        FROM (
            SELECT u.position, a.attname::text AS name, u.position = cardinality(g.tgattr::smallint[]) AS is_text,
                   CASE y.typtype WHEN 'd' THEN (SELECT b.base FROM pgml_tune._base_type(y.oid, -1) AS b) ELSE y.oid END AS base,
                   CASE y.typtype WHEN 'b' THEN pgml_tune._equality(y.oid)
                       ELSE pgml_tune._equality((SELECT b.base FROM pgml_tune._base_type(y.oid, -1) AS b)) END AS equality
            FROM unnest(g.tgattr::smallint[]) WITH ORDINALITY AS u (attnum, position)
            JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = u.attnum
            JOIN pg_type AS y ON y.oid = a.atttypid
        ) AS c
        LEFT JOIN pg_attribute AS i
            ON i.attrelid = t.embeddings AND i.attname = 'key_' || c.position AND NOT i.attisdropped
    ) AS k
    WHERE t.collection_id = _collection_parts.collection_id
      -- The side table is its owner's, who may have given a column a type with casts of his own: they would run as any reader.
      AND k.has_keys
      AND (SELECT o.relkind = 'r' AND o.relnamespace = 'pgml_tune'::regnamespace FROM pg_class AS o WHERE o.oid = t.embeddings)
      AND 4 = (
          SELECT count(*) FROM pg_attribute AS i
          WHERE i.attrelid = t.embeddings AND i.attnum > 0 AND NOT i.attisdropped AND CASE i.attname
              WHEN 'chunk_no' THEN i.atttypid = 'integer'::regtype
              WHEN 'text_sha256' THEN i.atttypid = 'bytea'::regtype
              WHEN 'lexemes' THEN i.atttypid = 'tsvector'::regtype
              WHEN 'embedding' THEN i.atttypid = to_regtype(x.vector_type) AND i.atttypmod = t.dimensions
              ELSE false
          END
      );
END
$$;
COMMENT ON FUNCTION pgml_tune._collection_parts(bigint) IS
    'The names of today, quoted, from which the statements of a collection are made, with the aliases s (source), n (its new rows), e (side table), f (texts), v (their vectors). No row: its table or column is gone, or the side table is not as it was made.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_tables(embeddings regclass, source regclass)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT bool_and(c.relkind IN ('r', 'p')) FROM pg_class AS c WHERE c.oid IN (embeddings, source)) THEN
        -- The source first, as its writers do.
        EXECUTE format('SELECT FROM %s AS s, %s AS e LIMIT 0', source, embeddings);
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_tables(regclass, regclass) IS
    'Locks both tables of a collection against changes of their columns until the transaction ends: what _collection_parts() says afterwards stays so.';
-- The vectors of a collection, as triggers and fills write them: always as the owner of the source, never as a superuser. A trigger
-- that an owner puts on his side table must not run as anybody but him.

CREATE OR REPLACE FUNCTION pgml_tune._sync_statements(collection_id bigint, event text, relation oid, row_count bigint)
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_few_rows CONSTANT integer := 100;  -- their statement is planned in half the time
    p record;
    v_hash text := 'sha256(convert_to(s.%s::text, ''UTF8''))';
    v_has_changed text := '';  -- an inserted row always has
    v_known text := '';
    v_is_fresh text := 'true';
    v_fresh text;
    v_contents text;
    v_question text := 'SELECT true';
    v_has_rows boolean;
    v_source text;  -- where the rows of this statement are
    v_is_blind boolean;
    v_new text;  -- the new rows, as they are now
    v_gone text;  -- a row of the same key that is still there
    v_partition text;  -- the condition that holds for keys of this partition; NULL: it is not one, or not his
    v_statements text[];
BEGIN
    SELECT * INTO p FROM pgml_tune._collection_parts(collection_id);
    -- The column was dropped with CASCADE, or only the schema was restored: the table stays writable, doctor() tells.
    IF NOT FOUND THEN
        IF NOT EXISTS (
            SELECT FROM pg_trigger AS g
            WHERE g.tgrelid = relation AND g.tgname = format('pgml_tune_%s_%s', collection_id, lower(event))
        ) THEN
            RAISE EXCEPTION 'table % is kept embedded since after this transaction began', relation::regclass
                USING ERRCODE = '40001', DETAIL = 'Its isolation level hides the collection from it.', HINT = 'ROLLBACK';
        END IF;
        RETURN ARRAY['SELECT false'];
    END IF;
    v_source := p.source;
    IF relation <> p.source::regclass THEN
        -- A partition that was detached keeps its triggers until maintain() finds it.
        IF p.source::regclass <> ALL (SELECT r::oid FROM pg_partition_ancestors(relation) AS r) THEN
            RETURN ARRAY['SELECT false'];
        END IF;
        -- The key holds the partition key, so no other partition has to be looked into, or locked.
        IF (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = relation) THEN
            v_source := relation::regclass::text;
            v_partition := pg_get_partition_constraintdef(relation);
        END IF;
    END IF;
    v_hash := format(v_hash, p.content);
    v_new := format('pgml_tune_new AS n JOIN %s AS s ON %s', v_source, p.row_match);
    v_gone := format('%s AS s WHERE %s', v_source, p.key_match);
    -- After a change of owner the triggers run as the former one, until maintain(): without a look into the table.
    v_is_blind := NOT has_table_privilege(v_source, 'SELECT');
    IF event IN ('INSERT', 'UPDATE')
        AND (v_is_blind OR relation = p.source::regclass AND pgml_tune._is_plainly_partitioned(relation)) THEN
        -- To plan a look into each of many partitions takes longer than the model. No trigger of the user has had its say there.
        v_new := 'pgml_tune_new AS n CROSS JOIN LATERAL (SELECT n.*) AS s';
        v_gone := format('pgml_tune_new AS s WHERE %s', p.key_match);
    ELSIF v_is_blind THEN
        v_gone := '(SELECT 1) AS s WHERE false';
    END IF;

    IF event = 'TRUNCATE' THEN
        IF relation = p.source::regclass AND NOT v_is_blind THEN
            -- A trigger of the user may have put rows back.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p.source) INTO v_has_rows;
            IF NOT v_has_rows THEN
                RETURN ARRAY[v_question, format('TRUNCATE ONLY %s', p.embeddings)];
            END IF;
        END IF;
        RETURN ARRAY[v_question, format(
            'DELETE FROM %s AS e WHERE NOT EXISTS (SELECT FROM %s)
             AND EXISTS (SELECT FROM (SELECT %s) AS s WHERE %s)',
            p.embeddings, v_gone, (
                SELECT string_agg(format('e.key_%s AS %I', k.position, k.name), ', ')
                FROM unnest(p.key_names) WITH ORDINALITY AS k (name, position)
            ), coalesce(v_partition, 'true')
        )];
    END IF;

    IF event = 'UPDATE' THEN
        v_has_changed := format(
            'AND NOT EXISTS (SELECT FROM %s AS e WHERE %s AND e.chunk_no = 1 AND e.text_sha256 = %s)',
            p.embeddings, p.key_match, v_hash
        );
        -- A row whose key has changed, and a text that another row of this statement had before, take its vectors along.
        v_known := format(
            'known AS MATERIALIZED (
                SELECT DISTINCT ON (e.text_sha256, e.chunk_no) e.text_sha256, e.chunk_no, e.embedding, e.lexemes
                FROM pgml_tune_old AS s JOIN %s AS e ON %s
                WHERE e.text_sha256 IN (SELECT c.text_sha256 FROM changed AS c)
             ), ', p.embeddings, p.key_match
        );
        v_is_fresh := 'NOT EXISTS (SELECT FROM known AS k WHERE k.text_sha256 = c.text_sha256)';
    END IF;
    IF row_count <= c_few_rows THEN
        v_fresh := format('SELECT c.*, 1 AS part, row_number() OVER () AS text_no FROM changed AS c WHERE %s', v_is_fresh);
        v_contents := 'SELECT 1 AS part, ARRAY(SELECT f.content FROM fresh AS f ORDER BY f.text_no) AS contents';
    ELSE
        -- At most 10000 texts and about 8 MB go to the model at once.
        v_fresh := format(
            'SELECT f.*, row_number() OVER (PARTITION BY f.part ORDER BY f.place) AS text_no
             FROM (
                 SELECT c.*, row_number() OVER w AS place,
                        (row_number() OVER w - 1) / 10000 + sum(octet_length(c.content)) OVER w / 8388608 AS part
                 FROM changed AS c WHERE %s WINDOW w AS (ROWS UNBOUNDED PRECEDING)
             ) AS f', v_is_fresh
        );
        v_contents := 'SELECT f.part, array_agg(f.content ORDER BY f.text_no) AS contents FROM fresh AS f GROUP BY f.part';
    END IF;

    IF event IN ('INSERT', 'UPDATE') THEN
        v_statements := ARRAY[format(
            'WITH changed AS MATERIALIZED (
                SELECT %1$s, s.%2$s::text AS content, %3$s AS text_sha256
                -- As they are now: a trigger of the user may have changed a row again, which was an event of its own.
                FROM %15$s
                WHERE s.%2$s::text = n.%2$s::text %5$s
             ), %6$sfresh AS MATERIALIZED (
                %7$s
             ), vectors AS MATERIALIZED (
                SELECT b.part, v.text_no, v.chunk_no, v.embedding
                FROM (%16$s) AS b CROSS JOIN LATERAL pgml_tune._embed_passages(b.contents, %8$L, %9$L, %10$L) AS v
                WHERE cardinality(b.contents) > 0
             )
             INSERT INTO %4$s (%11$s, chunk_no, text_sha256, embedding, lexemes)
             SELECT f.%12$s, v.chunk_no, f.text_sha256, v.embedding, %13$s
             FROM vectors AS v JOIN fresh AS f ON f.part = v.part AND f.text_no = v.text_no
             %14$s
             ON CONFLICT (%11$s, chunk_no) DO UPDATE
             SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes',
            p.numbered_keys, p.content, v_hash, p.embeddings, v_has_changed, v_known, v_fresh, p.model, p.chunk_tokens,
            p.chunk_overlap, p.key_list, replace(p.key_list, ', ', ', f.'), p.lexemes,
            CASE WHEN event = 'UPDATE' THEN format(
                'UNION ALL SELECT c.%s, k.chunk_no, k.text_sha256, k.embedding, k.lexemes
                 FROM changed AS c JOIN known AS k ON k.text_sha256 = c.text_sha256',
                replace(p.key_list, ', ', ', c.')
            ) ELSE '' END,
            v_new, v_contents
        ), format(
            'DELETE FROM %s AS e USING %s WHERE %s AND e.text_sha256 IS DISTINCT FROM %s',
            p.embeddings, v_new, p.key_match, v_hash
        )];
    END IF;
    IF event = 'UPDATE' AND p.is_filled THEN
        -- Most updates change neither the text nor the key.
        v_question := format(
            'SELECT EXISTS (SELECT %1$s, s.%2$s::text COLLATE "C" FROM pgml_tune_new AS s
                                EXCEPT ALL SELECT %1$s, s.%2$s::text COLLATE "C" FROM pgml_tune_old AS s)',
            p.numbered_keys, p.content
        );
    END IF;
    IF event IN ('UPDATE', 'DELETE') THEN
        v_statements := v_statements || format(
            'DELETE FROM %1$s AS e USING pgml_tune_old AS s
             WHERE %2$s AND NOT EXISTS (SELECT FROM %3$s)',
            p.embeddings, p.key_match, v_gone
        );
    END IF;
    RETURN v_question || v_statements;
END
$$;
COMMENT ON FUNCTION pgml_tune._sync_statements(bigint, text, oid, bigint) IS
    'The statements with which the trigger of a collection follows INSERT, UPDATE, DELETE or TRUNCATE of a table, after a question whether there is anything to do.';

CREATE OR REPLACE FUNCTION pgml_tune._is_plainly_partitioned(relation oid)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = relation) AND NOT EXISTS (
        SELECT FROM pg_partition_tree(relation) AS t
        JOIN pg_trigger AS g ON g.tgrelid = t.relid
        WHERE NOT g.tgisinternal AND g.tgtype & 2 = 0 AND g.tgname !~ '^pgml_tune_[0-9]+_'  -- 2: BEFORE
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._is_plainly_partitioned(oid) IS
    'Whether a table is partitioned and no AFTER trigger but ours can have changed its rows since they were written.';

CREATE OR REPLACE FUNCTION pgml_tune._keep_part(
    collection_id bigint, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_leaf text;
    v_rows tid[];
    v_contents text[];
    v_hashes bytea[];
    v_is_cut boolean;
    v_stored integer;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_leaf
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = leaf;
    IF NOT FOUND OR v_leaf <> p.source AND p.source::regclass <> ALL (SELECT r::oid FROM pg_partition_ancestors(leaf) AS r) THEN
        RETURN '{0,0,0}';
    END IF;

    EXECUTE format(
        'SELECT array_agg(b.row_id ORDER BY b.row_id) FILTER (WHERE b.fits),
                array_agg(b.content ORDER BY b.row_id) FILTER (WHERE b.fits),
                array_agg(b.text_sha256 ORDER BY b.row_id) FILTER (WHERE b.fits),
                NOT bool_and(b.fits)
         FROM (
             -- About 4 MB of text at once, and one text at least.
             SELECT a.*, sum(octet_length(a.content)) OVER (ORDER BY a.row_id ROWS UNBOUNDED PRECEDING)
                 - octet_length(a.content) < 4194304 AS fits
             FROM (
                 SELECT s.ctid AS row_id, s.%1$s::text AS content, h.text_sha256
                 FROM ONLY %2$s AS s
                 CROSS JOIN LATERAL (SELECT sha256(convert_to(s.%1$s::text, ''UTF8'')) OFFSET 0) AS h (text_sha256)
                 WHERE s.ctid >= $1 AND s.ctid < $2 AND s.%1$s IS NOT NULL AND NOT EXISTS (
                     SELECT FROM %3$s AS e WHERE %4$s AND e.chunk_no = 1 AND e.text_sha256 = h.text_sha256
                 )
                 LIMIT $3
             ) AS a
         ) AS b',
        p.content, v_leaf, p.embeddings, p.key_match
    ) INTO v_rows, v_contents, v_hashes, v_is_cut
    USING format('(%s,0)', first_block)::tid, format('(%s,0)', end_block)::tid, max_rows;
    IF v_rows IS NULL THEN
        RETURN '{0,0,0}';
    END IF;

    -- The model works without a lock on anything; what has changed meanwhile is left to the trigger of that change.
    SELECT pgml_tune._store_vectors(
        collection_id, v_leaf, v_rows, v_contents, v_hashes,
        array_agg(v.text_no), array_agg(v.chunk_no), array_agg(v.embedding)
    ) INTO v_stored
    FROM pgml_tune._embed_passages(v_contents, p.model, p.chunk_tokens, p.chunk_overlap) AS v;
    RETURN ARRAY[cardinality(v_rows), v_stored, v_is_cut::integer];
END
$$;
COMMENT ON FUNCTION pgml_tune._keep_part(bigint, oid, bigint, bigint, integer) IS
    'Embeds rows of some blocks of a leaf whose text has no vectors yet; how many were found, how many stored, and 1 if there may be more.';

CREATE OR REPLACE FUNCTION pgml_tune._store_vectors(
    collection_id bigint, leaf text, row_ids tid[], contents text[], hashes bytea[],
    text_nos integer[], chunk_nos integer[], embeddings vector[]
)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_locked tid[];
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    -- A row that is locked is skipped, so nobody is drawn into a deadlock; so is one whose text is another by now.
    EXECUTE format(
        'SELECT array_agg(l.row_id)
         FROM (
             SELECT s.ctid AS row_id, sha256(convert_to(s.%s::text, ''UTF8'')) AS text_sha256
             FROM ONLY %s AS s WHERE s.ctid = ANY ($1) FOR SHARE OF s SKIP LOCKED
         ) AS l JOIN unnest($1, $2) AS t (row_id, text_sha256) ON l.row_id = t.row_id AND l.text_sha256 = t.text_sha256',
        p.content, leaf
    ) INTO v_locked USING row_ids, hashes;
    EXECUTE format(
        'WITH f AS (
             SELECT %1$s, t.content, t.text_sha256, t.text_no
             FROM unnest($1, $2, $3) WITH ORDINALITY AS t (row_id, content, text_sha256, text_no)
             JOIN ONLY %2$s AS s ON s.ctid = t.row_id
             WHERE s.ctid = ANY ($7)
         )
         INSERT INTO %3$s (%4$s, chunk_no, text_sha256, embedding, lexemes)
         SELECT f.%5$s, v.chunk_no, f.text_sha256, v.embedding, %6$s
         FROM f JOIN unnest($4, $5, $6) AS v (text_no, chunk_no, embedding) ON v.text_no = f.text_no
         ON CONFLICT (%4$s, chunk_no) DO UPDATE
         SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes',
        p.numbered_keys, leaf, p.embeddings, p.key_list, replace(p.key_list, ', ', ', f.'), p.lexemes
    ) USING row_ids, contents, hashes, text_nos, chunk_nos, embeddings, v_locked;
    EXECUTE format(
        'DELETE FROM %s AS e USING ONLY %s AS s
         WHERE s.ctid = ANY ($1) AND %s AND e.text_sha256 IS DISTINCT FROM sha256(convert_to(s.%s::text, ''UTF8''))',
        p.embeddings, leaf, p.key_match, p.content
    ) USING v_locked;
    RETURN coalesce(cardinality(v_locked), 0);
END
$$;
COMMENT ON FUNCTION pgml_tune._store_vectors(bigint, text, tid[], text[], bytea[], integer[], integer[], vector[]) IS
    'Writes vectors of rows that still have the text they were made of, and says of how many rows.';

CREATE OR REPLACE FUNCTION pgml_tune._keep_orphans(collection_id bigint)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_rows tid[];
    v_deleted integer;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    -- Locked first and looked at again: a row that comes back meanwhile waits here, and then adds its vectors anew.
    EXECUTE format(
        'SELECT array_agg(o.row_id) FROM (
             SELECT e.ctid AS row_id FROM %s AS e
             WHERE NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL) FOR UPDATE OF e SKIP LOCKED
         ) AS o',
        p.embeddings, p.source, p.key_match, p.content
    ) INTO v_rows;
    EXECUTE format(
        'DELETE FROM %s AS e WHERE e.ctid = ANY ($1)
         AND NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL)',
        p.embeddings, p.source, p.key_match, p.content
    ) USING v_rows;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN ARRAY[coalesce(cardinality(v_rows), 0), v_deleted, 0];
END
$$;
COMMENT ON FUNCTION pgml_tune._keep_orphans(bigint) IS
    'Deletes the vectors of rows that are gone, or have no text any more.';

-- Without a SET clause, at whose end the settings would be merged that are to be taken back; they name nothing.
CREATE OR REPLACE FUNCTION pgml_tune._begin_restricted()
RETURNS integer
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import collection
return collection.begin_restricted()
$python$;
COMMENT ON FUNCTION pgml_tune._begin_restricted() IS
    'Lets code of an owner, in a function of an index for instance, leave nothing behind that would run as whoever commits; granted to nobody.';

CREATE OR REPLACE FUNCTION pgml_tune._end_restricted(level integer)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import collection
return collection.end_restricted(level)
$python$;
COMMENT ON FUNCTION pgml_tune._end_restricted(integer) IS 'Ends what _begin_restricted() has begun; granted to nobody.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_collection(collection_id bigint, function text, manner text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_source regclass;
    v_embeddings regclass;
BEGIN
    -- Locks are taken in the order in which writers and drop_auto_embed() take them: the source first.
    SELECT t.source, t.embeddings INTO v_source, v_embeddings
    FROM pgml_tune.collection AS t WHERE t.collection_id = _hold_collection.collection_id;
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = v_source) THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ROW SHARE MODE', v_source);
    END IF;
    -- One session at a time: two would embed the same rows, or write over what the other has made of a later text. Who only reads
    -- waits for nobody but one that drops it.
    BEGIN
        IF manner = 'read' THEN
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR KEY SHARE;
        ELSIF manner = 'wait' THEN
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR NO KEY UPDATE;
        ELSE
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR NO KEY UPDATE NOWAIT;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the collection is gone' USING ERRCODE = '42704';
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'the collection of table % is being filled by another session', v_source USING ERRCODE = '55P03';
    END;
    -- Its owner may have made the function run as its caller, who is a superuser here. The lock keeps it as it is till the end.
    PERFORM FROM pg_proc AS p
    JOIN pgml_tune.collection AS t ON t.collection_id = _hold_collection.collection_id
    JOIN pg_class AS c ON c.oid = t.source
    WHERE p.oid = to_regprocedure(function)
      AND p.prosecdef AND p.proowner = c.relowner
      AND p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp']
    FOR SHARE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the functions of the collection of table % are not as they were made', v_source
            USING ERRCODE = '55000', HINT = 'CALL maintain()';
    END IF;
    -- A trigger of his could wait for the commit, and would then run as whoever commits.
    EXECUTE format('LOCK TABLE ONLY %s IN ROW EXCLUSIVE MODE', v_embeddings);
    IF NOT pgml_tune._is_pristine(v_embeddings) THEN
        RAISE EXCEPTION 'table % is not as it was made', v_embeddings USING ERRCODE = '55000';
    END IF;
    -- What is called afterwards relies on it: both tables are locked now.
    IF NOT EXISTS (SELECT FROM pgml_tune._collection_parts(collection_id)) THEN
        RAISE EXCEPTION 'the collection is gone' USING ERRCODE = '42704';
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_collection(bigint, text, text) IS
    'Locks a collection against other sessions that fill it (manner try: or refuses, wait) or drop it (read), and makes sure that a function of its owner may be called on it.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_collection(
    collection_id bigint, task text, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_manner text := 'try';
    v_level integer;
    v_result bigint[];
BEGIN
    -- Those that feed it hold it again and again, for as long as it takes to store a batch; nobody else has claimed rows of it.
    IF EXISTS (SELECT FROM pgml_tune.collection AS t WHERE t.collection_id = _fill_collection.collection_id AND t.mode = 'queue')
        OR EXISTS (SELECT FROM pgml_tune.queue AS q WHERE q.collection_id = _fill_collection.collection_id) THEN
        v_manner := 'wait';
    END IF;
    PERFORM pgml_tune._hold_collection(
        collection_id, format('pgml_tune._keep_%s(text, oid, bigint, bigint, integer)', collection_id), v_manner
    );
    v_level := pgml_tune._begin_restricted();
    EXECUTE format('SELECT pgml_tune._keep_%s($1, $2, $3, $4, $5)', collection_id)
    INTO v_result USING task, leaf, first_block, end_block, max_rows;
    PERFORM pgml_tune._end_restricted(v_level);
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_collection(bigint, text, oid, bigint, bigint, integer) IS
    'Works on a collection as the owner of its source: embeds rows of a range of blocks (fill), deletes vectors of rows that are gone (orphans), queues rows without vectors (enqueue), searches with some of its texts (probe), or counts rows (as _count_rows).';

CREATE OR REPLACE FUNCTION pgml_tune._count_rows(collection_id bigint, what text)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p record;
    v_count bigint;
BEGIN
    SELECT c.* INTO p FROM pgml_tune._collection_parts(collection_id) AS c;
    IF NOT FOUND OR NOT has_table_privilege(p.embeddings, 'SELECT') OR NOT (
        SELECT bool_and(has_column_privilege(p.source, c.name, 'SELECT'))
        FROM unnest(p.key_names || p.plain_content) AS c (name)
    ) THEN
        RETURN NULL;
    END IF;
    PERFORM pgml_tune._hold_tables(p.embeddings, p.source);
    SELECT c.* INTO p FROM pgml_tune._collection_parts(collection_id) AS c;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        CASE what
            WHEN 'rows' THEN 'SELECT count(*) FROM %1$s AS s WHERE s.%2$s IS NOT NULL'
            WHEN 'embedded' THEN
                'SELECT count(*) FROM %1$s AS s JOIN %3$s AS e ON %4$s AND e.chunk_no = 1
                 WHERE e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8''))'
            WHEN 'stale' THEN
                'SELECT count(*) FROM %1$s AS s JOIN %3$s AS e ON %4$s AND e.chunk_no = 1
                 WHERE e.text_sha256 IS DISTINCT FROM sha256(convert_to(s.%2$s::text, ''UTF8''))'
            WHEN 'missing' THEN
                'SELECT count(*) FROM %1$s AS s WHERE s.%2$s IS NOT NULL AND NOT EXISTS (
                     SELECT FROM %3$s AS e WHERE %4$s AND e.chunk_no = 1
                        AND e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8'')))'
        END,
        p.source, p.content, p.embeddings, p.key_match
    ) INTO v_count;
    RETURN v_count;
EXCEPTION WHEN undefined_table THEN  -- dropped meanwhile
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._count_rows(bigint, text) IS
    'Rows with a text that the caller sees (rows), those with vectors of it (embedded), with vectors of another (stale), or without vectors of it (missing); NULL where he may not read the table.';
-- The objects that belong to a collection: side table, functions, triggers, indexes, view, query function and who may use them.

CREATE OR REPLACE FUNCTION pgml_tune._function_statements(collection_id bigint)
RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- OR REPLACE takes back whatever an earlier owner has made of them.
    SELECT ARRAY[CASE t.mode WHEN 'queue' THEN format(
        'CREATE OR REPLACE FUNCTION pgml_tune._sync_%1$s() RETURNS trigger
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off
         SET datestyle = ''ISO'' SET intervalstyle = ''postgres'' SET bytea_output = ''hex'' SET extra_float_digits = 1
         AS $body$
         BEGIN
             EXECUTE pgml_tune._enqueue_statement(%1$s, TG_OP, TG_RELID);
             RETURN NULL;
         END
         $body$', t.collection_id
    ) ELSE format(
        'CREATE OR REPLACE FUNCTION pgml_tune._sync_%1$s() RETURNS trigger
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET pgml_tune.cache = ''off''
         SET row_security = off SET jit = off SET enable_seqscan = on
         AS $body$
         DECLARE
             v_rows bigint;
             v_statements text[];
             v_statement text;
             v_has_changed boolean;
         BEGIN
             IF TG_OP IN (''INSERT'', ''UPDATE'') THEN
                 SELECT count(*) INTO v_rows FROM pgml_tune_new;
             ELSIF TG_OP = ''DELETE'' THEN
                 SELECT count(*) INTO v_rows FROM pgml_tune_old;
             END IF;
             IF v_rows <= 100 THEN
                 -- Whatever the statistics say: few rows are found by their keys. Only until this function returns.
                 PERFORM set_config(''enable_seqscan'', ''off'', true);
             END IF;
             v_statements := pgml_tune._sync_statements(%1$s, TG_OP, TG_RELID, v_rows);
             -- What answers searches is whole, or the writer fails; of a candidate, or of a former version, he need not know.
             IF EXISTS (SELECT FROM pgml_tune.collection_route AS r WHERE r.collection_id = %1$s) THEN
                 %2$s
             ELSE
                 BEGIN
                     %2$s
                 EXCEPTION WHEN others THEN
                     IF SQLSTATE ~ ''^(40|55P03|57)'' THEN  -- what others prevent for the moment
                         RAISE;
                     END IF;
                     PERFORM pgml_tune._miss_vectors(%1$s, SQLERRM);
                 END;
             END IF;
             RETURN NULL;
         END
         $body$', t.collection_id,
        'EXECUTE v_statements[1] INTO v_has_changed;
                 IF v_has_changed THEN
                     FOREACH v_statement IN ARRAY v_statements[2:] LOOP
                         EXECUTE v_statement;
                     END LOOP;
                 END IF;'
    ) END, format(
        'CREATE OR REPLACE FUNCTION pgml_tune._keep_%1$s(
             task text, leaf oid, first_block bigint, end_block bigint, max_rows integer
         )
         RETURNS bigint[]
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET pgml_tune.cache = ''off''
         SET row_security = off SET jit = off
         SET datestyle = ''ISO'' SET intervalstyle = ''postgres'' SET bytea_output = ''hex'' SET extra_float_digits = 1
         AS $body$
         BEGIN
             RETURN CASE task
                 WHEN ''fill'' THEN pgml_tune._keep_part(%1$s, leaf, first_block, end_block, max_rows)
                 WHEN ''orphans'' THEN pgml_tune._keep_orphans(%1$s)
                 WHEN ''enqueue'' THEN ARRAY[pgml_tune._enqueue_missing(%1$s)]
                 WHEN ''probe'' THEN pgml_tune._probe_vectors(%1$s, max_rows)
                 ELSE ARRAY[pgml_tune._count_rows(%1$s, task)]
             END;
         END
         $body$', t.collection_id
    ), format(
        'REVOKE ALL ON FUNCTION pgml_tune._sync_%1$s(), pgml_tune._keep_%1$s(text, oid, bigint, bigint, integer) FROM PUBLIC',
        t.collection_id
    ), format(
        'COMMENT ON FUNCTION pgml_tune._sync_%s() IS %L', t.collection_id,
        format('Trigger of collection "%s": follows what happens to its table.', t.name)
    ), format(
        'COMMENT ON FUNCTION pgml_tune._keep_%s(text, oid, bigint, bigint, integer) IS %L', t.collection_id,
        format('Embeds rows of collection "%s" that have no vectors.', t.name)
    )] || CASE t.mode WHEN 'queue' THEN ARRAY[format(
        'CREATE OR REPLACE FUNCTION pgml_tune._feed_%1$s(
             keys text[], hashes bytea[], text_nos integer[], chunk_nos integer[], vectors %2$s.vector[]
         )
         RETURNS TABLE (key_no integer, content text, text_sha256 bytea)
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off
         SET datestyle = ''ISO'' SET intervalstyle = ''postgres'' SET bytea_output = ''hex'' SET extra_float_digits = 1
         SET enable_seqscan = off SET enable_mergejoin = off  -- whatever the statistics say: rows are found by their keys
         AS $body$
         BEGIN
             IF hashes IS NULL THEN
                 RETURN QUERY SELECT * FROM pgml_tune._read_queued(%1$s, keys);
             ELSE
                 RETURN QUERY
                 SELECT s.key_no, NULL::text, NULL::bytea
                 FROM pgml_tune._store_queued(%1$s, keys, hashes, text_nos, chunk_nos, vectors) AS s (key_no);
             END IF;
         END
         $body$', t.collection_id, pgml_tune._vector_schema()
    ), format(
        'REVOKE ALL ON FUNCTION %s FROM PUBLIC', pgml_tune._feed_function(t.collection_id)
    ), format(
        'COMMENT ON FUNCTION %s IS %L', pgml_tune._feed_function(t.collection_id),
        format('Reads texts of collection "%s" whose keys were queued, and writes their vectors.', t.name)
    )] ELSE '{}' END
    FROM pgml_tune.collection AS t WHERE t.collection_id = _function_statements.collection_id
$$;
COMMENT ON FUNCTION pgml_tune._function_statements(bigint) IS 'What makes the functions that write the vectors of a collection.';

CREATE OR REPLACE FUNCTION pgml_tune._miss_vectors(collection_id bigint, message text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _miss_vectors.collection_id;
    INSERT INTO pgml_tune.vectors_missed (collection_id, message) VALUES (t.collection_id, _miss_vectors.message);
    RAISE WARNING 'collection "%": vectors of % could not be made: %', t.name, t.model_reference, message
        USING HINT = 'CALL maintain()';
END
$$;
COMMENT ON FUNCTION pgml_tune._miss_vectors(bigint, text) IS
    'Notes that rows lack vectors which answer no search now, because they could not be made.';

CREATE OR REPLACE FUNCTION pgml_tune._query_statements(collection_id bigint, view_name text, query_function text)
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    p record;
    v_names text[];
    v_columns text;
    v_type text;
    v_reference text;
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _query_statements.collection_id;
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    v_reference := coalesce(t.query_reference, t.model_reference);
    v_type := pgml_tune._vector_schema() || '.' || t.storage;
    -- The columns of the source keep their names, those beside them give way.
    v_names := p.key_names || p.plain_content;
    SELECT string_agg(format('s.%I', k.name), ', ' ORDER BY k.position) INTO v_columns
    FROM (SELECT n.name, min(n.position) FROM unnest(v_names) WITH ORDINALITY AS n (name, position) GROUP BY n.name)
        AS k (name, position);
    RETURN ARRAY[format(
        'CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS
         SELECT %s, e.chunk_no AS %I, e.embedding::%s AS %I FROM %s AS s JOIN %s AS e ON %s',
        _query_statements.view_name, v_columns, pgml_tune._free_name('chunk', v_names), v_type,
        pgml_tune._free_name('embedding', v_names), p.source, p.embeddings, p.key_match
    ), format(
        'COMMENT ON VIEW %s IS %L', _query_statements.view_name,
        format('Texts of collection "%s" with their vectors, for an ORDER BY of your own.', t.name)
    ), format(
        'CREATE OR REPLACE FUNCTION %s(input text) RETURNS %s
         LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000
         RETURN @extschema@.embed_pinned(input, %L, %L, ''query'')%s',
        _query_statements.query_function, v_type, split_part(v_reference, '@', 1), split_part(v_reference, '@', 2),
        CASE t.storage WHEN 'halfvec' THEN '::' || v_type ELSE '' END
    ), format(
        'COMMENT ON FUNCTION %s(text) IS %L', _query_statements.query_function,
        pgml_tune._query_comment(t.name, v_reference)
    )];
END
$$;
COMMENT ON FUNCTION pgml_tune._query_statements(bigint, text, text) IS
    'What makes the view and the query function of a collection.';

CREATE OR REPLACE FUNCTION pgml_tune._query_function(collection_id bigint)
RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT f.oid
        FROM pgml_tune.collection AS t
        -- Not by to_regprocedure(), which those may not ask who have no right on the schema.
        JOIN pg_proc AS f ON f.proname = (parse_ident(t.query_function, false))[2] AND f.pronargs = 1
        JOIN pg_namespace AS n ON n.oid = f.pronamespace
            AND format('%I.%I(text)', n.nspname, f.proname) = t.query_function AND f.proargtypes[0] = 'text'::regtype
        -- After renames a function of that name may be another collection's: the comment tells.
        WHERE t.collection_id = _query_function.collection_id
          AND starts_with(obj_description(f.oid, 'pg_proc'), pgml_tune._query_comment(t.name, ''))
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._query_function(bigint) IS 'The query function of a collection; NULL if it is gone.';

CREATE OR REPLACE FUNCTION pgml_tune._query_comment(collection text, model text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('Vector of a question to collection "%s", under %s', collection, model) $$;
COMMENT ON FUNCTION pgml_tune._query_comment(text, text) IS 'What the comment of a query function says.';

CREATE OR REPLACE FUNCTION pgml_tune._make_query_objects(collection_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    v_source pg_class;
    v_schema text;
    v_base text;
    v_view text;
    v_function text;
    v_statement text;
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _make_query_objects.collection_id;
    SELECT c.* INTO STRICT v_source FROM pg_class AS c WHERE c.oid = t.source;
    v_schema := v_source.relnamespace::regnamespace::text;
    IF NOT has_schema_privilege(v_source.relowner, v_source.relnamespace, 'CREATE') THEN
        RAISE EXCEPTION 'the owner of table % may not create objects in its schema', t.source USING ERRCODE = '42501',
            HINT = format('GRANT CREATE ON SCHEMA %s TO %I', v_schema, pg_get_userbyid(v_source.relowner));
    END IF;
    -- One of the two may have been dropped by hand.
    FOREACH v_statement IN ARRAY ARRAY(
        SELECT format('DROP VIEW %s', c.oid::regclass) FROM pg_class AS c WHERE c.oid = t.view_name AND c.relkind = 'v'
        UNION ALL
        SELECT format('DROP FUNCTION %s', q.oid::regprocedure)
        FROM pgml_tune._query_function(collection_id) AS q (oid) WHERE q.oid IS NOT NULL
    ) LOOP
        EXECUTE v_statement;
    END LOOP;
    v_base := pgml_tune._object_base(
        t.source, (SELECT p.plain_content FROM pgml_tune._collection_parts(collection_id) AS p), t.name
    );
    IF v_base IS NULL THEN
        RAISE EXCEPTION 'the names of the view and the query function of collection "%" are taken', t.name
            USING ERRCODE = '42710';
    END IF;
    v_view := format('%s.%I', v_schema, v_base || '_embedding');
    v_function := format('%s.%I', v_schema, v_base || '_query');
    UPDATE pgml_tune.collection AS c
    SET query_reference = (SELECT r.model_reference FROM pgml_tune.collection_route AS r WHERE r.collection_id = t.collection_id)
    WHERE c.collection_id = t.collection_id;
    FOREACH v_statement IN ARRAY pgml_tune._query_statements(t.collection_id, v_view, v_function) LOOP
        EXECUTE v_statement;
    END LOOP;
    -- From now on people compare what plain embed() gives with what the view shows.
    PERFORM pgml_tune._make_serving_function(v.model_id)
    FROM pgml_tune.model_version AS v
    WHERE v.model_version_id = t.model_version_id AND to_regprocedure(pgml_tune._serving_function(v.model_id)) IS NULL;
    UPDATE pgml_tune.collection AS c SET view_name = v_view::regclass, query_function = v_function || '(text)'
    WHERE c.collection_id = t.collection_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._make_query_objects(bigint) IS 'Makes the view and the query function of a collection.';

CREATE OR REPLACE FUNCTION pgml_tune._is_pristine(embeddings regclass)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NOT EXISTS (SELECT FROM pg_trigger AS o WHERE o.tgrelid = embeddings)
        AND NOT EXISTS (SELECT FROM pg_rewrite AS o WHERE o.ev_class = embeddings)
        AND NOT EXISTS (SELECT FROM pg_attrdef AS o WHERE o.adrelid = embeddings)
        AND NOT EXISTS (SELECT FROM pg_constraint AS o WHERE o.conrelid = embeddings AND o.contype NOT IN ('p', 'u', 'n'))
        AND NOT EXISTS (SELECT FROM pg_inherits AS o WHERE embeddings IN (o.inhrelid, o.inhparent))
        AND NOT EXISTS (
            SELECT FROM pg_index AS o WHERE o.indrelid = embeddings AND (o.indexprs IS NOT NULL OR o.indpred IS NOT NULL)
        );
END
$$;
COMMENT ON FUNCTION pgml_tune._is_pristine(regclass) IS
    'Whether writing to a side table runs no code that its owner has put there.';

CREATE OR REPLACE FUNCTION pgml_tune._build_collection(collection_id bigint)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    v_class pg_class;
    v_attnum smallint;
    v_key smallint[];
    v_name text;
    v_keys text;
    v_columns text;
    v_statement text;
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c
    WHERE c.collection_id = _build_collection.collection_id FOR UPDATE;
    SELECT c.* INTO v_class FROM pg_class AS c WHERE c.oid = t.source;
    v_attnum := (
        SELECT a.attnum FROM pg_attribute AS a
        WHERE a.attrelid = t.source AND a.attname = t.source_column AND a.attnum > 0 AND NOT a.attisdropped
    );
    v_key := pgml_tune._source_key(t.source, v_attnum);
    IF t.embeddings IS NOT NULL OR v_class.relkind IS NULL OR v_class.relkind NOT IN ('r', 'p') OR v_class.relispartition
        OR v_attnum IS NULL OR v_key IS NULL THEN
        RAISE EXCEPTION 'collection "%" cannot be built', t.name USING ERRCODE = '55000';
    END IF;
    -- Whoever drops the version waits for this lock, and then finds the collection.
    PERFORM FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE v.model_version_id = t.model_version_id AND v.dimensions = t.dimensions
      AND m.name || '@' || v.version = t.model_reference
    FOR KEY SHARE OF v;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'collection "%" cannot be built', t.name USING ERRCODE = '55000';
    END IF;
    IF NOT t.is_twin AND EXISTS (
        SELECT FROM pgml_tune.serving AS s
        WHERE s.model_version_id = t.model_version_id AND s.wanted_version_id <> s.model_version_id
    ) THEN
        RAISE EXCEPTION 'a promotion of model "%" has not come to its end', split_part(t.model_reference, '@', 1)
            USING ERRCODE = '55000', HINT = 'CALL rollout_tick()';
    END IF;
    IF NOT t.is_twin THEN
        INSERT INTO pgml_tune.collection_route AS r (name, collection_id, model_reference)
        VALUES (t.name, t.collection_id, t.model_reference)
        ON CONFLICT (name) DO UPDATE SET collection_id = excluded.collection_id, model_reference = excluded.model_reference;
    ELSIF NOT EXISTS (
        -- Its searches may come here one day: it must be the same text, cut in the same way.
        SELECT FROM pgml_tune.collection_route AS r
        JOIN pgml_tune.collection AS c ON c.collection_id = r.collection_id
        CROSS JOIN LATERAL pgml_tune._collection_parts(c.collection_id) AS p
        WHERE r.name = t.name AND c.source = t.source AND p.plain_content = t.source_column
          AND (c.chunk_tokens, c.chunk_overlap, c.text_search) IS NOT DISTINCT FROM (t.chunk_tokens, t.chunk_overlap, t.text_search)
    ) THEN
        RAISE EXCEPTION 'collection "%" is not one of this column', t.name USING ERRCODE = '55000';
    END IF;
    v_name := format('embedding_%s_%s', t.collection_id, t.model_version_id);
    -- A restore of nothing but the schema leaves objects of collections whose numbers are given again.
    IF to_regclass('pgml_tune.' || v_name) IS NOT NULL
        OR to_regprocedure(format('pgml_tune._sync_%s()', t.collection_id)) IS NOT NULL THEN
        RAISE EXCEPTION 'parts of a collection are left of a restore without data' USING ERRCODE = '42710',
            HINT = pgml_tune._leftover_fix(t.collection_id);
    END IF;
    SELECT string_agg(
               format('key_%s %s %s NOT NULL', k.position, format_type(b.base, b.base_modifier), CASE
                   WHEN a.attcollation <> 0 THEN
                       (SELECT format('COLLATE %I.%I', n.nspname, o.collname)
                        FROM pg_collation AS o JOIN pg_namespace AS n ON n.oid = o.collnamespace WHERE o.oid = a.attcollation)
                   ELSE ''
               END), ', ' ORDER BY k.position),
           string_agg('key_' || k.position, ', ' ORDER BY k.position)
    INTO v_keys, v_columns
    FROM unnest(v_key) WITH ORDINALITY AS k (attnum, position)
    JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = k.attnum
    CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b;
    EXECUTE format(
        'CREATE %s TABLE pgml_tune.%I (
             %s,
             chunk_no integer NOT NULL,
             text_sha256 bytea NOT NULL,
             embedding %s.%s(%s) NOT NULL,
             lexemes tsvector,
             CONSTRAINT %I PRIMARY KEY (%s, chunk_no)
         -- The vector stays in the row, and does not go where it is read twice as slowly.
         ) WITH (toast_tuple_target = 8160)',
        CASE v_class.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE '' END, v_name, v_keys, pgml_tune._vector_schema(),
        t.storage, t.dimensions, v_name || '_pkey', v_columns
    );
    IF cardinality(v_key) = 1 THEN
        -- Statistics of one long document must not make each later write read the whole table.
        EXECUTE format('ALTER TABLE pgml_tune.%I ALTER key_1 SET (n_distinct = %s)', v_name,
            CASE WHEN t.chunk_tokens IS NULL THEN -1 ELSE -0.1 END);
    END IF;
    EXECUTE format('COMMENT ON TABLE pgml_tune.%I IS %L', v_name,
        format('Vectors of collection "%s"; text_sha256 is of the whole text.', t.name));

    FOREACH v_statement IN ARRAY pgml_tune._function_statements(t.collection_id) LOOP
        EXECUTE v_statement;
    END LOOP;
    UPDATE pgml_tune.collection AS c SET embeddings = format('pgml_tune.%I', v_name)::regclass
    WHERE c.collection_id = t.collection_id;

    -- Never fires. PostgreSQL keeps its list of columns true through renames, dumps and restores, and so do we find them.
    EXECUTE format(
        'CREATE TRIGGER pgml_tune_%1$s_columns AFTER UPDATE OF %2$s ON %3$s
         FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION pgml_tune._sync_%1$s()',
        t.collection_id,
        (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.position)
         FROM unnest(v_key || v_attnum) WITH ORDINALITY AS k (attnum, position)
         JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = k.attnum),
        t.source
    );
    PERFORM pgml_tune._mend_collection(t.collection_id);
END
$$;
COMMENT ON FUNCTION pgml_tune._build_collection(bigint) IS
    'Makes the side table, the functions and the triggers that the row of a collection asks for.';

CREATE OR REPLACE FUNCTION pgml_tune._finish_collection(collection_id bigint)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    v_missing bigint;
    v_noted tid[] := ARRAY(SELECT m.ctid FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = _finish_collection.collection_id);
    v_statement text;
BEGIN
    -- Counts as the owner of the source, and takes the locks in the order in which all take them.
    v_missing := (pgml_tune._fill_collection(collection_id, 'missing', NULL, NULL, NULL, NULL))[1];
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _finish_collection.collection_id;
    -- In mode queue some always wait, and those that were given up keep nobody from searching the others.
    IF v_missing > 0 AND t.mode <> 'queue' THEN
        RETURN v_missing;
    END IF;
    -- Triggers on partitions attached meanwhile first: once the indexes have locked the side table, no table may be waited for.
    PERFORM pgml_tune._mend_collection(collection_id);
    IF NOT t.is_ready THEN
        EXECUTE format('ANALYZE %s', t.embeddings);
    END IF;
    FOR v_statement IN
        SELECT w.statement FROM pgml_tune._words_statement(collection_id) AS w (statement) WHERE w.statement IS NOT NULL
        UNION ALL
        SELECT g.statement FROM pgml_tune._graph_statement(collection_id) AS g
    LOOP
        EXECUTE v_statement;
    END LOOP;
    UPDATE pgml_tune.collection AS c SET is_ready = true, is_filled = true WHERE c.collection_id = t.collection_id;
    -- Those whose rows were seen when the missing ones were counted.
    DELETE FROM pgml_tune.vectors_missed AS m WHERE m.ctid = ANY (v_noted);
    PERFORM pgml_tune._mend_collection(collection_id);
    RETURN 0;
END
$$;
COMMENT ON FUNCTION pgml_tune._finish_collection(bigint) IS
    'Makes the indexes, the view and the query function of a collection and opens it to its readers, unless rows are without vectors; says how many are.';

CREATE OR REPLACE FUNCTION pgml_tune._has_hnsw(side regclass)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT bool_or(i.indisvalid)
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'hnsw'
        WHERE i.indrelid = side
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._has_hnsw(regclass) IS 'Whether a side table has an HNSW index that can be used; NULL: none at all.';

CREATE OR REPLACE FUNCTION pgml_tune._words_statement(collection_id bigint)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('CREATE INDEX %I ON %s USING gin (lexemes)', c.relname || '_lexemes', c.oid::regclass)
    FROM pgml_tune.collection AS t JOIN pg_class AS c ON c.oid = t.embeddings
    WHERE t.collection_id = _words_statement.collection_id AND t.text_search IS NOT NULL
      AND to_regclass(format('pgml_tune.%I', c.relname || '_lexemes')) IS NULL
$$;
COMMENT ON FUNCTION pgml_tune._words_statement(bigint) IS
    'What makes the index that hybrid_search() finds words by; NULL if it is there or not wanted.';

CREATE OR REPLACE FUNCTION pgml_tune._graph_statement(collection_id bigint)
RETURNS TABLE (row_count bigint, statement text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_graph_rows CONSTANT integer := 10000;  -- below, comparing all is as fast, exact, and spares writers the graph
BEGIN
    -- Rows by size and density: planning a query on the side table could run code of its owner.
    RETURN QUERY
    SELECT e.row_count, format('CREATE INDEX %I ON %s USING hnsw (embedding %s.%s_cosine_ops)',
        e.name || '_hnsw', e.relation, pgml_tune._vector_schema(), t.storage)
    FROM pgml_tune.collection AS t
    CROSS JOIN LATERAL (
        SELECT c.oid::regclass, c.relname, (
            pg_relation_size(c.oid) / current_setting('block_size')::bigint
            * CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages ELSE 4 END
        )::bigint
        FROM pg_class AS c WHERE c.oid = t.embeddings
    ) AS e (relation, name, row_count)
    WHERE t.collection_id = _graph_statement.collection_id AND pgml_tune._has_hnsw(t.embeddings) IS NULL
      AND (t.index_method = 'hnsw' OR t.index_method = 'auto' AND e.row_count >= c_graph_rows);
END
$$;
COMMENT ON FUNCTION pgml_tune._graph_statement(bigint) IS
    'What makes the HNSW index of a collection that wants one and has none, and about how many vectors it would hold.';

CREATE OR REPLACE FUNCTION pgml_tune._mending_statements(collection_id bigint)
RETURNS TABLE (change text, statement text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_most_rows CONSTANT integer := 100000;  -- whose graph is made in about half a minute
    t pgml_tune.collection;
    p record;
    v_source pg_class;
BEGIN
    SELECT c.* INTO t FROM pgml_tune.collection AS c WHERE c.collection_id = _mending_statements.collection_id;
    SELECT c.* INTO v_source FROM pg_class AS c WHERE c.oid = t.source;
    SELECT * INTO p FROM pgml_tune._collection_parts(collection_id);
    IF NOT FOUND THEN
        RETURN;
    END IF;

    RETURN QUERY
    SELECT 'view or query function', format('SELECT pgml_tune._make_query_objects(%s)', collection_id)
    FROM pgml_tune.collection_route AS r
    -- Until a promotion has found the locks for it, the view is that of the version before.
    WHERE r.collection_id = t.collection_id AND t.is_ready AND NOT EXISTS (
        SELECT FROM pgml_tune.collection AS o JOIN pg_class AS c ON c.oid = o.view_name AND c.relkind = 'v'
        WHERE o.name = t.name AND o.collection_id <> t.collection_id
    ) AND (
        pgml_tune._query_function(collection_id) IS NULL
        OR NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.view_name AND c.relkind = 'v')
    );

    -- What an earlier owner has put on the side table, or made of the functions, must not run as the new one.
    RETURN QUERY
    WITH object AS (
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END || c.oid::regclass AS name, c.relowner AS owner
        FROM pg_class AS c WHERE c.oid IN (t.embeddings, t.view_name)
        UNION ALL
        SELECT 'FUNCTION ' || f.oid::regprocedure, f.proowner
        FROM pg_proc AS f
        WHERE f.oid = pgml_tune._query_function(collection_id) OR f.pronamespace = 'pgml_tune'::regnamespace
            AND f.proname IN ('_sync_' || t.collection_id, '_keep_' || t.collection_id, '_feed_' || t.collection_id)
    )
    SELECT 'owner', o.statement
    FROM (
        SELECT 1, m.statement FROM unnest(pgml_tune._function_statements(collection_id)) AS m (statement)
        UNION ALL
        SELECT 2, m.statement
        FROM unnest(pgml_tune._query_statements(
            collection_id, t.view_name::text,
            regexp_replace(pgml_tune._query_function(collection_id)::regprocedure::text, '\(text\)$', '')
        )) AS m (statement)
        WHERE pgml_tune._query_function(collection_id) IS NOT NULL
          AND EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.view_name AND c.relkind = 'v')
        UNION ALL
        SELECT 3, format('ALTER %s OWNER TO %I', b.name, pg_get_userbyid(v_source.relowner)) FROM object AS b
    ) AS o (place, statement)
    WHERE EXISTS (SELECT FROM object AS b WHERE b.owner <> v_source.relowner) AND pgml_tune._is_pristine(t.embeddings)
      AND pgml_tune._may_embed(v_source.relowner)
    ORDER BY o.place;

    -- The row asks for another mode than its functions are of: only a collection in mode queue has one that feeds it.
    RETURN QUERY
    SELECT 'mode', o.statement
    FROM (
        -- Whoever has queued a row comes to an end first: then nobody looks into the queue, and the fill finds what is missing.
        SELECT 1, format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', p.source) WHERE t.mode <> 'queue'
        UNION ALL
        SELECT 2, m.statement FROM unnest(pgml_tune._function_statements(collection_id)) AS m (statement)
        UNION ALL
        SELECT 3, CASE t.mode WHEN 'queue'
            THEN format('ALTER FUNCTION %s OWNER TO %I', pgml_tune._feed_function(collection_id), pg_get_userbyid(v_source.relowner))
            ELSE format('DROP FUNCTION %s', pgml_tune._feed_function(collection_id)) END
        UNION ALL
        -- What the worker holds it clears away itself.
        SELECT 4, format(
            'DELETE FROM pgml_tune.queue AS q WHERE q.ctid = ANY (ARRAY(
                 SELECT o.ctid FROM pgml_tune.queue AS o WHERE o.collection_id = %s FOR UPDATE SKIP LOCKED))', collection_id
        ) WHERE t.mode <> 'queue'
        UNION ALL
        SELECT 4, format('DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = %s', collection_id)
        WHERE t.mode <> 'queue'
    ) AS o (place, statement)
    WHERE (t.mode = 'queue') <> EXISTS (
        SELECT FROM pg_proc AS f
        WHERE f.pronamespace = 'pgml_tune'::regnamespace AND f.proname = '_feed_' || t.collection_id
    )
    ORDER BY o.place;

    RETURN QUERY
    SELECT 'persistence',
           format('ALTER TABLE %s SET %s', p.embeddings, CASE v_source.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END)
    FROM pg_class AS c WHERE c.oid = t.embeddings AND c.relpersistence <> v_source.relpersistence;

    RETURN QUERY
    WITH leaf AS (
        SELECT t.source::oid AS relation UNION SELECT f.relid FROM pg_partition_tree(t.source) AS f
    )
    SELECT 'partition detached', format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass)
    FROM pg_trigger AS g
    WHERE g.tgfoid = to_regprocedure(format('pgml_tune._sync_%s()', collection_id))
      AND g.tgrelid NOT IN (SELECT l.relation FROM leaf AS l)
    UNION ALL
    SELECT 'partition detached', 'SELECT'  -- or dropped, which took its triggers along
    WHERE EXISTS (
        SELECT FROM unnest(t.partitions) AS o (relation) WHERE o.relation NOT IN (SELECT l.relation FROM leaf AS l)
    )
    UNION ALL
    SELECT 'partition attached', format(
        'CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION pgml_tune._sync_%s()',
        e.trigger, e.event, l.relation::regclass, e.tables, collection_id
    )
    FROM leaf AS l
    CROSS JOIN LATERAL (
        SELECT v.event, v.tables, format('pgml_tune_%s_%s', collection_id, lower(v.event))
        FROM (
            VALUES ('INSERT', 'REFERENCING NEW TABLE AS pgml_tune_new'),
                   ('UPDATE', 'REFERENCING OLD TABLE AS pgml_tune_old NEW TABLE AS pgml_tune_new'),
                   ('DELETE', 'REFERENCING OLD TABLE AS pgml_tune_old'),
                   ('TRUNCATE', '')
        ) AS v (event, tables)
    ) AS e (event, tables, trigger)
    JOIN pg_class AS c ON c.oid = l.relation AND c.relkind IN ('r', 'p')
    WHERE NOT EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid = l.relation AND g.tgname = e.trigger);

    IF NOT t.is_ready THEN
        RETURN;
    END IF;
    RETURN QUERY
    -- OFFSET 0: one probe of the key for each row that is looked at, never a hash of the whole source.
    SELECT 'row security', format(
        'CREATE POLICY source_row ON %s FOR SELECT USING (EXISTS (SELECT FROM (SELECT %s) AS e JOIN %s AS s ON %s OFFSET 0))',
        p.embeddings, p.key_list, p.source, p.key_match
    )
    WHERE v_source.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy AS o WHERE o.polrelid = t.embeddings)
    UNION ALL
    SELECT 'row security', format('ALTER TABLE %s %s ROW LEVEL SECURITY', p.embeddings,
        CASE WHEN v_source.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END)
    FROM pg_class AS c WHERE c.oid = t.embeddings AND c.relrowsecurity <> v_source.relrowsecurity;

    RETURN QUERY
    WITH reader AS (
        -- Who may read the text and its key in the source, by the whole table or by these columns.
        SELECT a.grantee FROM aclexplode(v_source.relacl) AS a WHERE a.privilege_type = 'SELECT'
        UNION
        SELECT a.grantee
        FROM pg_attribute AS c CROSS JOIN LATERAL aclexplode(c.attacl) AS a
        WHERE c.attrelid = t.source AND c.attname = ANY (p.key_names || p.plain_content) AND a.privilege_type = 'SELECT'
        GROUP BY a.grantee
        HAVING count(DISTINCT c.attnum) = (SELECT count(DISTINCT u.name) FROM unnest(p.key_names || p.plain_content) AS u (name))
    ), target AS (
        SELECT c.oid, a.grantee, a.privilege_type
        FROM pg_class AS c LEFT JOIN LATERAL aclexplode(c.relacl) AS a ON a.grantee NOT IN (c.relowner, v_source.relowner)
        WHERE c.oid IN (t.embeddings, t.view_name)
    )
    SELECT DISTINCT 'grants', format('REVOKE ALL ON %s FROM %s', x.oid::regclass, pgml_tune._role_name(x.grantee))
    FROM target AS x
    WHERE x.grantee IS NOT NULL AND (x.privilege_type <> 'SELECT' OR x.grantee NOT IN (SELECT r.grantee FROM reader AS r))
    UNION ALL
    SELECT 'grants', format('GRANT SELECT ON %s TO %s', x.oid::regclass, pgml_tune._role_name(r.grantee))
    FROM (SELECT DISTINCT o.oid FROM target AS o) AS x CROSS JOIN reader AS r
    WHERE r.grantee <> v_source.relowner AND NOT EXISTS (
        SELECT FROM target AS h WHERE h.oid = x.oid AND h.grantee = r.grantee AND h.privilege_type = 'SELECT'
    );

    -- Writers wait while it is made, so a greater one is left to the owner's choice of the hour: doctor() tells.
    RETURN QUERY
    SELECT 'index', g.statement FROM pgml_tune._graph_statement(collection_id) AS g WHERE g.row_count < c_most_rows;
END
$$;
COMMENT ON FUNCTION pgml_tune._mending_statements(bigint) IS
    'What would bring a collection in line with its table: who owns and reads it, row security, triggers on its partitions, and the index once it is wanted.';

CREATE OR REPLACE FUNCTION pgml_tune._mend_collection(collection_id bigint)
RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_embeddings regclass := (
        SELECT e.oid FROM pgml_tune.collection AS t
        JOIN pg_class AS s ON s.oid = t.source
        JOIN pg_class AS e ON e.oid = t.embeddings AND e.relowner <> s.relowner
        WHERE t.collection_id = _mend_collection.collection_id
    );
    r record;
BEGIN
    IF v_embeddings IS NOT NULL THEN
        -- Its former owner shall change nothing between the look at it and its new owner.
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_embeddings);
    END IF;
    FOR v_round IN 1 .. 3 LOOP  -- what one round makes, the next gives to its owner and its readers
        FOR r IN SELECT m.change, m.statement FROM pgml_tune._mending_statements(collection_id) AS m LOOP
            EXECUTE r.statement;
            IF r.change IN ('partition attached', 'mode') THEN
                UPDATE pgml_tune.collection AS t SET is_filled = false
                WHERE t.collection_id = _mend_collection.collection_id AND t.is_filled;
            END IF;
            RETURN NEXT r.change;
        END LOOP;
        EXIT WHEN NOT FOUND;
        UPDATE pgml_tune.collection AS t
        SET partitions = ARRAY(SELECT f.relid::oid FROM pg_partition_tree(t.source) AS f WHERE f.level > 0 ORDER BY 1)
        WHERE t.collection_id = _mend_collection.collection_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._mend_collection(bigint) IS 'Brings a collection in line with its table, and says what was not.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_parts(
    collection_id bigint, embeddings oid, view_name oid, query_function oid, is_forced boolean
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning  -- what goes is known
AS $$
DECLARE
    v_tail text := CASE WHEN is_forced THEN ' CASCADE' ELSE '' END;
    v_statement text;
BEGIN
    FOR v_statement IN
        SELECT format('DROP VIEW %s%s', c.oid::regclass, v_tail) FROM pg_class AS c WHERE c.oid = view_name AND c.relkind = 'v'
        UNION ALL
        SELECT format('DROP FUNCTION %s%s', p.oid::regprocedure, v_tail)
        FROM pg_proc AS p WHERE p.oid = query_function
        UNION ALL
        -- With them go the triggers that call them.
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure) FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proname IN ('_sync_' || collection_id, '_keep_' || collection_id, '_feed_' || collection_id)
        UNION ALL
        SELECT format('DROP TABLE %s%s', c.oid::regclass, v_tail)
        FROM pg_class AS c WHERE c.oid = embeddings AND c.relkind = 'r'
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_parts(bigint, oid, oid, oid, boolean) IS
    'Drops what belongs to a collection, with the rights of the caller; if forced, also what others have built on it.';

CREATE OR REPLACE FUNCTION pgml_tune._lost_collections()
RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t pgml_tune.collection;
BEGIN
    FOR t IN
        SELECT c.* FROM pgml_tune.collection AS c
        -- Not those that lack a trigger: in the middle of a restore all of them do.
        WHERE NOT EXISTS (SELECT FROM pg_class AS s WHERE s.oid = c.source)
    LOOP
        BEGIN
            PERFORM pgml_tune._drop_parts(
                t.collection_id, t.embeddings, t.view_name, pgml_tune._query_function(t.collection_id), true
            );
            DELETE FROM pgml_tune.collection AS c WHERE c.collection_id = t.collection_id;
            RETURN NEXT t.name;
        EXCEPTION WHEN others THEN  -- not a cancel, which is none of these
            RAISE WARNING 'what is left of collection "%" cannot be dropped: %', t.name, SQLERRM;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._lost_collections() IS 'Drops what is left of collections whose table is gone, and names them.';

CREATE OR REPLACE FUNCTION pgml_tune._leftover_fix(collection_id bigint)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(o.statement, '; ')
    FROM (
        SELECT format('DROP FUNCTION %s CASCADE', f.oid::regprocedure)
        FROM pg_proc AS f
        WHERE f.pronamespace = 'pgml_tune'::regnamespace
          AND f.proname IN ('_sync_' || collection_id, '_keep_' || collection_id, '_feed_' || collection_id)
        UNION ALL
        SELECT format('DROP TABLE %s CASCADE', c.oid::regclass)
        FROM pg_class AS c
        WHERE c.relnamespace = 'pgml_tune'::regnamespace AND c.relkind = 'r'
          AND c.relname ~ format('^embedding_%s_[0-9]+$', collection_id)
    ) AS o (statement)
$$;
COMMENT ON FUNCTION pgml_tune._leftover_fix(bigint) IS 'Statements that drop what is left of a collection without a row.';

CREATE OR REPLACE FUNCTION pgml_tune._collection_faults()
RETURNS TABLE (collection text, fault text, fix text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.name, f.fault, f.fix
    FROM pgml_tune.collection AS t
    LEFT JOIN pg_class AS c ON c.oid = t.source
    LEFT JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p ON true
    CROSS JOIN LATERAL (
        SELECT 'its table is gone', 'CALL maintain()' WHERE c.oid IS NULL
        UNION ALL
        SELECT 'its column is gone or its vectors are not as they were made, and its table is not followed',
               format('SELECT drop_auto_embed(%L)', t.name)
        WHERE c.oid IS NOT NULL AND p.source IS NULL
        UNION ALL
        SELECT 'triggers, rules or constraints were added to its vectors: nothing fills them', format('SELECT drop_auto_embed(%L)', t.name)
        WHERE p.source IS NOT NULL AND NOT pgml_tune._is_pristine(t.embeddings)
        UNION ALL
        SELECT format('%I, the owner of its table, may not embed, as its triggers have to', r.rolname),
               format('SELECT grant_usage(%L)', quote_ident(r.rolname))
        FROM pg_roles AS r
        WHERE p.source IS NOT NULL AND r.oid = c.relowner AND NOT pgml_tune._may_embed(r.oid)
        UNION ALL
        SELECT 'row security hides rows of its table from the owner, and nothing is written there',
               format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', t.source)
        FROM pg_roles AS r
        WHERE p.source IS NOT NULL AND c.relrowsecurity AND c.relforcerowsecurity AND r.oid = c.relowner
          AND NOT r.rolbypassrls AND NOT r.rolsuper
        UNION ALL
        SELECT format('it is not filled yet with vectors of %s', t.model_reference)
                   || CASE WHEN t.mode = 'queue' AND NOT t.is_twin THEN ': pgml-tune worker does that while it runs' ELSE '' END,
               CASE WHEN t.is_twin THEN
                   format('CALL prepare_rollout(%L, %L)', split_part(t.model_reference, '@', 1), split_part(t.model_reference, '@', 2))
               ELSE format('CALL auto_embed(%L, %L, collection => %L%s)', t.source, p.plain_content, t.name, pgml_tune._mode_argument(t.mode)) END
        WHERE p.source IS NOT NULL AND NOT t.is_ready
        UNION ALL
        SELECT 'rows of a partition attached since have no vectors yet', 'CALL maintain()'
        WHERE p.source IS NOT NULL AND t.is_ready AND NOT t.is_filled
        UNION ALL
        SELECT format('rows have no vectors of %s, which could not be made: %s', t.model_reference, max(m.message)), 'CALL maintain()'
        FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = t.collection_id HAVING count(*) > 0
        UNION ALL
        SELECT 'its key is unique no more, and rows with the same key lose their vectors',
               format('ALTER TABLE %s ADD UNIQUE (%s)', t.source,
                   (SELECT string_agg(quote_ident(k), ', ') FROM unnest(p.key_names) AS k))
        WHERE p.source IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = t.source AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
              AND i.indexprs IS NULL AND (i.indkey::smallint[])[0:i.indnkeyatts - 1] <@ p.key_attnums
        )
        UNION ALL
        SELECT 'its key may be NULL, and rows where it is have no vectors',
               format('ALTER TABLE %s %s', t.source, string_agg(format('ALTER %I SET NOT NULL', a.attname), ', '))
        FROM pg_attribute AS a
        WHERE a.attrelid = t.source AND a.attnum = ANY (p.key_attnums) AND NOT a.attnotnull
        HAVING count(*) > 0
        UNION ALL
        SELECT 'its text search configuration is gone, and hybrid_search() with it', format('SELECT drop_auto_embed(%L)', t.name)
        WHERE p.source IS NOT NULL AND p.lexemes = 'NULL::tsvector' AND t.text_search IS NOT NULL
        UNION ALL
        SELECT format('%s is not followed: triggers are disabled', g.tgrelid::regclass),
               format('ALTER TABLE %s ENABLE TRIGGER USER; CALL auto_embed(%L, %L, collection => %L%s)',
                   g.tgrelid::regclass, t.source, p.plain_content, t.name, pgml_tune._mode_argument(t.mode))
        FROM pg_trigger AS g
        WHERE p.source IS NOT NULL AND g.tgenabled = 'D'
          AND g.tgfoid = to_regprocedure(format('pgml_tune._sync_%s()', t.collection_id))
        GROUP BY g.tgrelid
        UNION ALL
        SELECT 'its HNSW index is not valid, and each search compares all vectors',
               format('DROP INDEX %s; CALL maintain()', x.indexrelid::regclass)
        FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'hnsw'
        WHERE p.source IS NOT NULL AND x.indrelid = t.embeddings AND NOT x.indisvalid
        UNION ALL
        SELECT format('each search compares all of its %s vectors', g.row_count),
               replace(g.statement, 'CREATE INDEX', 'CREATE INDEX CONCURRENTLY')
        FROM pgml_tune._graph_statement(t.collection_id) AS g
        WHERE p.source IS NOT NULL AND t.is_ready
        UNION ALL
        SELECT 'not in line with its table: ' || string_agg(DISTINCT m.change, ', '), 'CALL maintain()'
        FROM pgml_tune._mending_statements(t.collection_id) AS m
        HAVING count(*) > 0
    ) AS f (fault, fix)
    UNION ALL
    SELECT substring(f.proname FROM 7), 'its functions are left of a restore without data',
           pgml_tune._leftover_fix(substring(f.proname FROM 7)::bigint)
    FROM pg_proc AS f
    WHERE f.pronamespace = 'pgml_tune'::regnamespace AND f.proname ~ '^_sync_[0-9]+$'
      AND NOT EXISTS (SELECT FROM pgml_tune.collection AS t WHERE '_sync_' || t.collection_id = f.proname)
$$;
COMMENT ON FUNCTION pgml_tune._collection_faults() IS 'What is wrong with collections, and the statement that mends it.';
-- Tables kept embedded: the rows of pgml_tune.collection, and what users call.

CREATE OR REPLACE FUNCTION pgml_tune._collection_ids()
RETURNS SETOF bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT t.collection_id FROM pgml_tune.collection AS t WHERE t.embeddings IS NOT NULL ORDER BY t.collection_id $$;
COMMENT ON FUNCTION pgml_tune._collection_ids() IS 'The collections there are.';

CREATE OR REPLACE FUNCTION pgml_tune._collection_row(collection_id bigint, name text)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_jsonb(t) || jsonb_build_object(
        'source_oid', t.source::oid::bigint, 'source', t.source, 'text_search', t.text_search,
        'source_column', coalesce(p.plain_content, t.source_column),
        'is_filled', t.is_filled AND NOT EXISTS (
            SELECT FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = t.collection_id
        ),
        'is_lost', p.source IS NULL OR NOT pgml_tune._is_pristine(t.embeddings)
    )
    FROM pgml_tune.collection AS t
    LEFT JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p ON true
    WHERE t.collection_id = coalesce(
        _collection_row.collection_id,
        (SELECT r.collection_id FROM pgml_tune.collection_route AS r WHERE r.name = _collection_row.name),
        (SELECT c.collection_id FROM pgml_tune.collection AS c WHERE c.name = _collection_row.name AND NOT c.is_twin)
    )
$$;
COMMENT ON FUNCTION pgml_tune._collection_row(bigint, text) IS 'A collection by its number, or by its name the version of it that answers.';

CREATE OR REPLACE FUNCTION pgml_tune._add_collection(settings jsonb)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- With the rights of the caller: a trigger asks whether the source is his.
    INSERT INTO pgml_tune.collection (
        name, source, source_column, model_version_id, mode, index_method, storage, chunk_tokens, chunk_overlap,
        batch_size, text_search, model_reference, dimensions
    )
    SELECT s.name, s.source_oid::oid, s.source_column, s.model_version_id, s.mode, s.index_method, s.storage,
           s.chunk_tokens, s.chunk_overlap, s.batch_size, s.text_search::oid::regconfig, s.model_reference, s.dimensions
    FROM jsonb_to_record(settings) AS s (
        name text, source_oid bigint, source_column text, model_version_id bigint, mode text, index_method text,
        storage text, chunk_tokens integer, chunk_overlap integer, batch_size integer, text_search bigint,
        model_reference text, dimensions integer
    )
    ON CONFLICT DO NOTHING
    RETURNING collection_id
$$;
COMMENT ON FUNCTION pgml_tune._add_collection(jsonb) IS 'Adds the row of a collection; NULL if the name is taken.';

CREATE OR REPLACE FUNCTION pgml_tune._change_collection(collection_id bigint, index_method text, batch_size integer, mode text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_name text := (SELECT t.name FROM pgml_tune.collection AS t WHERE t.collection_id = _change_collection.collection_id);
BEGIN
    IF _change_collection.mode IS NOT NULL AND (SELECT count(*) FROM pgml_tune.collection AS t WHERE t.name = v_name) > 1 THEN
        RAISE EXCEPTION 'collection "%" has vectors of two versions, and its mode cannot be changed now', v_name
            USING ERRCODE = '55000', HINT = 'SELECT * FROM pgml_tune.rollouts';
    END IF;
    -- With the rights of the caller: a trigger asks whether the source is his.
    UPDATE pgml_tune.collection AS t
    SET index_method = coalesce(_change_collection.index_method, t.index_method),
        batch_size = coalesce(_change_collection.batch_size, t.batch_size),
        mode = coalesce(_change_collection.mode, t.mode)
    WHERE t.collection_id = _change_collection.collection_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._change_collection(bigint, text, integer, text) IS
    'Changes the options of a collection that need no new vectors; NULL leaves one as it is. _mend_collection() makes the functions of another mode.';

CREATE OR REPLACE FUNCTION pgml_tune._find_text_search(name text)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN _find_text_search.name IS NULL THEN get_current_ts_config()::oid::bigint ELSE (
        SELECT c.oid::bigint
        FROM pg_ts_config AS c JOIN pg_namespace AS n ON n.oid = c.cfgnamespace
        WHERE _find_text_search.name = n.nspname || '.' || c.cfgname
           OR _find_text_search.name = c.cfgname AND n.nspname = 'pg_catalog'
        LIMIT 1
    ) END
$$;
COMMENT ON FUNCTION pgml_tune._find_text_search(text) IS
    'A text search configuration by its name, that of PostgreSQL itself without a schema; NULL means the default one.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_collection(collection_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    v_query_function oid;
    v_source regclass := (
        SELECT c.source FROM pgml_tune.collection AS c JOIN pg_class AS s ON s.oid = c.source
        WHERE c.collection_id = _drop_collection.collection_id
    );
BEGIN
    -- With the rights of the caller, who has to own what is dropped. Its triggers go, which takes this lock: a fill takes the
    -- source first, too.
    IF v_source IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_source);
    END IF;
    FOR t IN
        SELECT c.* FROM pgml_tune.collection AS c
        WHERE c.name = (SELECT o.name FROM pgml_tune.collection AS o WHERE o.collection_id = _drop_collection.collection_id)
    LOOP
        v_query_function := pgml_tune._query_function(t.collection_id);
        INSERT INTO pgml_tune.collection_drop VALUES (t.collection_id);
        PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, t.view_name, v_query_function, false);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_collection(bigint) IS 'Removes a collection, in all of its versions, and all that belongs to it.';

CREATE OR REPLACE FUNCTION pgml_tune._prepare_collection(
    source regclass, source_column name, model text, collection text, mode text, options jsonb
)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import collection as entry
return entry.prepare(source, source_column, model, collection, mode, options)
$python$;
COMMENT ON FUNCTION pgml_tune._prepare_collection(regclass, name, text, text, text, jsonb) IS
    'Checks what auto_embed() was given, adds the collection or finds the one there is, and returns its number.';

-- No SET clause: a procedure that has one cannot commit. Under the search_path of the caller it only calls functions.
CREATE OR REPLACE PROCEDURE pgml_tune._fill(collection_id bigint)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import collection
return collection.fill(collection_id)
$python$;
COMMENT ON PROCEDURE pgml_tune._fill(bigint) IS 'Embeds the rows of a collection that need it, in committed batches.';

CREATE OR REPLACE PROCEDURE pgml_tune._mend()
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import collection
return collection.mend()
$python$;
COMMENT ON PROCEDURE pgml_tune._mend() IS 'Brings all collections in line with their tables.';

CREATE OR REPLACE PROCEDURE @extschema@.auto_embed(
    source regclass, source_column name, model text DEFAULT NULL, collection text DEFAULT NULL,
    mode text DEFAULT NULL, options jsonb DEFAULT '{}'
)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL pgml_tune._fill(pgml_tune._prepare_collection(source, source_column, model, collection, mode, options));
END
$$;
COMMENT ON PROCEDURE @extschema@.auto_embed(regclass, name, text, text, text, jsonb) IS
    'Keeps a text column embedded from now on, for semantic_search(): triggers first, then all rows in committed batches; called again it resumes, or changes the mode (trigger, queue). Options: index, storage, chunk_tokens, chunk_overlap, batch_size, text_search.';

CREATE OR REPLACE FUNCTION @extschema@.drop_auto_embed(collection text)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import collection as entry
return entry.drop(collection)
$python$;
COMMENT ON FUNCTION @extschema@.drop_auto_embed(text) IS
    'Ends a collection: its triggers, vectors, view and query function go, its table stays.';
-- Collections in mode queue: what their triggers write down, and what the worker does with it. It reads texts and writes vectors as
-- the owner of the source, by a function of his.

CREATE OR REPLACE FUNCTION pgml_tune._enqueue_statement(collection_id bigint, event text, relation oid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_names text[];  -- of the key, and then of the text
    v_last integer;
    v_key text;
    v_keys text;
    v_text text;
    v_rows text;
BEGIN
    IF event = 'TRUNCATE' THEN
        RETURN coalesce((pgml_tune._sync_statements(collection_id, event, relation, NULL))[2], 'SELECT');
    END IF;
    -- Not all that _collection_parts() asks: a key too many is no harm.
    v_names := ARRAY(
        SELECT format('s.%I', a.attname)
        FROM pgml_tune.collection AS t
        JOIN pg_trigger AS g ON g.tgrelid = t.source AND g.tgname = 'pgml_tune_' || t.collection_id || '_columns'
        CROSS JOIN LATERAL unnest(g.tgattr::smallint[]) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = k.attnum
        WHERE t.collection_id = _enqueue_statement.collection_id
        ORDER BY k.position
    );
    v_last := cardinality(v_names);
    IF v_last = 0 THEN
        -- Either this raises an error, or the column was dropped with CASCADE, and nothing is to be done.
        RETURN (pgml_tune._sync_statements(collection_id, event, relation, 0))[1];
    END IF;
    v_text := v_names[v_last];
    v_keys := array_to_string(v_names[:v_last - 1], ', ');
    v_key := 'format(''%s'', ' || array_to_string(v_names[:v_last - 1], '), format(''%s'', ') || ')';
    v_rows := format('SELECT ARRAY[%s] COLLATE "C" AS key, %s::text COLLATE "C" AS body FROM pgml_tune_', v_key, v_text);
    v_keys := format(' AS s WHERE num_nulls(%s) = 0', v_keys);
    RETURN format('INSERT INTO pgml_tune.queue (collection_id, key) SELECT %s, r.key FROM (%s) AS r', collection_id, CASE event
        WHEN 'INSERT' THEN v_rows || 'new' || v_keys || format(' AND %s IS NOT NULL', v_text)
        WHEN 'DELETE' THEN v_rows || 'old' || v_keys
        ELSE format(
            'WITH n AS MATERIALIZED (%s), o AS MATERIALIZED (%s)
             SELECT c.key FROM (TABLE n EXCEPT ALL TABLE o) AS c UNION SELECT c.key FROM (TABLE o EXCEPT ALL TABLE n) AS c',
            v_rows || 'new' || v_keys, v_rows || 'old' || v_keys
        )
    END);
END
$$;
COMMENT ON FUNCTION pgml_tune._enqueue_statement(bigint, text, oid) IS
    'The statement with which the trigger of a collection in mode queue writes down the keys of rows that INSERT, UPDATE or DELETE has changed, or follows TRUNCATE.';

CREATE OR REPLACE FUNCTION pgml_tune._enqueue_missing(collection_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_count bigint;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    EXECUTE format(
        'INSERT INTO pgml_tune.queue (collection_id, key)
         SELECT %1$s, ARRAY[%2$s] FROM %3$s AS s
         WHERE s.%4$s IS NOT NULL AND num_nulls(%5$s) = 0 AND NOT EXISTS (
             SELECT FROM %6$s AS e WHERE %7$s AND e.chunk_no = 1 AND e.text_sha256 = sha256(convert_to(s.%4$s::text, ''UTF8''))
         )',
        collection_id, (SELECT string_agg(format('format(''%%s'', s.%I)', k), ', ') FROM unnest(p.key_names) AS k), p.source, p.content,
        (SELECT string_agg(format('s.%I', k), ', ') FROM unnest(p.key_names) AS k), p.embeddings, p.key_match
    );
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION pgml_tune._enqueue_missing(bigint) IS 'Queues all rows of a collection that have no vectors of their text, and says how many.';

CREATE OR REPLACE FUNCTION pgml_tune._key_parts(embeddings regclass, OUT columns text, OUT matches text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('($1)[i][%s]::%s AS %I', k.position, format_type(a.atttypid, a.atttypmod), a.attname), ', '),
           string_agg(format('e.%1$I %2$s k.%1$I', a.attname, pgml_tune._equality(a.atttypid)), ' AND ')
    FROM pg_attribute AS a
    CROSS JOIN LATERAL (SELECT substring(a.attname FROM '^key_([0-9]+)$')::integer) AS k (position)
    WHERE a.attrelid = embeddings AND a.attnum > 0 AND NOT a.attisdropped AND k.position IS NOT NULL
$$;
COMMENT ON FUNCTION pgml_tune._key_parts(regclass) IS
    'How row i of the keys of the queue becomes the key columns of a side table, and how these (e) and those (k) are compared.';

CREATE OR REPLACE FUNCTION pgml_tune._read_queued(collection_id bigint, keys text[])
RETURNS TABLE (key_no integer, content text, text_sha256 bytea)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p record;
    v_columns text;
    v_matches text;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT k.columns, k.matches INTO v_columns, v_matches FROM pgml_tune._key_parts(p.embeddings::regclass) AS k;
    RETURN QUERY EXECUTE format(
        -- Texts are many times as large as they are in the table: only those that are taken now are looked into. One that no
        -- setting lets pass is cut to what shows that.
        'SELECT k.i, CASE WHEN k.is_taken THEN CASE WHEN k.bytes > 16777216 THEN left(k.content, 4194305) ELSE k.content END END,
                b.text_sha256
         FROM (
             SELECT e.i, %1$s, c.content, octet_length(c.content) AS bytes,
                    sum(octet_length(c.content)) OVER (ORDER BY e.i ROWS UNBOUNDED PRECEDING) - octet_length(c.content) < 4194304
                        AS is_taken
             FROM (SELECT i, %2$s FROM generate_subscripts($1, 1) AS i) AS e
             JOIN %3$s AS s ON %4$s
             CROSS JOIN LATERAL (SELECT s.%5$s::text AS content) AS c
             WHERE s.%5$s IS NOT NULL
         ) AS k
         CROSS JOIN LATERAL (
             SELECT CASE WHEN k.is_taken AND k.bytes <= 16777216 THEN sha256(convert_to(k.content, ''UTF8'')) END AS text_sha256 OFFSET 0
         ) AS b
         WHERE CASE WHEN b.text_sha256 IS NULL THEN true ELSE NOT EXISTS (
             SELECT FROM %6$s AS e WHERE %7$s AND e.chunk_no = 1 AND e.text_sha256 = b.text_sha256
         ) END
         ORDER BY k.i',
        p.numbered_keys, v_columns, p.source, p.key_match, p.content, p.embeddings, v_matches
    ) USING keys;
END
$$;
COMMENT ON FUNCTION pgml_tune._read_queued(bigint, text[]) IS
    'The texts of rows that have no vectors of them, and their hashes; beyond 4 MB NULL, to be looked at another time. Of a text of more than 16 MB the beginning only, without a hash.';

CREATE OR REPLACE FUNCTION pgml_tune._store_queued(
    collection_id bigint, keys text[], hashes bytea[], text_nos integer[], chunk_nos integer[], vectors vector[]
)
RETURNS SETOF integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_columns text;
    v_matches text;
    v_stored integer[];
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT k.columns, k.matches INTO v_columns, v_matches FROM pgml_tune._key_parts(p.embeddings::regclass) AS k;
    IF cardinality(text_nos) > 0 THEN
        -- Not of a text that is another by now: whoever has changed it has queued the row again.
        EXECUTE format(
            'WITH f AS MATERIALIZED (
                 SELECT %1$s, s.%2$s::text AS content, e.text_sha256, e.i
                 FROM (SELECT i, %3$s, ($2)[i] AS text_sha256 FROM generate_subscripts($1, 1) AS i) AS e
                 JOIN %4$s AS s ON %5$s
                 WHERE e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8''))
             ), written AS (
                 INSERT INTO %6$s (%7$s, chunk_no, text_sha256, embedding, lexemes)
                 SELECT f.%8$s, v.chunk_no, f.text_sha256, v.embedding::%9$s, %10$s
                 FROM unnest($3, $4, $5) AS v (text_no, chunk_no, embedding) JOIN f ON f.i = v.text_no
                 ON CONFLICT (%7$s, chunk_no) DO UPDATE
                 SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes
             )
             SELECT array_agg(f.i) FROM f',
            p.numbered_keys, p.content, v_columns, p.source, p.key_match, p.embeddings, p.key_list,
            replace(p.key_list, ', ', ', f.'), p.storage, p.lexemes
        ) INTO v_stored USING keys, hashes, text_nos, chunk_nos, vectors;
        EXECUTE format(
            'DELETE FROM %s AS e USING (SELECT i, %s, ($2)[i] AS text_sha256 FROM unnest($3) AS i) AS k
             WHERE %s AND e.text_sha256 <> k.text_sha256',
            p.embeddings, v_columns, v_matches
        ) USING keys, hashes, v_stored;
    END IF;
    EXECUTE format(
        'DELETE FROM %s AS e USING (SELECT %s FROM generate_subscripts($1, 1) AS i WHERE ($2)[i] IS NULL) AS k
         WHERE %s AND NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL)',
        p.embeddings, v_columns, v_matches, p.source, p.key_match, p.content
    ) USING keys, hashes;
    RETURN QUERY SELECT unnest(v_stored);
END
$$;
COMMENT ON FUNCTION pgml_tune._store_queued(bigint, text[], bytea[], integer[], integer[], vector[]) IS
    'Writes vectors of rows that still have the text of this hash, and deletes those of rows without one that are gone; says which rows were written.';

CREATE OR REPLACE FUNCTION pgml_tune._feed_function(collection_id bigint)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('pgml_tune._feed_%s(text[], bytea[], integer[], integer[], %s.vector[])', collection_id, pgml_tune._vector_schema())
$$;
COMMENT ON FUNCTION pgml_tune._feed_function(bigint) IS 'What a collection in mode queue is fed with.';

CREATE OR REPLACE FUNCTION pgml_tune._feed_collection(
    collection_id bigint, keys text[], hashes bytea[], text_nos integer[], chunk_nos integer[], vectors vector[]
)
RETURNS TABLE (key_no integer, content text, text_sha256 bytea)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_level integer;
BEGIN
    PERFORM pgml_tune._hold_collection(
        collection_id, pgml_tune._feed_function(collection_id), CASE WHEN hashes IS NULL THEN 'read' ELSE 'wait' END
    );
    v_level := pgml_tune._begin_restricted();
    RETURN QUERY EXECUTE format('SELECT * FROM pgml_tune._feed_%s($1, $2, $3, $4, $5)', collection_id)
        USING keys, hashes, text_nos, chunk_nos, vectors;
    PERFORM pgml_tune._end_restricted(v_level);
END
$$;
COMMENT ON FUNCTION pgml_tune._feed_collection(bigint, text[], bytea[], integer[], integer[], vector[]) IS
    'As the owner of the source of a collection: the texts of rows whose keys were queued, or with their hashes given, writes their vectors.';

CREATE OR REPLACE FUNCTION pgml_tune._queues()
RETURNS TABLE (
    collection_id bigint, name text, model_version_id bigint, model_reference text, digest text, chunk_tokens integer,
    chunk_overlap integer, batch_size integer, is_waiting boolean, is_filled boolean
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.collection_id, c.name, c.model_version_id, c.model_reference, v.artifact_sha256, c.chunk_tokens, c.chunk_overlap, c.batch_size,
           EXISTS (
               SELECT FROM pgml_tune.queue AS q
               WHERE q.collection_id = c.collection_id AND (q.due_at IS NULL OR q.due_at <= clock_timestamp())
           ),
           -- A twin is filled by prepare_rollout(), at first.
           CASE WHEN c.is_ready THEN c.is_filled ELSE c.is_twin END
    FROM pgml_tune.collection AS c
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    WHERE c.mode = 'queue' AND c.embeddings IS NOT NULL AND c.retired_xid IS NULL
      AND EXISTS (SELECT FROM pgml_tune._collection_parts(c.collection_id))
    ORDER BY c.collection_id
$$;
COMMENT ON FUNCTION pgml_tune._queues() IS
    'The collections in mode queue, whether rows wait now, and whether the worker has nothing to fill but these.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_queue(collection_id bigint, OUT queued bigint, OUT last_id bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_given_up bigint;
BEGIN
    queued := (pgml_tune._fill_collection(collection_id, 'enqueue', NULL, NULL, NULL, NULL))[1];
    DELETE FROM pgml_tune.queue AS q USING pgml_tune.queue_failure AS f
    WHERE q.collection_id = _fill_queue.collection_id AND q.xmin = pg_current_xact_id()::xid
      AND f.collection_id = q.collection_id AND f.key = q.key;
    GET DIAGNOSTICS v_given_up = ROW_COUNT;
    queued := queued - v_given_up;
    last_id := (SELECT max(q.queue_id) FROM pgml_tune.queue AS q WHERE q.collection_id = _fill_queue.collection_id);
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_queue(bigint) IS
    'Queues the rows of a collection without vectors of their text, but for those that were given up: how many, and the last that waits.';

CREATE OR REPLACE FUNCTION pgml_tune._fail_queued(
    collection_id bigint, queue_id bigint, sqlstate text, message text, is_final boolean
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_most_tries CONSTANT integer := 5;
    c_first_wait CONSTANT interval := '1 second';
    q pgml_tune.queue;
BEGIN
    DELETE FROM pgml_tune.queue AS o
    WHERE o.collection_id = _fail_queued.collection_id AND o.queue_id = _fail_queued.queue_id
    RETURNING o.* INTO q;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF q.tries + 1 < c_most_tries AND NOT is_final THEN
        INSERT INTO pgml_tune.queue (collection_id, key, tries, enqueued_at, due_at)
        VALUES (q.collection_id, q.key, q.tries + 1, q.enqueued_at, clock_timestamp() + c_first_wait * 2 ^ q.tries);
        RETURN false;
    END IF;
    DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = q.collection_id AND f.key = q.key;
    INSERT INTO pgml_tune.queue_failure (collection_id, key, tries, sqlstate, message, enqueued_at)
    VALUES (q.collection_id, q.key, q.tries + 1, _fail_queued.sqlstate, _fail_queued.message, q.enqueued_at);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._fail_queued(bigint, bigint, text, text, boolean) IS
    'Puts a row that cannot be embedded back for a while, twice as long each time, or gives it up after the fifth or the final one (true).';

CREATE OR REPLACE FUNCTION pgml_tune._has_steady_worker()
RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.worker AS w
        WHERE NOT w.is_one_shot AND w.seen_at > clock_timestamp() - interval '30 seconds'
          AND EXISTS (SELECT FROM pg_stat_get_activity(w.backend_pid))
    )
$$;
COMMENT ON FUNCTION pgml_tune._has_steady_worker() IS 'Whether a worker that stays, and so feeds queues, serves this database.';

CREATE OR REPLACE FUNCTION pgml_tune._refill_collection(collection_id bigint)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pgml_tune.collection AS c SET is_filled = false
    WHERE c.collection_id = _refill_collection.collection_id AND c.mode = 'queue' AND c.is_filled;
    RETURN pgml_tune._has_steady_worker();
END
$$;
COMMENT ON FUNCTION pgml_tune._refill_collection(bigint) IS
    'Lets the worker look at all rows of a collection in mode queue; says whether one serves this database.';

CREATE OR REPLACE FUNCTION pgml_tune._count_waiting(collection_id bigint)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT count(DISTINCT q.key) FROM pgml_tune.queue AS q WHERE q.collection_id = _count_waiting.collection_id $$;
COMMENT ON FUNCTION pgml_tune._count_waiting(bigint) IS 'Rows of a collection that wait for the worker.';

CREATE OR REPLACE FUNCTION pgml_tune._requeue(collection_id bigint)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH failed AS (
        DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = _requeue.collection_id RETURNING f.*
    ), queued AS (
        INSERT INTO pgml_tune.queue (collection_id, key) SELECT f.collection_id, f.key FROM failed AS f RETURNING true
    )
    SELECT count(*) FROM queued
$$;
COMMENT ON FUNCTION pgml_tune._requeue(bigint) IS 'Queues the rows of a collection again that were given up, and says how many.';

CREATE OR REPLACE FUNCTION @extschema@.requeue_failed(collection text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owns boolean;
BEGIN
    IF requeue_failed.collection IS NOT NULL THEN
        SELECT bool_or(pg_has_role(s.relowner, 'USAGE')) INTO v_owns
        FROM pgml_tune.collection AS c JOIN pg_class AS s ON s.oid = c.source
        WHERE c.name = requeue_failed.collection AND c.mode = 'queue';
        IF v_owns IS NULL THEN
            RAISE EXCEPTION 'there is no collection in mode queue of this name' USING ERRCODE = '42704',
                HINT = 'SELECT collection, mode FROM pgml_tune.embedding_collections';
        ELSIF NOT v_owns THEN
            RAISE EXCEPTION 'must be owner of the table of collection "%"', requeue_failed.collection USING ERRCODE = '42501';
        END IF;
    END IF;
    RETURN (
        SELECT coalesce(sum(pgml_tune._requeue(c.collection_id)), 0)::bigint
        FROM pgml_tune.collection AS c JOIN pg_class AS s ON s.oid = c.source
        WHERE c.mode = 'queue' AND pg_has_role(s.relowner, 'USAGE')
          AND (requeue_failed.collection IS NULL OR c.name = requeue_failed.collection)
    );
END
$$;
COMMENT ON FUNCTION @extschema@.requeue_failed(text) IS
    'Lets the worker try rows again that it has given up, of one collection or of all whose tables are yours, and says how many; see pgml_tune.queue_failures.';
-- Vector columns of users' own tables. All of it runs as the caller: his privileges and his row security decide.

CREATE OR REPLACE FUNCTION pgml_tune._leaves(source regclass)
RETURNS TABLE (relation oid, blocks bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid, pg_relation_size(c.oid) / current_setting('block_size')::bigint
    FROM (
        SELECT _leaves.source::oid
        UNION
        SELECT p.relid::oid FROM pg_partition_tree(_leaves.source) AS p
    ) AS r (oid)
    JOIN pg_class AS c ON c.oid = r.oid
    WHERE c.relkind = 'r' AND pg_relation_size(c.oid) IS NOT NULL
    ORDER BY c.oid
$$;
COMMENT ON FUNCTION pgml_tune._leaves(regclass) IS
    'The tables that hold the rows of a table, itself or its partitions without foreign tables, and their size in blocks.';

CREATE OR REPLACE FUNCTION pgml_tune._target_facts(source oid, source_column text, target_column text)
RETURNS TABLE (
    schema_name text, table_name text, kind text, is_temporary boolean, is_ours boolean, is_inherited boolean,
    has_source boolean, is_text boolean, has_target boolean, is_system boolean, is_generated boolean,
    target_type text, target_dimensions integer
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 't',
           n.nspname IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast'),
           c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhparent = c.oid),
           s.attnum IS NOT NULL,
           (
               SELECT b.typcategory = 'S'
               FROM pgml_tune._base_type(s.atttypid, s.atttypmod) AS t JOIN pg_type AS b ON b.oid = t.base
           ),
           v.attnum > 0,
           v.attnum < 0,
           v.attgenerated <> '',
           d.typname,
           d.dimensions
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute AS s
        ON s.attrelid = c.oid AND s.attname = _target_facts.source_column AND s.attnum > 0 AND NOT s.attisdropped
    LEFT JOIN pg_attribute AS v
        ON v.attrelid = c.oid AND v.attname = _target_facts.target_column AND NOT v.attisdropped
    LEFT JOIN LATERAL (
        SELECT b.typname::text AS typname, nullif(t.base_modifier, -1) AS dimensions
        FROM pgml_tune._base_type(v.atttypid, v.atttypmod) AS t
        JOIN pg_type AS b ON b.oid = t.base
        JOIN pg_extension AS e ON e.extnamespace = b.typnamespace AND e.extname = 'vector'
        WHERE b.typname IN ('vector', 'halfvec')
    ) AS d ON true
    WHERE c.oid = _target_facts.source;
END
$$;
COMMENT ON FUNCTION pgml_tune._target_facts(oid, text, text) IS
    'What decides whether a column can hold the vectors of another; no row if there is no such table.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_statement(
    part text, source oid, leaf oid, source_column text, target_column text
)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source text := (
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = source
    );
    v_leaf text := (
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = leaf
    );
    v_from text := format('ONLY %s AS t', v_leaf);
    v_only text := '';
    v_range text := 't.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2';
    v_type text;
BEGIN
    IF part IN ('count', 'any') THEN
        RETURN format(
            CASE part
                WHEN 'count' THEN 'SELECT pg_catalog.count(*) FROM %1$s AS t WHERE t.%3$I IS NULL AND t.%2$I IS NOT NULL'
                ELSE 'SELECT 1::bigint FROM %1$s AS t WHERE t.%3$I IS NOT NULL LIMIT 1'
            END,
            v_source, source_column, target_column
        );
    END IF;
    IF v_leaf IS NULL THEN
        RETURN NULL;  -- the leaf was dropped meanwhile
    END IF;
    -- A partition is read by itself where the caller may do so and no policy can differ, else as a part of its parent: that
    -- reads the same blocks of all partitions.
    IF leaf <> source AND (
        NOT has_table_privilege(leaf, 'SELECT') OR NOT has_column_privilege(leaf, target_column, 'UPDATE')
        OR row_security_active(source) OR row_security_active(leaf)
    ) THEN
        v_from := format('%s AS t', v_source);
        v_only := format(' AND t.tableoid OPERATOR(pg_catalog.=) %s::pg_catalog.oid', leaf);
    END IF;

    -- What is read is locked row by row through LATERAL: whatever the planner believes of the table, it finds each by its ctid.
    CASE part
    WHEN 'read' THEN
        -- Up to 32 MB of texts: is_cut says that there may be more rows.
        RETURN format($statement$
            SELECT p.place, p.body, p.bytes OPERATOR(pg_catalog.>=) 33554432
            FROM (
                SELECT r.place, r.body, pg_catalog.octet_length(r.body)::pg_catalog.int8 AS own,
                       pg_catalog.sum(pg_catalog.octet_length(r.body)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
                FROM (
                    SELECT t.ctid AS place, t.%2$I::pg_catalog.text AS body
                    FROM %1$s WHERE %4$s AND t.%3$I IS NULL AND t.%2$I IS NOT NULL LIMIT $3
                ) AS r
            ) AS p
            WHERE p.bytes OPERATOR(pg_catalog.-) p.own OPERATOR(pg_catalog.<) 33554432
        $statement$, v_from, source_column, target_column, v_range || v_only);
    WHEN 'clear' THEN
        -- The rows that others have locked are not waited for; they are counted in the table's state before this statement.
        RETURN format($statement$
            WITH wanted AS MATERIALIZED (
                SELECT t.ctid AS place FROM %1$s WHERE %3$s AND t.%2$I IS NOT NULL LIMIT $3
            ), locked AS MATERIALIZED (
                SELECT r.place FROM wanted AS w CROSS JOIN LATERAL (
                    SELECT t.ctid AS place FROM %1$s
                    WHERE t.ctid OPERATOR(pg_catalog.=) w.place%4$s AND t.%2$I IS NOT NULL
                    FOR NO KEY UPDATE OF t SKIP LOCKED
                ) AS r
            ), cleared AS (
                UPDATE %1$s SET %2$I = NULL FROM locked AS l WHERE t.ctid OPERATOR(pg_catalog.=) l.place%4$s
                RETURNING t.%2$I IS NULL AS is_done
            )
            SELECT (SELECT pg_catalog.count(*) FROM wanted),
                   (SELECT pg_catalog.count(*) FROM cleared AS c WHERE c.is_done)
        $statement$, v_from, target_column, v_range || v_only, v_only);
    WHEN 'store' THEN
        v_type := (
            SELECT pgml_tune._vector_schema() || '.' || f.target_type
            FROM pgml_tune._target_facts(source, source_column, target_column) AS f
        );
        IF v_type IS NULL THEN
            RETURN NULL;  -- no vector column any more
        END IF;
        -- Only row versions whose text is still the one that was embedded, and that nobody else has locked.
        RETURN format($statement$
            WITH locked AS MATERIALIZED (
                SELECT r.place, g.vector
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                     AS g (place, body, vector)
                CROSS JOIN LATERAL (
                    SELECT t.ctid AS place FROM %1$s
                    WHERE t.ctid OPERATOR(pg_catalog.=) g.place%4$s AND t.%3$I IS NULL
                      AND t.%2$I::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) g.body
                    FOR NO KEY UPDATE OF t SKIP LOCKED
                ) AS r
            ), stored AS (
                UPDATE %1$s SET %3$I = l.vector::%5$s FROM locked AS l
                WHERE t.ctid OPERATOR(pg_catalog.=) l.place%4$s RETURNING t.%3$I IS NOT NULL AS is_done
            )
            SELECT pg_catalog.count(*) FROM stored AS s WHERE s.is_done
        $statement$, v_from, source_column, target_column, v_only, v_type);
    END CASE;
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_statement(text, oid, oid, text, text) IS
    'A statement on the rows of a table whose vectors are filled; every name in it is qualified.';

-- The next ones have no search_path of their own: what the caller's triggers and policies call, they find by his.

CREATE OR REPLACE FUNCTION pgml_tune._count_unfilled(source oid, source_column text, target_column text)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    v_count pg_catalog.int8;
BEGIN
    EXECUTE pgml_tune._fill_statement('count', source, NULL, source_column, target_column) INTO v_count;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION pgml_tune._count_unfilled(oid, text, text) IS 'Rows with a text and without a vector.';

CREATE OR REPLACE FUNCTION pgml_tune._has_vectors(source oid, target_column text)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    v_found pg_catalog.int8;
BEGIN
    EXECUTE pgml_tune._fill_statement('any', source, NULL, NULL, target_column) INTO v_found;
    RETURN v_found IS NOT NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._has_vectors(oid, text) IS 'Whether a row has a vector in this column.';

CREATE OR REPLACE FUNCTION pgml_tune._add_vector_column(source oid, target_column text, vector_type text, dimensions integer)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE (
        SELECT pg_catalog.format(
            'ALTER TABLE %I.%I ADD COLUMN %I %s.%I(%s)', n.nspname, c.relname, target_column,
            pgml_tune._vector_schema(), vector_type, dimensions
        )
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.oid OPERATOR(pg_catalog.=) source
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._add_vector_column(oid, text, text, integer) IS
    'Adds a column for vectors of so many dimensions, as vector or halfvec.';

CREATE OR REPLACE FUNCTION pgml_tune._read_part(
    source oid, leaf oid, source_column text, target_column text, first_block bigint, end_block bigint, max_rows integer
)
RETURNS TABLE (place tid, body text, is_cut boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    v_statement pg_catalog.text := pgml_tune._fill_statement('read', source, leaf, source_column, target_column);
BEGIN
    IF v_statement IS NOT NULL THEN
        RETURN QUERY EXECUTE v_statement
            USING pg_catalog.format('(%s,0)', first_block)::pg_catalog.tid,
                  pg_catalog.format('(%s,0)', end_block)::pg_catalog.tid, max_rows;
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._read_part(oid, oid, text, text, bigint, bigint, integer) IS
    'Texts without a vector in some blocks of a table, and where they are; is_cut: there may be more of them.';

CREATE OR REPLACE FUNCTION pgml_tune._store_part(
    source oid, leaf oid, source_column text, target_column text, version_id bigint,
    places tid[], bodies text[], vectors text[]
)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    v_statement pg_catalog.text := pgml_tune._fill_statement('store', source, leaf, source_column, target_column);
    v_stored pg_catalog.int8 := 0;
BEGIN
    PERFORM FROM pgml_tune.tracked_column AS c
    WHERE c.source::pg_catalog.oid OPERATOR(pg_catalog.=) _store_part.source
      AND c.target_column OPERATOR(pg_catalog.=) _store_part.target_column
      AND c.model_version_id OPERATOR(pg_catalog.=) version_id AND NOT c.is_mixed
    FOR SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_statement IS NOT NULL THEN
        EXECUTE v_statement USING places, bodies, vectors INTO v_stored;
    END IF;
    RETURN v_stored;
END
$$;
COMMENT ON FUNCTION pgml_tune._store_part(oid, oid, text, text, bigint, tid[], text[], text[]) IS
    'Gives rows their vectors, except for those that have changed since or are locked, and says how many; NULL if the column gets vectors of another version by now.';

CREATE OR REPLACE FUNCTION pgml_tune._clear_part(
    source oid, leaf oid, target_column text, first_block bigint, end_block bigint, max_rows integer
)
RETURNS TABLE (found bigint, cleared bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    v_statement pg_catalog.text := pgml_tune._fill_statement('clear', source, leaf, NULL, target_column);
BEGIN
    IF v_statement IS NOT NULL THEN
        RETURN QUERY EXECUTE v_statement
            USING pg_catalog.format('(%s,0)', first_block)::pg_catalog.tid,
                  pg_catalog.format('(%s,0)', end_block)::pg_catalog.tid, max_rows;
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._clear_part(oid, oid, text, bigint, bigint, integer) IS
    'Takes away the vectors in some blocks of a table: how many there were, and how many are gone.';

CREATE OR REPLACE FUNCTION pgml_tune._record_column(
    source oid, target_column text, version_id bigint, filled_by text, is_mixed boolean, source_column text
)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.tracked_column AS c (source, target_column, model_version_id, filled_by, is_mixed, source_column)
    VALUES (
        _record_column.source, _record_column.target_column, _record_column.version_id, _record_column.filled_by,
        _record_column.is_mixed, _record_column.source_column
    )
    ON CONFLICT ON CONSTRAINT tracked_column_source_target_column_key DO UPDATE SET
        model_version_id = excluded.model_version_id, filled_by = excluded.filled_by, is_mixed = excluded.is_mixed,
        source_column = excluded.source_column, created_by = DEFAULT, created_at = DEFAULT
    WHERE (c.model_version_id, c.filled_by, c.is_mixed, c.source_column)
        IS DISTINCT FROM (excluded.model_version_id, excluded.filled_by, excluded.is_mixed, excluded.source_column)
$$;
COMMENT ON FUNCTION pgml_tune._record_column(oid, text, bigint, text, boolean, text) IS
    'Writes down which vectors a column holds, and of which text.';

CREATE OR REPLACE FUNCTION pgml_tune._forget_columns()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning  -- there may be no such function
AS $$
DECLARE
    v_id bigint;
BEGIN
    FOR v_id IN
        DELETE FROM pgml_tune.tracked_column AS c
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS a
            WHERE a.attrelid = c.source AND a.attname = c.target_column AND a.attnum > 0 AND NOT a.attisdropped
        ) OR c.shadow_of IS NOT NULL AND c.left_at IS NULL AND EXISTS (
            -- The table has another owner since: writers have not fed it.
            SELECT FROM pg_class AS s
            JOIN pg_proc AS f ON f.oid = to_regprocedure(format('pgml_tune._shadow_%s()', c.tracked_column_id))
            WHERE s.oid = c.source AND f.proowner <> s.relowner
        )
        RETURNING c.tracked_column_id
    LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS pgml_tune._shadow_%s() CASCADE', v_id);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._forget_columns() IS 'Removes the records of columns that are gone.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.embed_table(
    source regclass, source_column name, target_column name, model text DEFAULT NULL, batch_size integer DEFAULT NULL,
    overwrite boolean DEFAULT false
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import filling
filling.embed_table(source, source_column, target_column, model, batch_size, overwrite)
$python$;
COMMENT ON PROCEDURE @extschema@.embed_table(regclass, name, name, text, integer, boolean) IS
    'Gives every row with a text in source_column and without a vector in target_column its embedding, in committed batches; adds the column if it is missing, and with overwrite makes all vectors anew.';

CREATE OR REPLACE FUNCTION @extschema@.track_column(source regclass, target_column name, model text)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import filling
return filling.track_column(source, target_column, model)
$python$;
COMMENT ON FUNCTION @extschema@.track_column(regclass, name, text) IS
    'Records that a vector column, which something other than embed_table() fills, holds vectors of a version of a model.';

-- All of these run with the rights of the caller: what he may not read he does not find.

CREATE OR REPLACE FUNCTION pgml_tune._object_expression(relation oid, attnums smallint[])
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT format('(SELECT to_jsonb(o.*) FROM (SELECT %s) AS o)', string_agg(
            CASE
                -- A cast to json that the owner of a type has made would run as whoever searches; an output function is PostgreSQL's.
                WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN
                    format('CASE WHEN s.%1$I IS NULL THEN NULL ELSE format(''%%s'', s.%1$I) END AS %1$I', a.attname)
                WHEN t.oid <> a.atttypid THEN
                    format('s.%1$I::%2$s AS %1$I', a.attname, format_type(b.base, b.base_modifier))
                ELSE format('s.%I', a.attname)
            END, ', ' ORDER BY array_position(attnums, a.attnum), a.attnum
        ))
        FROM pg_attribute AS a
        CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b
        JOIN pg_type AS t ON t.oid = b.base
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.attnum = ANY (attnums) OR attnums IS NULL AND has_column_privilege(relation, a.attnum, 'SELECT'))
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._object_expression(oid, smallint[]) IS
    'An expression for a row of alias s as jsonb, which runs no code of the owners of types: the columns named, or with NULL those that the caller may read.';

CREATE OR REPLACE FUNCTION pgml_tune._filter_condition(relation regclass, filter jsonb)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    v_conditions text[] := '{true}';
BEGIN
    IF filter IS NULL THEN
        RETURN 'true';
    END IF;
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'filter is not a JSON object'
            USING ERRCODE = '22023', HINT = 'SELECT jsonb_build_object(''column'', ''value'')';
    END IF;
    FOR r IN
        SELECT f.key, f.value, a.attname, b.base, pgml_tune._equality(b.base) AS equality
        FROM jsonb_each(filter) AS f
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = relation AND a.attname = f.key AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN LATERAL pgml_tune._base_type(a.atttypid, -1) AS b ON true
    LOOP
        IF r.attname IS NULL THEN
            RAISE EXCEPTION 'a column of the filter does not exist in table %', relation
                USING ERRCODE = '42703', DETAIL = format('Columns of the table are: %s.', (
                    SELECT string_agg(a.attname, ', ' ORDER BY a.attnum)
                    FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
                ));
        END IF;
        IF r.value = 'null' THEN
            v_conditions := v_conditions || format('s.%I IS NULL', r.attname);
            CONTINUE;
        END IF;
        IF r.equality IS NULL THEN
            RAISE EXCEPTION 'column "%" has a type that a filter cannot compare', r.attname USING ERRCODE = '22023';
        END IF;
        IF r.base <> 'jsonb'::regtype AND jsonb_typeof(r.value) IN ('object', 'array') THEN
            RAISE EXCEPTION 'the value of filter for column "%" is not a text, number, boolean or null', r.attname
                USING ERRCODE = '22023';
        END IF;
        -- $1 is the filter: what it asks for stands in no statement that an error could show.
        v_conditions := v_conditions || format('s.%I %s ($1 %s %L)::%s', r.attname, r.equality,
            CASE r.base WHEN 'jsonb'::regtype THEN '->' ELSE '->>' END, r.attname, format_type(r.base, -1));
    END LOOP;
    RETURN array_to_string(v_conditions, ' AND ');
END
$$;
COMMENT ON FUNCTION pgml_tune._filter_condition(regclass, jsonb) IS
    'A filter as a condition on alias s, where $1 is the filter: equality for each column it names.';

CREATE OR REPLACE FUNCTION pgml_tune._leaves_few(relation regclass, condition text, filter jsonb)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Where a filter keeps what is far from the question, a walk through the graph is slower than comparing so many, and misses
    -- more than a tenth of what they have.
    c_few_rows CONSTANT integer := 30000;
    v_is_few boolean;
BEGIN
    IF condition = 'true' AND NOT row_security_active(relation) THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT count(*) <= %s FROM (SELECT FROM %s AS s WHERE %s LIMIT %1$s + 1) AS m',
        c_few_rows, relation, condition) INTO v_is_few USING filter;
    RETURN v_is_few;
END
$$;
COMMENT ON FUNCTION pgml_tune._leaves_few(regclass, text, jsonb) IS
    'Whether a filter, or the row security of the caller, leaves so few rows that looking at each is fastest.';

CREATE OR REPLACE FUNCTION pgml_tune._unit(salt text, unit text)
RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As service/assignment.py does it.
    RETURN ('x' || left(encode(sha256(convert_to(salt || ':' || unit, 'UTF8')), 'hex'), 15))::bit(60)::bigint;
END
$$;
COMMENT ON FUNCTION pgml_tune._unit(text, text) IS
    'First 60 bits of sha256(salt:unit); a candidate answers where the remainder by 10,000 is below its share.';

CREATE OR REPLACE FUNCTION pgml_tune._open_collection(collection text, k integer, query text, is_fallback boolean)
RETURNS TABLE (opened pgml_tune.collection, model_reference text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    r pgml_tune.collection_route;
    v_unit text := current_setting('pgml_tune.unit', true);
    v_is_candidate boolean := false;
BEGIN
    IF collection IS NULL OR k IS NULL THEN
        RAISE EXCEPTION 'collection and k must not be NULL' USING ERRCODE = '22023';
    END IF;
    IF k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k is %, valid are 1 to 10000', k USING ERRCODE = CASE WHEN k < 1 THEN '22023' ELSE '54000' END;
    END IF;
    -- One row: the version that embeds the question and the vectors it is compared with are never those of two moments.
    SELECT o.* INTO r FROM pgml_tune.collection_route AS o WHERE o.name = _open_collection.collection;
    IF octet_length(v_unit) > 1000 THEN
        RAISE EXCEPTION 'invalid value for parameter "pgml_tune.unit"'
            USING ERRCODE = '22023', DETAIL = 'It has more than 1000 bytes.', HINT = 'RESET pgml_tune.unit';
    END IF;
    IF r.rollout_id IS NOT NULL AND r.candidate_id IS NOT NULL AND query IS NOT NULL AND NOT is_fallback THEN
        v_is_candidate := pgml_tune._unit(r.salt, coalesce(nullif(v_unit, ''), query)) % 10000 < r.share;
    END IF;
    SELECT c.* INTO t FROM pgml_tune.collection AS c
    WHERE c.collection_id = CASE WHEN v_is_candidate THEN r.candidate_id ELSE r.collection_id END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such collection'
            USING ERRCODE = '42704', HINT = 'SELECT collection FROM pgml_tune.embedding_collections';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class AS s WHERE s.oid = t.source) THEN
        RAISE EXCEPTION 'the table of collection "%" is gone', t.name USING ERRCODE = '42P01', HINT = 'CALL maintain()';
    END IF;
    IF NOT t.is_ready THEN
        IF t.mode = 'queue' AND NOT t.is_twin THEN
            RAISE EXCEPTION 'collection "%" is not filled yet', t.name
                USING ERRCODE = '55000', DETAIL = 'pgml-tune worker fills it while it runs.',
                      HINT = 'SELECT phase, steps_total, metric_value FROM pgml_tune.stat_progress WHERE kind = ''queue''';
        END IF;
        RAISE EXCEPTION 'collection "%" is not filled yet', t.name
            USING ERRCODE = '55000', HINT = format('CALL auto_embed(%L, %L, collection => %L%s)', t.source, t.source_column, t.name, pgml_tune._mode_argument(t.mode));
    END IF;
    IF has_table_privilege(t.embeddings, 'SELECT') IS NOT TRUE THEN
        RAISE EXCEPTION 'permission denied for collection "%"', t.name
            USING ERRCODE = '42501',
                  DETAIL = 'Its readers are those of its table; maintain() takes over what has changed there.',
                  HINT = CASE WHEN has_any_column_privilege(t.source, 'SELECT') THEN 'CALL maintain()'
                      ELSE format('GRANT SELECT ON %s TO %I', t.source, current_user) END;
    END IF;
    PERFORM pgml_tune._hold_tables(t.embeddings, t.source);
    IF NOT EXISTS (SELECT FROM pgml_tune._collection_parts(t.collection_id)) THEN
        RAISE EXCEPTION 'the column or the vectors of collection "%" are not as they were made', t.name
            USING ERRCODE = '55000', HINT = format('SELECT drop_auto_embed(%L)', t.name);
    END IF;
    opened := t;
    model_reference := CASE WHEN v_is_candidate THEN r.candidate_reference ELSE r.model_reference END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgml_tune._open_collection(text, integer, text, boolean) IS
    'The vectors of a collection that answer a query of the caller now, and the version that embeds it; is_fallback asks for the serving version.';

CREATE OR REPLACE FUNCTION pgml_tune._begin_search(collection text, query text, k integer, filter jsonb, needs_words boolean)
RETURNS TABLE (opened pgml_tune.collection, condition text, embedding text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o record;
BEGIN
    FOR v_try IN 1 .. 2 LOOP
        SELECT * INTO STRICT o FROM pgml_tune._open_collection(collection, k, query, is_fallback => v_try = 2);
        opened := o.opened;
        IF needs_words AND NOT EXISTS (
            SELECT FROM pg_ts_config AS y WHERE y.oid::regconfig::text = opened.text_search
        ) THEN
            RAISE EXCEPTION 'collection "%" has no full text search', opened.name
                USING ERRCODE = '55000', DETAIL = 'It was made with the option text_search none, or its configuration was dropped.',
                      HINT = format('SELECT drop_auto_embed(%L)', opened.name);
        END IF;
        condition := pgml_tune._filter_condition(opened.source, filter);
        -- What the caller has done wrong is known by now: from here on it is the model that may fail.
        IF query IS NOT NULL THEN
            embedding := pgml_tune._embed_question(
                query, split_part(o.model_reference, '@', 1), split_part(o.model_reference, '@', 2),
                jsonb_build_object('collection', opened.name, 'is_fallback', v_try = 2)
            )::text;
        END IF;
        EXIT WHEN query IS NULL OR embedding IS NOT NULL;
        -- The candidate of a rollout has failed: the serving version answers, model and vectors together.
    END LOOP;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgml_tune._begin_search(text, text, integer, jsonb, boolean) IS
    'The vectors that answer a query, the filter as a condition, and the vector of the query; NULL for a query that is NULL.';

-- What hybrid_search() has both of its parts do: which collection it is, what the filter asks for and whether it leaves few rows has
-- been found out before, once.

CREATE OR REPLACE FUNCTION pgml_tune._search_by_meaning(
    opened pgml_tune.collection, embedding text, depth integer, filter jsonb, condition text, is_exact boolean
)
RETURNS TABLE (key jsonb, distance double precision, document jsonb)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_ef_search CONSTANT integer := 400;  -- at least: measured, 100 loses a point of nDCG@10 on one-word questions, 400 none
    c_most_ef_search CONSTANT integer := 1000;  -- pgvector's limit
    c_chunks_per_row CONSTANT integer := 4;  -- looked at in the hope to meet so many different rows
    p record;
    v_distance text;
    v_head text;
    v_tail text;
    v_candidates integer := depth;
    v_keys jsonb[];
    v_distances double precision[];
    v_documents jsonb[];
    v_ef_search text;
    v_iterative_scan text;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(opened.collection_id);
    v_distance := format('e.embedding OPERATOR(%s.<=>) $2::%s', pgml_tune._vector_schema(), p.storage);
    v_head := format(
        'SELECT array_agg(r.key ORDER BY r.distance, r.key), array_agg(r.distance ORDER BY r.distance, r.key),
                array_agg(r.document ORDER BY r.distance, r.key)
         FROM (
             SELECT %1$s AS key, e.distance, %2$s AS document
             FROM (
                 -- The best chunk of each row.
                 SELECT %3$s, min(e.distance) AS distance
                 FROM (
                     SELECT e.*, %4$s AS distance FROM %5$s AS e JOIN %6$s AS s ON %7$s WHERE %8$s ORDER BY ',
        pgml_tune._object_expression(opened.source, p.key_attnums), pgml_tune._object_expression(opened.source, NULL),
        p.key_list, v_distance, p.embeddings, p.source, p.key_match, condition
    );
    v_tail := format(
        ' LIMIT $3) AS e GROUP BY %1$s ORDER BY min(e.distance), %1$s LIMIT $4) AS e JOIN %2$s AS s ON %3$s) AS r',
        p.key_list, p.source, p.key_match
    );

    IF NOT is_exact THEN
        IF p.chunk_tokens IS NOT NULL THEN
            v_candidates := depth * c_chunks_per_row;
        END IF;
        v_ef_search := current_setting('hnsw.ef_search');
        v_iterative_scan := current_setting('hnsw.iterative_scan', true);
        PERFORM set_config(
            'hnsw.ef_search', least(greatest(
                v_ef_search::integer, CASE condition WHEN 'true' THEN c_ef_search ELSE c_most_ef_search END, 2 * v_candidates
            ), c_most_ef_search)::text, true
        );
        IF v_iterative_scan IS NOT NULL THEN  -- pgvector 0.8
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
        END IF;
        EXECUTE v_head || v_distance || v_tail INTO v_keys, v_distances, v_documents
        USING filter, embedding, v_candidates, depth;
        PERFORM set_config('hnsw.ef_search', v_ef_search, true);
        IF v_iterative_scan IS NOT NULL THEN
            PERFORM set_config('hnsw.iterative_scan', v_iterative_scan, true);
        END IF;
    END IF;
    IF is_exact OR coalesce(cardinality(v_keys), 0) < depth THEN
        -- An index cannot serve a sum.
        EXECUTE v_head || format('(%s) + 0, %s', v_distance, p.key_list) || v_tail INTO v_keys, v_distances, v_documents
        USING filter, embedding, CASE WHEN p.chunk_tokens IS NULL THEN depth END, depth;
    END IF;
    RETURN QUERY SELECT u.key, u.distance, u.document
        FROM unnest(v_keys, v_distances, v_documents) AS u (key, distance, document);
END
$$;
COMMENT ON FUNCTION pgml_tune._search_by_meaning(pgml_tune.collection, text, integer, jsonb, text, boolean) IS
    'The rows of an opened collection nearest to the vector of a query; is_exact compares all rows that the condition leaves, else the graph is asked first.';

CREATE OR REPLACE FUNCTION @extschema@.semantic_search(
    collection text, query text, k integer DEFAULT 10, filter jsonb DEFAULT NULL
)
RETURNS TABLE (key jsonb, distance double precision, document jsonb)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- it takes longer than the search
SET extra_float_digits = 1 SET bytea_output = 'hex' SET intervalstyle = 'postgres'  -- a key is the same in every session
AS $$
DECLARE
    b record;
    t pgml_tune.collection;
    v_rows integer;
BEGIN
    SELECT * INTO STRICT b FROM pgml_tune._begin_search(collection, query, k, filter, needs_words => false);
    t := b.opened;
    IF query IS NOT NULL THEN
        RETURN QUERY SELECT m.key, m.distance, m.document
        FROM pgml_tune._search_by_meaning(
            t, b.embedding, k, filter, b.condition,
            is_exact => pgml_tune._has_hnsw(t.embeddings) IS NOT TRUE OR pgml_tune._leaves_few(t.source, b.condition, filter)
        ) AS m;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        PERFORM pgml_tune._end_search(v_rows);
    END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.semantic_search(text, text, integer, jsonb) IS
    'The k rows of a collection nearest in meaning to a query, nearest first: key, cosine distance (0 to 2) of the best chunk, and the row as far as the caller may read it; filter is equality on columns, as {"column": value}.';

CREATE OR REPLACE FUNCTION pgml_tune._text_query(embeddings regclass, text_search regconfig, query text)
RETURNS TABLE (rare tsquery, every tsquery)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    WITH word AS (
        -- By rarity; a word that the statistics do not name is rare.
        SELECT '''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''' AS quoted,
               sum(coalesce(f.frequency, 0.0015)) OVER (ORDER BY f.frequency NULLS FIRST, w.lexeme) AS share,
               row_number() OVER (ORDER BY f.frequency NULLS FIRST, w.lexeme) AS place
        FROM unnest(to_tsvector(text_search, left(query, 10000))) AS w
        LEFT JOIN (
            SELECT u.word, u.frequency
            FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_stats AS p ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = 'lexemes'
            CROSS JOIN LATERAL unnest(p.most_common_elems::text::text[], p.most_common_elem_freqs) AS u (word, frequency)
            WHERE c.oid = embeddings AND u.word IS NOT NULL
        ) AS f ON f.word = w.lexeme
    )
    SELECT string_agg(w.quoted, ' | ')
               FILTER (WHERE w.place = 1 OR w.share * (SELECT c.reltuples FROM pg_class AS c WHERE c.oid = embeddings) <= 2000)
               ::tsquery,
           string_agg(w.quoted, ' | ')::tsquery
    FROM word AS w
    WHERE w.place <= 100;
END
$$;
COMMENT ON FUNCTION pgml_tune._text_query(regclass, regconfig, text) IS
    'The words of a query as alternatives: the rare ones, which find rows, and all, which rank them. Made of lexemes: the syntax of tsquery means nothing in a query.';

CREATE OR REPLACE FUNCTION pgml_tune._search_by_words(
    opened pgml_tune.collection, query text, depth integer, filter jsonb, condition text, is_few boolean
)
RETURNS TABLE (key jsonb, place bigint, document jsonb)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_most_candidates CONSTANT integer := 20000;  -- ranked
    p record;
    v_rare tsquery;
    v_every tsquery;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(opened.collection_id);
    SELECT q.rare, q.every INTO v_rare, v_every
    FROM pgml_tune._text_query(opened.embeddings, opened.text_search::regconfig, query) AS q;
    IF is_few THEN
        v_rare := v_every;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT %1$s AS key, row_number() OVER (ORDER BY e.rank DESC, %2$s) AS place, %3$s AS document
         FROM (
             SELECT * FROM (
                 SELECT e.*, ts_rank(e.lexemes, $2) AS rank
                 FROM %5$s AS e JOIN %6$s AS s ON %7$s
                 WHERE e.lexemes @@ $3 AND %4$s LIMIT %8$s
             ) AS e ORDER BY e.rank DESC, %2$s LIMIT $4
         ) AS e JOIN %6$s AS s ON %7$s',
        pgml_tune._object_expression(opened.source, p.key_attnums), 'e.' || replace(p.key_list, ', ', ', e.'),
        pgml_tune._object_expression(opened.source, NULL), condition, p.embeddings, p.source, p.key_match, c_most_candidates
    ) USING filter, v_every, v_rare, depth;
END
$$;
COMMENT ON FUNCTION pgml_tune._search_by_words(pgml_tune.collection, text, integer, jsonb, text, boolean) IS
    'The rows of an opened collection that full text search ranks highest for a query.';

CREATE OR REPLACE FUNCTION @extschema@.hybrid_search(
    collection text, query text, k integer DEFAULT 10, filter jsonb DEFAULT NULL, weight double precision DEFAULT 0.5
)
RETURNS TABLE (key jsonb, score double precision, document jsonb)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- it takes longer than the search
SET extra_float_digits = 1 SET bytea_output = 'hex' SET intervalstyle = 'postgres'  -- a key is the same in every session
AS $$
DECLARE
    c_damping CONSTANT integer := 60;  -- Cormack, Clarke, Buettcher: Reciprocal Rank Fusion, SIGIR 2009
    c_least_depth CONSTANT integer := 50;
    b record;
    t pgml_tune.collection;
    v_rows integer;
    v_depth integer := least(greatest(2 * k::bigint, c_least_depth), 10000);
    v_is_few boolean;
BEGIN
    IF weight IS NULL OR NOT weight BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'weight is not a number from 0 to 1' USING ERRCODE = '22023', HINT = 'Use 0.5 for equal parts.';
    END IF;
    SELECT * INTO STRICT b FROM pgml_tune._begin_search(collection, query, k, filter, needs_words => true);
    IF query IS NULL THEN
        RETURN;
    END IF;
    t := b.opened;
    v_is_few := pgml_tune._leaves_few(t.source, b.condition, filter);
    RETURN QUERY
    WITH semantic AS (
        SELECT m.key, m.document, row_number() OVER (ORDER BY m.distance, m.key) AS place
        FROM pgml_tune._search_by_meaning(
            t, b.embedding, v_depth, filter, b.condition, is_exact => v_is_few OR pgml_tune._has_hnsw(t.embeddings) IS NOT TRUE
        ) AS m
    ), textual AS (
        SELECT w.key, w.document, w.place
        FROM pgml_tune._search_by_words(t, query, v_depth, filter, b.condition, v_is_few) AS w
    ), fused AS (
        SELECT coalesce(s.key, f.key) AS key, coalesce(s.document, f.document) AS document,
               coalesce(weight / (c_damping + s.place), 0) + coalesce((1 - weight) / (c_damping + f.place), 0) AS score
        FROM semantic AS s FULL JOIN textual AS f ON f.key = s.key
    )
    SELECT u.key, u.score, u.document FROM fused AS u WHERE u.score > 0 ORDER BY u.score DESC, u.key LIMIT hybrid_search.k;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    PERFORM pgml_tune._end_search(v_rows);
END
$$;
COMMENT ON FUNCTION @extschema@.hybrid_search(text, text, integer, jsonb, double precision) IS
    'semantic_search() and PostgreSQL full text search fused by reciprocal ranks: score = weight/(60 + place in meaning) + (1 - weight)/(60 + place in words), highest first.';
-- SQL that a model has written, judged by the server's own analysis and run where it cannot write. None of these sets the
-- search path, because the names in the text are found as the caller finds them, nor has the rights of another: what the
-- analysis runs, it runs as the caller. All of ours are qualified.
CREATE OR REPLACE FUNCTION pgml_tune._check_sql(query text)
RETURNS jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import sql_check
return sql_check.check_sql(query)
$python$;
COMMENT ON FUNCTION pgml_tune._check_sql(text) IS
    'Whether a text is one SELECT that the caller may run and that does nothing but read; it is not run.';

CREATE OR REPLACE FUNCTION pgml_tune._try_sql(query text, max_rows integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import sql_check
return sql_check.try_sql(query, max_rows)
$python$;
COMMENT ON FUNCTION pgml_tune._try_sql(text, integer) IS
    'The verdict of _check_sql() on a text, and the rows of one that passes.';

CREATE OR REPLACE FUNCTION pgml_tune._try_sql_as(role text, search_path text, query text, max_rows integer)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE STRICT
AS $python$
from pgml_tune.backend import sql_check
return sql_check.try_sql_as(role, search_path, query, max_rows)
$python$;
COMMENT ON FUNCTION pgml_tune._try_sql_as(text, text, text, integer) IS
    'What _try_sql() gives to a role whose search path is this, as JSON; for superusers. Jobs run the SQL of their rows so.';

-- The text is one SELECT, or its parentheses could end those round it. Whoever calls this rolls the view back. It is what
-- is planned and run, too, so that no name is looked up again after it was judged.
CREATE OR REPLACE FUNCTION pgml_tune._analyse_sql(
    query text, is_temporary boolean, max_bytes integer, OUT view_id oid, OUT view_name text, OUT tree text
)
RETURNS record
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    view_name := pg_catalog.concat(
        CASE WHEN is_temporary THEN 'pg_temp.' ELSE 'pgml_tune_scratch.' END,
        pg_catalog.quote_ident(pg_catalog.gen_random_uuid()::pg_catalog.text)
    );
    -- For the notice that a view of temporary tables is one.
    PERFORM pg_catalog.set_config('client_min_messages', 'warning', true);
    EXECUTE pg_catalog.format(
        E'CREATE %s VIEW %s AS SELECT pg_catalog.row_to_json(r.*) AS line FROM (\n%s\n) AS r',
        CASE WHEN is_temporary THEN 'TEMPORARY' END, view_name, query
    );
    SELECT r.ev_class, r.ev_action::pg_catalog.text INTO STRICT view_id, tree
    FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class OPERATOR(pg_catalog.=) view_name::pg_catalog.regclass;
    IF pg_catalog.octet_length(tree) OPERATOR(pg_catalog.>) max_bytes THEN
        tree := NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._analyse_sql(text, boolean, integer) IS
    'Makes a view of a SELECT, and tells what the server understands by it; NULL if that is longer than allowed.';

-- What is judged must be what is planned and run a moment later, also below views and in partitions, which their own readers
-- may not lock. SECURITY DEFINER: it takes locks that hinder nobody but who changes or indexes a table, for as long as the
-- subtransaction of its caller lasts.
CREATE OR REPLACE FUNCTION pgml_tune._hold_relations(relation_ids oid[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation record;
BEGIN
    FOR v_relation IN
        WITH RECURSIVE held AS (
            SELECT h.oid FROM unnest(relation_ids) AS h (oid)
            UNION
            SELECT i.inhrelid FROM held AS h JOIN pg_inherits AS i ON i.inhparent = h.oid
        )
        SELECT c.oid::regclass::text AS name, c.relkind FROM held AS h JOIN pg_class AS c ON c.oid = h.oid
        WHERE c.relkind IN ('r', 'p', 'v') AND c.oid >= 16384
        ORDER BY c.oid
    LOOP
        EXECUTE CASE v_relation.relkind
            WHEN 'v' THEN format('LOCK TABLE %s IN ACCESS SHARE MODE', v_relation.name)
            ELSE format('LOCK TABLE ONLY %s IN ROW EXCLUSIVE MODE', v_relation.name)
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_relations(oid[]) IS
    'Keeps tables with their partitions, and views with all below them, from being changed, replaced or indexed.';

-- What may not be written is refused by the transaction being read-only. No worker of a parallel plan: limits of time and
-- memory are those of this process. No CHECK of a table is evaluated while it is planned, and a kind of plan that the
-- session has switched off costs no more than it does.
CREATE OR REPLACE FUNCTION pgml_tune._guard_sql()
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config(s.name, s.value, true)
    FROM (
        VALUES ('transaction_read_only', 'on'), ('jit', 'off'), ('max_parallel_workers_per_gather', '0'),
            ('constraint_exclusion', 'off'), ('enable_seqscan', 'on'), ('enable_indexscan', 'on'),
            ('enable_bitmapscan', 'on'), ('enable_tidscan', 'on'), ('enable_sort', 'on'), ('enable_hashagg', 'on'),
            ('enable_nestloop', 'on'), ('enable_hashjoin', 'on'), ('enable_mergejoin', 'on')
    ) AS s (name, value);
END
$$;
COMMENT ON FUNCTION pgml_tune._guard_sql() IS 'Settings under which SQL that a model has written is planned and run.';

CREATE OR REPLACE FUNCTION pgml_tune._plan_sql(view_name text)
RETURNS double precision
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_plan json;
BEGIN
    PERFORM pgml_tune._guard_sql();
    EXECUTE format('EXPLAIN (FORMAT JSON) SELECT v.line FROM %s AS v', view_name) INTO STRICT v_plan;
    RAISE EXCEPTION USING ERRCODE = 'PGML0';
EXCEPTION WHEN SQLSTATE 'PGML0' THEN
    RETURN json_extract_path_text(v_plan, '0', 'Plan', 'Total Cost')::float8;
END
$$;
COMMENT ON FUNCTION pgml_tune._plan_sql(text) IS
    'What the planner thinks the query of a view costs; refused if the caller may not read what it reads.';

CREATE OR REPLACE FUNCTION pgml_tune._run_sql(
    view_name text, max_rows integer, max_bytes bigint, OUT lines text[], OUT is_cut boolean
)
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rows refcursor;
    v_line text;
    v_bytes bigint := 0;
BEGIN
    lines := '{}';
    is_cut := false;
    PERFORM pgml_tune._guard_sql();
    OPEN v_rows NO SCROLL FOR EXECUTE format(
        'SELECT (SELECT coalesce(json_agg(e.value), %L) FROM json_each(v.line) AS e)::text FROM %s AS v', '[]', view_name
    );
    LOOP
        FETCH v_rows INTO v_line;
        EXIT WHEN NOT FOUND;
        v_bytes := v_bytes + octet_length(v_line);
        is_cut := cardinality(lines) >= max_rows OR v_bytes > max_bytes;
        EXIT WHEN is_cut;
        lines[cardinality(lines) + 1] := v_line;
    END LOOP;
    CLOSE v_rows;
    RAISE EXCEPTION USING ERRCODE = 'PGML0';
EXCEPTION WHEN SQLSTATE 'PGML0' THEN
    NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._run_sql(text, integer, bigint) IS
    'The first rows of the query of a view, each a JSON array, read without writing.';

CREATE OR REPLACE FUNCTION pgml_tune._sql_functions(function_ids oid[], operator_ids oid[])
RETURNS TABLE (
    function_id oid, operator_id oid, name text, schema_name text, volatility text, kind text,
    is_builtin boolean, extension text, argument_types text[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT p.oid, o.oid, p.proname::text, n.nspname::text, p.provolatile::text, p.prokind::text,
               p.oid < 16384 AND n.nspname = 'pg_catalog' AND l.lanname IN ('internal', 'sql'),
               CASE WHEN l.lanname IN ('c', 'internal') THEN (
                   SELECT e.extname::text FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                   JOIN pg_roles AS r ON r.oid = p.proowner AND r.rolsuper
                   WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                     AND d.refclassid = 'pg_extension'::regclass
               ) END,
               ARRAY(
                   SELECT a.type_id::regtype::text
                   FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type_id, place) ORDER BY a.place
               )
        FROM (
            SELECT f.function_id, NULL::oid AS operator_id FROM unnest(function_ids) AS f (function_id)
            UNION ALL
            SELECT o.oprcode, o.oid FROM pg_operator AS o WHERE o.oid = ANY (operator_ids)
        ) AS f
        LEFT JOIN pg_operator AS o ON o.oid = f.operator_id
        JOIN pg_proc AS p ON p.oid = f.function_id
        JOIN pg_namespace AS n ON n.oid = p.pronamespace
        JOIN pg_language AS l ON l.oid = p.prolang;
END
$$;
COMMENT ON FUNCTION pgml_tune._sql_functions(oid[], oid[]) IS 'What functions, and those of operators, are.';

-- Plans of plpgsql are kept, those of SQL functions are not. Which columns may be read is only told where not all may.
CREATE OR REPLACE FUNCTION pgml_tune._sql_relations(relation_ids oid[])
RETURNS TABLE (
    relation_id oid, schema_name text, name text, kind text, is_own boolean, may_read boolean, columns text,
    readable_columns integer[], tree text, policies text[], function_ids oid[], has_foreign boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
               n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgml_tune', 'pgml_tune_scratch'),
               has_table_privilege(c.oid, 'SELECT'),
               (
                   SELECT json_object_agg(a.attnum, a.attname)::text FROM pg_attribute AS a
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               ),
               CASE WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN ARRAY(
                   SELECT a.attnum::integer FROM pg_attribute AS a
                   WHERE a.attrelid = c.oid AND NOT a.attisdropped AND has_column_privilege(c.oid, a.attnum, 'SELECT')
               ) END,
               CASE c.relkind WHEN 'v' THEN (
                   SELECT r.ev_action::text FROM pg_rewrite AS r WHERE r.ev_class = c.oid AND r.rulename = '_RETURN'
               ) END,
               CASE WHEN c.relrowsecurity THEN ARRAY(
                   SELECT p.polqual::text FROM pg_policy AS p
                   WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL AND p.polcmd IN ('r', '*')
               ) END,
               CASE WHEN c.relkind IN ('r', 'p', 'm', 'f') THEN pgml_tune._planned_functions(c.oid, c.relhassubclass) END,
               c.relkind = 'f' OR c.relhassubclass AND pgml_tune._has_foreign_child(c.oid)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = ANY (relation_ids);
END
$$;
COMMENT ON FUNCTION pgml_tune._sql_relations(oid[]) IS
    'What relations are, what of them the caller may read, and what else is evaluated when they are read: the queries of views and the policies of rows.';

CREATE OR REPLACE FUNCTION pgml_tune._has_foreign_child(relation_id oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE child AS (
        SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = relation_id
        UNION
        SELECT i.inhrelid FROM child AS c JOIN pg_inherits AS i ON i.inhparent = c.inhrelid
    )
    SELECT EXISTS (SELECT FROM child AS c JOIN pg_foreign_table AS f ON f.ftrelid = c.inhrelid)
$$;
COMMENT ON FUNCTION pgml_tune._has_foreign_child(oid) IS 'Whether a partition or child of a table is foreign.';

-- The planner folds what is constant in them. Those of the server itself leave no trace in pg_depend, and an index has
-- none that do anything but compute.
CREATE OR REPLACE FUNCTION pgml_tune._planned_functions(relation_id oid, has_children boolean)
RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relations oid[] := ARRAY[relation_id];
BEGIN
    IF has_children THEN
        v_relations := ARRAY(
            WITH RECURSIVE child AS (
                SELECT _planned_functions.relation_id AS oid
                UNION
                SELECT i.inhrelid FROM child AS c JOIN pg_inherits AS i ON i.inhparent = c.oid
            )
            SELECT c.oid FROM child AS c
        );
    END IF;
    RETURN ARRAY(
        SELECT coalesce(o.oprcode, d.refobjid)
        FROM (
            SELECT 'pg_class'::regclass AS class_id, i.indexrelid AS object_id FROM pg_index AS i
            WHERE i.indrelid = ANY (v_relations) AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
            UNION ALL
            SELECT 'pg_statistic_ext'::regclass, x.oid FROM pg_statistic_ext AS x
            WHERE x.stxrelid = ANY (v_relations) AND x.stxexprs IS NOT NULL
            UNION ALL
            SELECT 'pg_class'::regclass, p.partrelid FROM pg_partitioned_table AS p
            WHERE p.partrelid = ANY (v_relations) AND p.partexprs IS NOT NULL
        ) AS e
        JOIN pg_depend AS d ON d.classid = e.class_id AND d.objid = e.object_id
            AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
        LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._planned_functions(oid, boolean) IS
    'Functions of users that the planner may run for a table: in its indexes, statistics and partition keys, and those of its children.';

-- Parse analysis turns a constant into its type, and so runs the checks of a domain, also of one inside an array, a row or a
-- range; JSON runs casts to itself; a range runs its functions.
CREATE OR REPLACE FUNCTION pgml_tune._type_code()
RETURNS TABLE (type_id oid, tree text, function_ids oid[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.contypid, c.conbin::text, '{}'::oid[] FROM pg_constraint AS c
        WHERE c.conrelid = 0 AND c.contypid >= 16384 AND c.contype = 'c'
        UNION ALL
        SELECT c.castsource, NULL, ARRAY[c.castfunc] FROM pg_cast AS c
        WHERE c.castsource >= 16384 AND c.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND c.castfunc <> 0
        UNION ALL
        SELECT r.rngtypid, NULL, array_remove(ARRAY[r.rngcanonical::oid, r.rngsubdiff::oid], 0::oid) FROM pg_range AS r
        WHERE r.rngtypid >= 16384 AND (r.rngcanonical <> 0 OR r.rngsubdiff <> 0);
END
$$;
COMMENT ON FUNCTION pgml_tune._type_code() IS 'Checks of domains, casts to JSON and functions of ranges that somebody has made.';

CREATE OR REPLACE FUNCTION pgml_tune._type_users(INOUT type_ids oid[], OUT names text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_first oid := 16384;  -- of what is not the server's own
    v_count integer := 0;
BEGIN
    WHILE cardinality(type_ids) > v_count LOOP
        v_count := cardinality(type_ids);
        type_ids := ARRAY(
            SELECT t.oid FROM unnest(type_ids) AS t (oid)
            UNION
            SELECT t.oid FROM pg_type AS t
            WHERE t.oid >= v_first AND (t.typbasetype = ANY (type_ids) OR t.typelem = ANY (type_ids))
            UNION
            SELECT r.rngtypid FROM pg_range AS r WHERE r.rngtypid >= v_first AND r.rngsubtype = ANY (type_ids)
            UNION
            SELECT r.rngmultitypid FROM pg_range AS r WHERE r.rngtypid = ANY (type_ids)
            UNION
            SELECT c.reltype FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
            WHERE a.attrelid >= v_first AND a.atttypid = ANY (type_ids) AND c.reltype <> 0
        );
    END LOOP;
    SELECT json_agg(ARRAY[n.nspname, u.name]) INTO names
    FROM (
        SELECT t.typnamespace AS schema_id, t.typname AS name FROM pg_type AS t WHERE t.oid = ANY (type_ids)
        UNION
        SELECT c.relnamespace, c.relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE a.attrelid >= v_first AND a.atttypid = ANY (type_ids) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
        UNION
        SELECT p.pronamespace, p.proname FROM pg_proc AS p
        WHERE p.oid >= v_first AND (
            p.prorettype = ANY (type_ids) OR p.proargtypes::oid[] && type_ids OR p.proallargtypes && type_ids
        )
        UNION
        SELECT o.oprnamespace, o.oprname FROM pg_operator AS o
        WHERE o.oid >= v_first AND (
            o.oprleft = ANY (type_ids) OR o.oprright = ANY (type_ids) OR o.oprresult = ANY (type_ids)
        )
    ) AS u
    JOIN pg_namespace AS n ON n.oid = u.schema_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._type_users(oid[]) IS
    'Types that hold one of these types, and as pairs of schema and name all that has to do with them.';

CREATE OR REPLACE FUNCTION pgml_tune._hides_one(words text[])
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.relname = ANY (words) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          AND NOT has_table_privilege(c.oid, 'SELECT')
    )
$$;
COMMENT ON FUNCTION pgml_tune._hides_one(text[]) IS
    'Whether one of these words is the name of a table that the caller may not read, or not all of it.';

-- A value of a row type shows the names of its columns.
CREATE OR REPLACE FUNCTION pgml_tune._hides_type(type_ids oid[])
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_type AS t
        LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typlen = -1
        JOIN pg_class AS c ON c.oid IN (t.typrelid, e.typrelid)
        WHERE t.oid = ANY (type_ids) AND c.relkind <> 'c' AND NOT has_table_privilege(c.oid, 'SELECT')
    )
$$;
COMMENT ON FUNCTION pgml_tune._hides_type(oid[]) IS
    'Whether one of these types is the row of a table that the caller may not read, or an array of such rows.';
CREATE OR REPLACE FUNCTION pgml_tune._ask_hindrance()
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN session_user <> current_user THEN 'The session belongs to another role, which the query could become again.'
        WHEN r.rolsuper THEN 'It is a superuser.'
        WHEN r.rolbypassrls THEN 'It bypasses row security.'
        WHEN EXISTS (
            SELECT FROM pg_roles AS m WHERE (m.rolsuper OR m.rolbypassrls) AND pg_has_role(r.oid, m.oid, 'MEMBER')
        ) THEN 'It may become a superuser, or a role that bypasses row security.'
        WHEN pg_has_role(r.oid, 'pg_read_server_files', 'MEMBER') OR pg_has_role(r.oid, 'pg_write_server_files', 'MEMBER')
            OR pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER')
            THEN 'It may read or write files of the server, or run programs there.'
    END
    FROM pg_roles AS r WHERE r.rolname = current_user
$$;
COMMENT ON FUNCTION pgml_tune._ask_hindrance() IS 'Why ask() does not run for the caller unless it is allowed; NULL if it does.';

-- It runs SQL whose names are found as the caller finds them, and with his rights; all of ours is qualified.
CREATE OR REPLACE FUNCTION @extschema@.ask(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL, max_rows integer DEFAULT 100
)
RETURNS SETOF jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100  -- not STRICT: all but the question may be NULL
AS $python$
from pgml_tune.backend import ask
return ask.ask(question, model, tables, max_rows)
$python$;
COMMENT ON FUNCTION @extschema@.ask(text, text, regclass[], integer) IS
    'The rows that answer a question, each an object by column: what text_to_sql() writes, run as the caller where nothing can be written, within limits; no rows for NULL.';
CREATE OR REPLACE FUNCTION pgml_tune._may_see_job(viewer_id oid, role_id oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_has_role(viewer_id, role_id, 'USAGE'), false)
        OR has_function_privilege(viewer_id, '@extschema@.register_model(text, text, text, text, jsonb)', 'EXECUTE')
$$;
COMMENT ON FUNCTION pgml_tune._may_see_job(oid, oid) IS 'Whether a job of a role is the viewer''s own, or he is an administrator.';

-- Who may CALL the procedure of a kind may add a job of it; a job added past the procedure gains nothing.
CREATE OR REPLACE FUNCTION pgml_tune._check_job()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_limit integer;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_proc AS p
        JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE e.extname = 'pgml_tune' AND p.prokind = 'p' AND p.proname = NEW.kind AND 'job_id' = ANY (p.proargnames)
          AND has_function_privilege(NEW.role_id, p.oid, 'EXECUTE')
    ) THEN
        RAISE EXCEPTION 'permission denied for jobs of kind "%"', NEW.kind USING ERRCODE = '42501';
    END IF;
    -- Vectors of the worker that differ from those of the version get into caches, indexes and generated columns of all.
    IF NEW.kind = 'tune_engine'
        AND (CASE jsonb_typeof(NEW.parameters -> 'min_cosine')
            WHEN 'number' THEN (NEW.parameters -> 'min_cosine')::numeric ELSE 0
        END) < 0.99999
        AND NOT has_function_privilege(NEW.role_id, '@extschema@.configure(text, text)', 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied for option "min_cosine" below 0.99999'
            USING ERRCODE = '42501',
                  DETAIL = 'It may change vectors of a version for all sessions of the server.',
                  HINT = format('SELECT @extschema@.grant_admin(%L)', NEW.role_id::regrole);
    END IF;
    SELECT s.value::integer INTO v_limit FROM pgml_tune.setting AS s WHERE s.name = 'jobs_queued';
    v_limit := coalesce(v_limit, 100);  -- the default in settings.py
    IF (
        SELECT count(*) FROM pgml_tune.job AS j WHERE j.role_id = NEW.role_id AND j.state IN ('queued', 'running')
    ) >= v_limit THEN
        RAISE EXCEPTION 'role "%" has % jobs that wait or run', pg_get_userbyid(NEW.role_id), v_limit
            USING ERRCODE = '53400',
                  DETAIL = 'More are not accepted before one of them has ended.',
                  HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs WHERE ended_at IS NULL';
    END IF;
    -- Both would work to their ends, and the second in vain.
    IF EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.state IN ('queued', 'running') AND j.parameters #>> '{target,version}' IS NOT NULL
          AND j.parameters #>> '{target,version}' = NEW.parameters #>> '{target,version}'
          AND j.parameters #>> '{target,model}' = NEW.parameters #>> '{target,model}'
          AND (j.role_id, j.request_sha256) <> (NEW.role_id, NEW.request_sha256)
          AND NEW.kind <> 'export_onnx'  -- its version is known when it is done
    ) THEN
        RAISE EXCEPTION 'version "%" of model "%" is being made by another job', NEW.parameters #>> '{target,version}',
            NEW.parameters #>> '{target,model}'
            USING ERRCODE = '42710',
                  DETAIL = 'It may be the job of another role.',
                  HINT = 'Choose another version name, or wait: SELECT * FROM pgml_tune.jobs WHERE ended_at IS NULL';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_job() IS 'Lets only those add a job who may call its procedure, and not too many; only administrators one that may change vectors.';
CREATE OR REPLACE TRIGGER job_check BEFORE INSERT ON pgml_tune.job
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job();

CREATE OR REPLACE FUNCTION pgml_tune._check_job_rows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.job_id = NEW.job_id AND j.role_id = NEW.role_id AND j.state = 'queued'
    ) THEN
        RAISE EXCEPTION 'job % takes no rows', NEW.job_id USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_job_rows() IS 'Lets a role add to its own jobs only, and before they run.';
CREATE OR REPLACE TRIGGER job_rows_check BEFORE INSERT ON pgml_tune.job_rows
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job_rows();
CREATE OR REPLACE TRIGGER job_part_check BEFORE INSERT ON pgml_tune.job_part
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job_rows();

CREATE OR REPLACE FUNCTION pgml_tune._cancel()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pgml_tune.job AS j SET
        cancel_requested_at = coalesce(j.cancel_requested_at, clock_timestamp()),
        state = CASE j.state WHEN 'queued' THEN 'cancelled' ELSE j.state END,
        ended_at = CASE j.state WHEN 'queued' THEN clock_timestamp() END
    WHERE j.job_id = NEW.job_id AND j.ended_at IS NULL AND pgml_tune._may_see_job(NEW.role_id, j.role_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._cancel() IS
    'Lets a role ask for the cancel of a job of its own, and an administrator of any; one that waits ends at once.';
CREATE OR REPLACE TRIGGER job_cancel_request BEFORE INSERT ON pgml_tune.job_cancel
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._cancel();

CREATE OR REPLACE FUNCTION pgml_tune._forget_job_rows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgml_tune.job_rows AS r WHERE r.job_id = NEW.job_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._forget_job_rows() IS 'Deletes the snapshots of a job that has ended.';
CREATE OR REPLACE TRIGGER job_ended AFTER UPDATE ON pgml_tune.job
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION pgml_tune._forget_job_rows();

CREATE OR REPLACE FUNCTION pgml_tune._add_job(kind text, parameters jsonb, request text)
RETURNS TABLE (job_id bigint, is_new boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_sha256 text := encode(sha256(convert_to(request, 'UTF8')), 'hex');
    v_is_new boolean;
BEGIN
    -- Until this transaction ends no worker goes because it has found nothing to do.
    PERFORM pg_advisory_xact_lock_shared(1886350708, 1);
    -- Whoever adds the same at the same time is waited for.
    INSERT INTO pgml_tune.job (kind, parameters, request_sha256)
    VALUES (_add_job.kind, _add_job.parameters, v_sha256)
    ON CONFLICT DO NOTHING;
    v_is_new := FOUND;
    RETURN QUERY SELECT w.job_id, v_is_new FROM pgml_tune._own_requests AS w WHERE w.request_sha256 = v_sha256;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_job(text, jsonb, text) IS
    'Adds a job of the caller, or finds the one that was added for the same request and has not ended.';

CREATE OR REPLACE FUNCTION pgml_tune._foreign_types(type_ids oid[])
RETURNS TABLE (place integer, type_name text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.place::integer, format_type(t.type_id, NULL)
    FROM unnest(type_ids) WITH ORDINALITY AS t (type_id, place)
    CROSS JOIN LATERAL pgml_tune._base_type(t.type_id, -1) AS b
    WHERE b.base >= 16384
    ORDER BY t.place
$$;
COMMENT ON FUNCTION pgml_tune._foreign_types(oid[]) IS
    'Types, by their place, that are not PostgreSQL''s own and no domain over one: whoever made them may have made a cast to JSON, which would run.';

-- Neither of the next two sets the search path, because the query is the caller's own and finds its names as he does; all
-- of ours are qualified. A string of several statements cannot be opened as a cursor, and what changes data is refused
-- while rows are fetched. Not by a subtransaction that is rolled back: functions that return sets would begin again.
CREATE OR REPLACE FUNCTION pgml_tune._next_rows(query_rows refcursor)
RETURNS text[]
LANGUAGE plpgsql
SET transaction_read_only = on
AS $$
DECLARE
    v_line pg_catalog.text;
    v_lines pg_catalog.text[] := '{}';
    v_bytes pg_catalog.int4 := 0;
BEGIN
    FOR v_place IN 1 .. 1000 LOOP
        FETCH query_rows INTO v_line;
        EXIT WHEN NOT FOUND;
        v_lines[v_place] := v_line;
        v_bytes := v_bytes OPERATOR(pg_catalog.+) pg_catalog.octet_length(v_line);
        EXIT WHEN v_bytes OPERATOR(pg_catalog.>) 4194304;
    END LOOP;
    RETURN v_lines;
END
$$;
COMMENT ON FUNCTION pgml_tune._next_rows(refcursor) IS 'The next rows of a cursor, up to 1,000 or 4 MB, read without writing.';

CREATE OR REPLACE FUNCTION pgml_tune._take_rows(
    job_id bigint, part text, query text, column_names text[], max_rows bigint, max_bytes bigint
)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_rows pg_catalog.refcursor;
    v_lines pg_catalog.text[];
    v_count pg_catalog.int8 := 0;
    v_bytes pg_catalog.int8 := 0;
BEGIN
    OPEN v_rows NO SCROLL FOR EXECUTE pgml_tune._rows_query(query, column_names);
    FOR v_chunk_no IN 1 .. 2147483647 LOOP
        v_lines := pgml_tune._next_rows(v_rows);
        EXIT WHEN pg_catalog.cardinality(v_lines) OPERATOR(pg_catalog.=) 0;
        v_count := v_count OPERATOR(pg_catalog.+) pg_catalog.cardinality(v_lines);
        v_bytes := v_bytes OPERATOR(pg_catalog.+) pgml_tune._add_rows(job_id, part, v_chunk_no, v_lines);
        IF v_count OPERATOR(pg_catalog.>) max_rows THEN
            RETURN 'rows';
        END IF;
        IF v_bytes OPERATOR(pg_catalog.>) max_bytes THEN
            RETURN 'bytes';
        END IF;
    END LOOP;
    CLOSE v_rows;
    RETURN 'taken';
END
$$;
COMMENT ON FUNCTION pgml_tune._take_rows(bigint, text, text, text[], bigint, bigint) IS
    'Keeps the rows of a query of the caller for a job; says taken, or rows or bytes when there are more than allowed.';

CREATE OR REPLACE FUNCTION pgml_tune._rows_query(query text, column_names text[])
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A value of type json may hold line ends, which mean nothing in it.
    SELECT format(
        E'SELECT pg_catalog.replace(pg_catalog.row_to_json(r.*)::pg_catalog.text, E\'\\n\', \' \') FROM (\n%s\n) AS r (%s)',
        query, string_agg(quote_ident(c.name), ', ' ORDER BY c.place)
    )
    FROM unnest(column_names) WITH ORDINALITY AS c (name, place)
$$;
COMMENT ON FUNCTION pgml_tune._rows_query(text, text[]) IS 'A query for the rows of a query, each as a line of JSON.';

CREATE OR REPLACE FUNCTION pgml_tune._add_rows(job_id bigint, part text, chunk_no integer, lines text[])
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lines text := array_to_string(lines, E'\n');
BEGIN
    INSERT INTO pgml_tune.job_rows (job_id, part, chunk_no, row_count, lines)
    VALUES (_add_rows.job_id, _add_rows.part, _add_rows.chunk_no, cardinality(_add_rows.lines), v_lines);
    RETURN octet_length(v_lines);
END
$$;
COMMENT ON FUNCTION pgml_tune._add_rows(bigint, text, integer, text[]) IS 'Keeps a chunk of rows for a job; says how many bytes it is.';

CREATE OR REPLACE FUNCTION pgml_tune._schemas_of_path(path text)
RETURNS name[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp  -- put back at the end, so that the other one lasts no longer than this
AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', path, true);
    RETURN pg_catalog.current_schemas(false);
END
$$;
COMMENT ON FUNCTION pgml_tune._schemas_of_path(text) IS 'The schemas that a search path names, of those that the caller may use.';

CREATE OR REPLACE FUNCTION pgml_tune._worker_is_alive()
RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.worker AS w
        WHERE w.seen_at > clock_timestamp() - interval '30 seconds'
          AND EXISTS (SELECT FROM pg_stat_get_activity(w.backend_pid))
    )
$$;
COMMENT ON FUNCTION pgml_tune._worker_is_alive() IS 'Whether a worker of this database was seen in the last half minute and still has its session.';

CREATE OR REPLACE FUNCTION pgml_tune._server_address()
RETURNS TABLE (host text, port text, database text, role text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
               nullif(btrim(split_part(current_setting('unix_socket_directories'), ',', 1), ' "'), ''),
               'localhost'
           ),
           current_setting('port'), current_database()::text, pg_get_userbyid(e.extowner)::text
    FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
$$;
COMMENT ON FUNCTION pgml_tune._server_address() IS 'Where a worker on this machine reaches this database, and as whom.';

CREATE OR REPLACE FUNCTION pgml_tune._job_status(job_id bigint)
RETURNS TABLE (
    kind text, state text, phase text, step bigint, steps bigint, loss double precision, metric text,
    metric_value double precision, seconds_left double precision, result text, sqlstate text, message text, detail text,
    hint text
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT j.kind, j.state::text, p.phase, p.steps_done, p.steps_total, p.loss, p.metric, p.metric_value,
           p.seconds_left, j.result::text, j.sqlstate, j.message, j.detail, j.hint
    FROM pgml_tune.jobs AS j
    LEFT JOIN pgml_tune.stat_progress AS p ON p.job_id = j.job_id
    WHERE j.job_id = _job_status.job_id
$$;
COMMENT ON FUNCTION pgml_tune._job_status(bigint) IS 'What whoever waits for a job tells of it.';

CREATE OR REPLACE FUNCTION @extschema@.cancel_job(job_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_has_ended boolean;
BEGIN
    SELECT j.ended_at IS NOT NULL INTO v_has_ended FROM pgml_tune.jobs AS j WHERE j.job_id = cancel_job.job_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % does not exist', coalesce(job_id::text, 'NULL')
            USING ERRCODE = '42704', HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs';
    END IF;
    INSERT INTO pgml_tune.job_cancel (job_id) VALUES (cancel_job.job_id);
    RETURN NOT v_has_ended;
END
$$;
COMMENT ON FUNCTION @extschema@.cancel_job(bigint) IS
    'Cancels a job: one that waits at once, one that runs within ten seconds; false if it had ended already.';

CREATE OR REPLACE FUNCTION @extschema@.job_log(job_id bigint)
RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgml_tune.jobs AS j WHERE j.job_id = job_log.job_id) THEN
        RAISE EXCEPTION 'job % does not exist', coalesce(job_id::text, 'NULL')
            USING ERRCODE = '42704', HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs';
    END IF;
    RETURN QUERY
        SELECT to_char(l.logged_at, 'HH24:MI:SS') || '  ' || l.line
        FROM pgml_tune._job_lines AS l WHERE l.job_id = job_log.job_id ORDER BY l.job_line_id;
END
$$;
COMMENT ON FUNCTION @extschema@.job_log(bigint) IS 'What a job has told while it ran, line by line, the oldest first.';

CREATE OR REPLACE FUNCTION pgml_tune._expire_jobs()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_jobs bigint[];
BEGIN
    SELECT array_agg(j.job_id) INTO v_jobs
    FROM pgml_tune.job AS j
    WHERE j.ended_at < now() - make_interval(days => coalesce(
        (SELECT s.value::integer FROM pgml_tune.setting AS s WHERE s.name = 'job_keep_days'),
        30  -- the default in settings.py
    ));
    DELETE FROM pgml_tune.job_line AS l WHERE l.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job_part AS p WHERE p.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job_progress AS p WHERE p.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job AS j WHERE j.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.worker AS w WHERE w.seen_at < now() - interval '1 day';
END
$$;
COMMENT ON FUNCTION pgml_tune._expire_jobs() IS 'Deletes jobs that ended long ago, with all that was kept of them.';

CREATE OR REPLACE FUNCTION pgml_tune._file_users()
RETURNS TABLE (installation_id oid, digests text[], labels text[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.oid,
           ARRAY(
               SELECT v.artifact_sha256 FROM pgml_tune.model_version AS v
               UNION
               SELECT a.artifact ->> 'digest'
               FROM pgml_tune.job AS j, jsonb_array_elements(j.artifacts) AS a (artifact)
               WHERE j.state IN ('queued', 'running') AND a.artifact ->> 'digest' IS NOT NULL
           ),
           ARRAY(
               SELECT concat_ws('-', e.oid, j.job_id, j.fencing_token) FROM pgml_tune.job AS j WHERE j.state = 'running'
           )
    -- Not of the database: job numbers begin again when the extension is created anew.
    FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
$$;
COMMENT ON FUNCTION pgml_tune._file_users() IS 'The artifacts that this database needs, and what the folders of the jobs that run now are called.';
-- What the worker calls, as owner of the extension or as a superuser: granted to nobody. Whatever the holder of a job
-- writes carries the fencing token of its claim, and is refused when the job has been claimed again or has ended.

-- Two advisory locks: (1886350708, 1) is shared by the transactions that have added a job, (1886350708, 2) is held by the
-- worker that was started to end when no job is left.
CREATE OR REPLACE FUNCTION pgml_tune._take_post()
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_try_advisory_lock(1886350708, 2) THEN
        RETURN 'taken';
    END IF;
    -- Whoever has it may hang, or may just have begun.
    RETURN CASE WHEN pgml_tune._worker_is_alive() THEN 'filled' ELSE 'unclear' END;
END
$$;
COMMENT ON FUNCTION pgml_tune._take_post() IS
    'Makes the caller the worker that ends when no job is left; says taken, filled if another one is that, or unclear if it shows no life.';

CREATE OR REPLACE FUNCTION pgml_tune._may_leave()
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(1886350708, 1) THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM pgml_tune.job AS j WHERE j.state IN ('queued', 'running'));
END
$$;
COMMENT ON FUNCTION pgml_tune._may_leave() IS 'Whether there is no job, and no open transaction has added one.';

CREATE OR REPLACE FUNCTION pgml_tune._take_back_jobs()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lost record;
BEGIN
    FOR v_lost IN
        SELECT j.job_id, p.lost_count FROM pgml_tune.job AS j
        JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
        WHERE j.state = 'running' AND p.lease_until < clock_timestamp()
        -- Its holder may be about to end it, or to prove that it lives on.
        FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE pgml_tune.job_progress AS p SET lost_count = v_lost.lost_count + 1 WHERE p.job_id = v_lost.job_id;
        IF v_lost.lost_count < 2 THEN
            UPDATE pgml_tune.job AS j SET
                state = CASE WHEN j.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END::pgml_tune.job_state,
                ended_at = CASE WHEN j.cancel_requested_at IS NULL THEN NULL ELSE clock_timestamp() END
            WHERE j.job_id = v_lost.job_id;
        ELSE
            UPDATE pgml_tune.job AS j SET
                state = 'failed', ended_at = clock_timestamp(), sqlstate = '58000',
                message = 'the worker was lost three times',
                detail = 'It ended, or did not answer, before the job was done.',
                hint = format('SELECT * FROM @extschema@.job_log(%s)', j.job_id)
            WHERE j.job_id = v_lost.job_id;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._take_back_jobs() IS 'Queues the jobs whose lease has run out; one that is lost for the third time fails.';

CREATE OR REPLACE FUNCTION pgml_tune._claim_job(worker text, lease interval, most_running integer)
RETURNS TABLE (
    job_id bigint, fencing_token integer, kind text, parameters jsonb, created_by text, artifacts jsonb,
    evaluations jsonb, result jsonb, lost_count integer, installation_id oid
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_job pgml_tune.job;
    v_lost_count integer;
BEGIN
    -- It is asked every other second, and there is hardly ever anything to claim.
    IF NOT EXISTS (
        SELECT FROM pgml_tune.job AS j
        LEFT JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
        WHERE j.state = 'queued' OR (j.state = 'running' AND p.lease_until < clock_timestamp())
    ) THEN
        RETURN;
    END IF;
    -- One at a time: two workers could each start the last job that may run.
    LOCK TABLE pgml_tune.worker IN SHARE ROW EXCLUSIVE MODE;
    PERFORM pgml_tune._take_back_jobs();
    IF (SELECT count(*) FROM pgml_tune.job AS j WHERE j.state = 'running') >= most_running THEN
        RETURN;
    END IF;
    UPDATE pgml_tune.job AS j SET
        state = 'running', fencing_token = j.fencing_token + 1, started_at = coalesce(j.started_at, clock_timestamp())
    WHERE j.job_id = (
        SELECT q.job_id FROM pgml_tune.job AS q WHERE q.state = 'queued' ORDER BY q.job_id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING j.* INTO v_job;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO pgml_tune.job_progress AS p (job_id, fencing_token, worker, lease_until)
    VALUES (v_job.job_id, v_job.fencing_token, _claim_job.worker, clock_timestamp() + _claim_job.lease)
    ON CONFLICT (job_id) DO UPDATE SET
        fencing_token = excluded.fencing_token, worker = excluded.worker, lease_until = excluded.lease_until,
        phase = excluded.phase, step = NULL, steps = NULL, loss = NULL, metric = NULL, metric_value = NULL,
        phase_started_at = excluded.phase_started_at, updated_at = excluded.updated_at
    RETURNING p.lost_count INTO v_lost_count;
    RETURN QUERY SELECT v_job.job_id, v_job.fencing_token, v_job.kind, v_job.parameters, v_job.created_by,
        v_job.artifacts, v_job.evaluations, v_job.result, v_lost_count,
        (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'pgml_tune');
END
$$;
COMMENT ON FUNCTION pgml_tune._claim_job(text, interval, integer) IS
    'Gives a worker the oldest job that waits, until the lease ends; nothing if enough of them run.';

CREATE OR REPLACE FUNCTION pgml_tune._holds_job(job_id bigint, fencing_token integer)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.job_id = _holds_job.job_id AND j.fencing_token = _holds_job.fencing_token AND j.state = 'running'
    )
$$;
COMMENT ON FUNCTION pgml_tune._holds_job(bigint, integer) IS 'Whether a job runs under this claim.';

CREATE OR REPLACE FUNCTION pgml_tune._beat_job(job_id bigint, fencing_token integer, lease interval, memory_bytes bigint)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_is_cancelled boolean;
BEGIN
    -- First, because it waits for whoever is about to take the job back.
    UPDATE pgml_tune.job_progress AS p SET
        lease_until = clock_timestamp() + _beat_job.lease,
        memory_bytes = greatest(p.memory_bytes, _beat_job.memory_bytes)
    WHERE p.job_id = _beat_job.job_id AND p.fencing_token = _beat_job.fencing_token;
    SELECT j.cancel_requested_at IS NOT NULL INTO v_is_cancelled FROM pgml_tune.job AS j
    WHERE j.job_id = _beat_job.job_id AND j.fencing_token = _beat_job.fencing_token AND j.state = 'running';
    RETURN CASE WHEN v_is_cancelled IS NULL THEN 'lost' WHEN v_is_cancelled THEN 'cancel' ELSE 'ok' END;
END
$$;
COMMENT ON FUNCTION pgml_tune._beat_job(bigint, integer, interval, bigint) IS
    'Renews the lease of a job; says ok, cancel if its end is wanted, or lost if somebody else has it.';

CREATE OR REPLACE FUNCTION pgml_tune._progress_job(job_id bigint, fencing_token integer, progress jsonb)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job_progress AS p SET
        phase = n.phase, step = n.step, steps = n.steps, loss = n.loss, metric = n.metric, metric_value = n.value,
        phase_started_at = CASE WHEN p.phase = n.phase THEN p.phase_started_at ELSE clock_timestamp() END,
        updated_at = clock_timestamp()
    FROM jsonb_to_record(progress) AS n (
        phase text, step bigint, steps bigint, loss double precision, metric text, value double precision
    )
    WHERE p.job_id = _progress_job.job_id AND p.fencing_token = _progress_job.fencing_token
      AND pgml_tune._holds_job(p.job_id, p.fencing_token);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._progress_job(bigint, integer, jsonb) IS 'Writes down how far a job has come; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._log_job(job_id bigint, fencing_token integer, lines text[])
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_most CONSTANT bigint := 10000;
    v_count bigint;
BEGIN
    IF NOT pgml_tune._holds_job(job_id, fencing_token) THEN
        RETURN false;
    END IF;
    SELECT count(*) INTO v_count FROM pgml_tune.job_line AS l WHERE l.job_id = _log_job.job_id;
    INSERT INTO pgml_tune.job_line (job_id, line)
    SELECT _log_job.job_id, CASE WHEN v_count + l.place = c_most THEN 'the log is full' ELSE l.line END
    FROM unnest(lines) WITH ORDINALITY AS l (line, place)
    WHERE v_count + l.place <= c_most
    ORDER BY l.place;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._log_job(bigint, integer, text[]) IS
    'Adds lines to the log of a job, up to 10,000 in all; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._publish_job(
    job_id bigint, fencing_token integer, artifacts jsonb, evaluations jsonb, result jsonb
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        artifacts = _publish_job.artifacts, evaluations = _publish_job.evaluations, result = _publish_job.result
    WHERE j.job_id = _publish_job.job_id AND j.fencing_token = _publish_job.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._publish_job(bigint, integer, jsonb, jsonb, jsonb) IS
    'Writes down what a job has published and measured, and in the end its result; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._fail_job(
    job_id bigint, fencing_token integer, sqlstate text, message text, detail text, hint text
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        state = 'failed', ended_at = clock_timestamp(), sqlstate = _fail_job.sqlstate, message = _fail_job.message,
        detail = _fail_job.detail, hint = _fail_job.hint
    WHERE j.job_id = _fail_job.job_id AND j.fencing_token = _fail_job.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._fail_job(bigint, integer, text, text, text, text) IS
    'Ends a job with an error; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._end_cancelled(job_id bigint, fencing_token integer)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET state = 'cancelled', ended_at = clock_timestamp()
    WHERE j.job_id = _end_cancelled.job_id AND j.fencing_token = _end_cancelled.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._end_cancelled(bigint, integer) IS 'Ends a job that was cancelled; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._give_back_job(job_id bigint, fencing_token integer, is_lost boolean)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        state = CASE WHEN j.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END::pgml_tune.job_state,
        ended_at = CASE WHEN j.cancel_requested_at IS NULL THEN NULL ELSE clock_timestamp() END
    WHERE j.job_id = _give_back_job.job_id AND j.fencing_token = _give_back_job.fencing_token AND j.state = 'running';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE pgml_tune.job_progress AS p SET lost_count = p.lost_count + is_lost::integer, phase = 'waiting'
    WHERE p.job_id = _give_back_job.job_id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._give_back_job(bigint, integer, boolean) IS
    'Queues a job again that was not done, lost or not; false if it is held no more.';
-- None of these has a SET clause: a procedure that has one cannot commit, and the queries are the caller's own.
CREATE OR REPLACE PROCEDURE @extschema@.import_model(
    name text, source text, task text DEFAULT 'embedding', version text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.import_model(name, source, task, version, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.import_model(text, text, text, text, jsonb, boolean, bigint) IS
    'Brings a model in: exports a folder below import_dirs, or org/model of a hub, to ONNX or CTranslate2, compares it with the original and registers it; endpoint:NAME is a model of the server that sql_endpoint names; options: quantize, threads, description.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_sbert(
    model text, train_query text, new_version text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_sbert(model, train_query, new_version, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_sbert(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains an embedding model on rows (text, text, score), (anchor, positive), (anchor, positive, negative) or (text, text, label 0/1) into a new version with vectors of its own space; prints the metric before and after.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_classifier(
    model text, train_query text, new_model text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_classifier(model, train_query, new_model, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_classifier(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains a classifier for classify() on rows (text, label): a head on an embedding model, as model new_model, or a classifier further, as its next version.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_text_to_sql(
    model text, train_query text, new_version text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_text_to_sql(model, train_query, new_version, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_text_to_sql(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains a model for text_to_sql() on rows (question, sql) or (question, sql, search path), which it runs with the rights of the caller: from scratch, or a version further; prints the execution accuracy.';

CREATE OR REPLACE PROCEDURE @extschema@.distill_model(
    teacher text, student text, train_query text, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.distill_model(teacher, student, train_query, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.distill_model(text, text, text, text, jsonb, boolean, bigint) IS
    'Teaches a smaller model to answer as the teacher does, on rows (text, label) for a classifier and (text) for an embedding model; student is a model or layers:N, so many of the teacher''s own.';

CREATE OR REPLACE PROCEDURE @extschema@.quantize_model(
    model text, method text DEFAULT 'int8_dynamic', calibration_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.quantize_model(model, method, calibration_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.quantize_model(text, text, text, jsonb, boolean, bigint) IS
    'Adds a smaller version of a model: int8_dynamic, int8_static (calibrated on rows (text)), int8_block or fp16; refused, with the figures, if its vectors or answers differ too much.';

CREATE OR REPLACE PROCEDURE @extschema@.export_onnx(
    model text, options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.export_onnx(model, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.export_onnx(text, jsonb, boolean, bigint) IS
    'Exports a version again, with another opset or its graph optimised, as a version of the same space; options: opset, optimize, new_version, threads, description.';

CREATE OR REPLACE PROCEDURE @extschema@.export_tensorrt(
    model text, dtype text DEFAULT 'fp16',
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.export_tensorrt(model, dtype, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.export_tensorrt(text, text, jsonb, boolean, bigint) IS
    'Builds a TensorRT engine (fp16 or fp32) of a version for the GPU of this machine; options: shapes, workspace_bytes, builder, timing_cache, new_version, description.';

CREATE OR REPLACE PROCEDURE @extschema@.evaluate_model(
    model text, eval_query text, metrics text[] DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.evaluate_model(model, eval_query, metrics, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.evaluate_model(text, text, text[], jsonb, boolean, bigint) IS
    'Measures a version on rows (text, text, score), (query, document, grade), (text, label) or (question, sql) and keeps the figures in pgml_tune.evaluations; scores times 100, latency in ms.';

CREATE OR REPLACE PROCEDURE @extschema@.tune_engine(
    model text, version text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.tune_engine(model, version, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.tune_engine(text, text, jsonb, boolean, bigint) IS
    'Measures on this machine with which engine, precision, threads and batches the worker runs a version fastest, and has it run so if its vectors stay the same; options: min_cosine, engines, seconds, texts.';

CREATE OR REPLACE FUNCTION @extschema@.reset_engine(model text, version text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- As callers write it elsewhere: name@version.
    v_name text := split_part(reset_engine.model, '@', 1);
    v_version text := coalesce(reset_engine.version, nullif(split_part(reset_engine.model, '@', 2), ''));
    v_version_id bigint;
BEGIN
    SELECT v.model_version_id INTO v_version_id
    FROM pgml_tune.model AS m
    JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
    WHERE m.name = v_name AND v.version = coalesce(
        v_version, (SELECT s.version FROM pgml_tune.serving AS s WHERE s.model_id = m.model_id)
    );
    IF NOT FOUND THEN
        RAISE EXCEPTION 'version "%" does not exist', concat_ws('@', coalesce(v_name, 'NULL'), v_version)
            USING ERRCODE = '42704', HINT = 'SELECT model, version FROM pgml_tune.engine_choices';
    END IF;
    DELETE FROM pgml_tune.engine_choice AS c WHERE c.model_version_id = v_version_id;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION @extschema@.reset_engine(text, text) IS
    'Has the worker run a version by its own engine again, whatever tune_engine() has chosen; false if nothing was.';

CREATE OR REPLACE FUNCTION @extschema@.model_card(name text, version text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_card jsonb;
    v_name text := split_part(model_card.name, '@', 1);
    -- As callers write it elsewhere: name@version.
    v_version text := coalesce(model_card.version, nullif(split_part(model_card.name, '@', 2), ''));
BEGIN
    SELECT jsonb_build_object(
        'model', v.model,
        'version', v.version,
        'task', v.task,
        'description', coalesce(v.source #>> '{made_by,parameters,description}', m.description),
        'state', v.state,
        'is_serving', v.is_serving,
        'created_by', v.created_by,
        'created_at', v.created_at,
        'artifact', jsonb_build_object(
            'sha256', v.artifact_sha256, 'storage', v.storage, 'bytes', v.bytes, 'max_tokens', v.max_tokens,
            'dimensions', v.dimensions, 'space_id', v.space_id, 'is_batch_invariant', v.is_batch_invariant
        ),
        'lineage', jsonb_strip_nulls(jsonb_build_object(
            'source', v.source ->> 'name', 'base_version', v.base_version, 'made_by', v.source -> 'made_by',
            'weights_sha256', v.source ->> 'weights_sha256'
        )),
        'derived_versions', (
            SELECT coalesce(jsonb_agg(d.version ORDER BY d.created_at), '[]')
            FROM pgml_tune.model_versions AS d WHERE d.model = v.model AND d.base_version = v.version
        ),
        'checks', v.metrics,
        'evaluations', (
            SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'metric', e.metric, 'value', e.metric_value, 'rows', e.dataset_rows, 'query', e.dataset_query,
                'rows_sha256', e.dataset_sha256, 'measured_at', e.created_at, 'job_id', e.job_id
            )) ORDER BY e.evaluation_id), '[]')
            FROM pgml_tune.evaluations AS e WHERE e.model = v.model AND e.version = v.version
        )
    ) INTO v_card
    FROM pgml_tune.model_versions AS v JOIN pgml_tune.models AS m ON m.model = v.model
    WHERE v.model = v_name AND v.version = coalesce(v_version, m.serving_version);
    IF v_card IS NULL THEN
        RAISE EXCEPTION 'version "%" does not exist', concat_ws('@', coalesce(v_name, 'NULL'), v_version)
            USING ERRCODE = '42704', HINT = 'SELECT model, version, state FROM pgml_tune.model_versions';
    END IF;
    RETURN v_card;
END
$$;
COMMENT ON FUNCTION @extschema@.model_card(text, text) IS
    'What is known of a version, model_card(''name'') meaning the one that serves and model_card(''name@version'') that one: where it comes from, what it was trained on, how it was checked and measured.';
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
-- What is no row: views, query functions and what plain embed() serves follow the routes, all of them together, when the locks are had.

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
    PERFORM pgml_tune._set_routes(o.rollout_id)
    FROM pgml_tune.rollout AS o WHERE o.model_id = s.model_id AND o.ended_at IS NULL;
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
        RETURN coalesce('open transactions, which end by themselves, or by ' || pgml_tune._ending_statements(ARRAY(
            SELECT 'pgml_tune.serving'::regclass::oid
            UNION ALL
            SELECT c.view_name FROM pgml_tune._routes(model_id) AS r JOIN pgml_tune.collection AS c ON c.name = r.name
            WHERE c.view_name IS NOT NULL
        ), NULL), SQLERRM);
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
-- Twins: vectors of a collection in another space, beside those that answer its searches. All that could run code of the owner of a
-- table runs as him.

CREATE OR REPLACE FUNCTION pgml_tune._add_twin(collection_id bigint, version_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'  -- whoever waits for a table that is used holds up all who come after
AS $$
#variable_conflict use_column
DECLARE
    v_twin_id bigint;
BEGIN
    -- With the rights of the caller: a trigger asks whether the source is his.
    INSERT INTO pgml_tune.collection (
        name, source, source_column, model_version_id, model_reference, dimensions, mode, index_method, storage, chunk_tokens,
        chunk_overlap, batch_size, text_search, is_twin
    )
    SELECT c.name, c.source, p.plain_content, v.model_version_id, m.name || '@' || v.version, v.dimensions, c.mode, c.index_method,
           c.storage, c.chunk_tokens, c.chunk_overlap, c.batch_size, c.text_search, true
    FROM pgml_tune.collection AS c
    CROSS JOIN LATERAL pgml_tune._collection_parts(c.collection_id) AS p
    JOIN pgml_tune.model_version AS v ON v.model_version_id = _add_twin.version_id
    JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE c.collection_id = _add_twin.collection_id
    ON CONFLICT DO NOTHING
    RETURNING collection_id INTO v_twin_id;
    IF v_twin_id IS NULL THEN
        RAISE EXCEPTION 'the table of a collection is gone, or another session prepares it' USING ERRCODE = '55000',
            HINT = 'SELECT collection, state FROM pgml_tune.embedding_collections';
    END IF;
    PERFORM pgml_tune._build_collection(v_twin_id);
    RETURN v_twin_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_twin(bigint, bigint) IS
    'Begins to keep a collection embedded under another version, too.';

CREATE OR REPLACE FUNCTION pgml_tune._follow_twin(collection_id bigint, is_followed boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'
AS $$
DECLARE
    v_statement text;
BEGIN
    -- With the rights of the caller, who has to own the table.
    FOR v_statement IN
        SELECT format('ALTER TABLE ONLY %s %s TRIGGER %I', g.tgrelid::regclass,
            CASE WHEN is_followed THEN 'ENABLE' ELSE 'DISABLE' END, g.tgname)
        FROM pg_trigger AS g
        JOIN pgml_tune.collection AS c ON c.collection_id = _follow_twin.collection_id AND c.is_twin AND NOT c.is_ready
        WHERE g.tgfoid = to_regprocedure(format('pgml_tune._sync_%s()', c.collection_id))
          AND (g.tgenabled = 'D') = is_followed
        ORDER BY g.tgrelid, g.tgname
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._follow_twin(bigint, boolean) IS
    'Lets the writers of a table feed a twin that answers nothing yet, or spares them that while its index is made.';

CREATE OR REPLACE FUNCTION pgml_tune._index_twin(collection_id bigint, is_made boolean)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_embeddings regclass := (
        SELECT c.embeddings FROM pgml_tune.collection AS c
        WHERE c.collection_id = _index_twin.collection_id AND c.is_twin AND NOT c.is_ready
    );
    v_statement text;
BEGIN
    IF v_embeddings IS NULL THEN
        RETURN false;
    END IF;
    -- Takes the locks in the order in which all take them, and looks whether the side table is as it was made.
    PERFORM pgml_tune._fill_collection(collection_id, 'probe', NULL, NULL, NULL, 0);
    IF NOT is_made THEN
        EXECUTE format('ANALYZE %s', v_embeddings);
    END IF;
    SELECT g.statement INTO v_statement FROM pgml_tune._graph_statement(collection_id) AS g;
    IF v_statement IS NOT NULL AND is_made THEN
        EXECUTE v_statement;
        EXECUTE coalesce(pgml_tune._words_statement(collection_id), 'SELECT');
    END IF;
    RETURN v_statement IS NOT NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._index_twin(bigint, boolean) IS
    'Whether a twin that is filled wants an HNSW index; made if it shall be.';

CREATE OR REPLACE FUNCTION pgml_tune._probe_vectors(collection_id bigint, sample integer)
RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_depth CONSTANT integer := 10;
    t pgml_tune.collection;
    o pgml_tune.collection;  -- the vectors that answer now
    p record;
    v_has_graph boolean;
    v_questions text[];
    v_embeddings text[];  -- of the questions
    v_others text[];  -- of the questions, under the version that answers now; NULL: there is nothing to compare with
    v_farthest double precision;
    v_found jsonb[];
    v_best integer;
    v_same integer;
    v_counts bigint[] := '{0,0,0,0,0}';
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _probe_vectors.collection_id;
    v_has_graph := pgml_tune._has_hnsw(t.embeddings) IS TRUE;
    -- The order of hashes is as good as chance, and the same each time.
    EXECUTE format(
        'SELECT array_agg(left(s.%s::text, 1000) ORDER BY e.text_sha256)
         FROM (SELECT * FROM %s AS e WHERE e.chunk_no = 1 ORDER BY e.text_sha256 LIMIT $1) AS e JOIN %s AS s ON %s',
        p.content, p.embeddings, p.source, p.key_match
    ) INTO v_questions USING sample;
    -- One version after the other: both may not fit into the memory of a session.
    SELECT array_agg(pgml_tune._question_vector(q.question, t.model_reference) ORDER BY q.place) INTO v_embeddings
    FROM unnest(v_questions) WITH ORDINALITY AS q (question, place);
    SELECT c.* INTO o
    FROM pgml_tune.collection_route AS r
    JOIN pgml_tune.collection AS c ON c.collection_id = r.collection_id AND c.source = t.source AND c.is_ready
    WHERE r.name = t.name;
    IF FOUND THEN
        SELECT array_agg(pgml_tune._question_vector(q.question, r.model_reference) ORDER BY q.place) INTO v_others
        FROM unnest(v_questions) WITH ORDINALITY AS q (question, place), pgml_tune.collection_route AS r WHERE r.name = t.name;
    END IF;

    FOR v_no IN 1 .. coalesce(cardinality(v_questions), 0) LOOP
        SELECT count(*), max(m.distance), array_agg(m.key) INTO v_best, v_farthest, v_found
        FROM pgml_tune._search_by_meaning(t, v_embeddings[v_no], c_depth, NULL, 'true', is_exact => true) AS m;
        v_counts[1] := v_counts[1] + 1;
        v_counts[2] := v_counts[2] + v_best;
        IF v_has_graph THEN
            -- What is as near as the last of the exact ones is as good.
            SELECT count(*) FILTER (WHERE m.distance <= v_farthest + 1e-6), array_agg(m.key) INTO v_best, v_found
            FROM pgml_tune._search_by_meaning(t, v_embeddings[v_no], c_depth, NULL, 'true', is_exact => false) AS m;
        END IF;
        v_counts[3] := v_counts[3] + v_best;
        IF v_others IS NOT NULL THEN
            SELECT count(*), count(*) FILTER (WHERE m.key = ANY (v_found)) INTO v_best, v_same
            FROM pgml_tune._search_by_meaning(
                o, v_others[v_no], c_depth, NULL, 'true', is_exact => pgml_tune._has_hnsw(o.embeddings) IS NOT TRUE
            ) AS m;
            v_counts[4] := v_counts[4] + v_best;
            v_counts[5] := v_counts[5] + v_same;
        END IF;
    END LOOP;
    RETURN v_counts;
END
$$;
COMMENT ON FUNCTION pgml_tune._probe_vectors(bigint, integer) IS
    'Searches a collection with some of its own texts, ten rows each: questions, rows found by comparing all, how many of them the graph finds, rows found with the vectors that answer now, and how many of them are the same.';

CREATE OR REPLACE FUNCTION pgml_tune._question_vector(question text, model_reference text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN @extschema@.embed_pinned(question, split_part(model_reference, '@', 1), split_part(model_reference, '@', 2), 'query');
END
$$;
COMMENT ON FUNCTION pgml_tune._question_vector(text, text) IS 'The vector of a question under name@version.';

CREATE OR REPLACE FUNCTION pgml_tune._nearest_keys(collection_id bigint, is_serving boolean, question text)
RETURNS jsonb[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1 SET bytea_output = 'hex' SET intervalstyle = 'postgres'  -- as semantic_search() writes keys
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    v_reference text;
BEGIN
    -- As the caller, as if he searched: what he may not read he does not find.
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c WHERE c.collection_id = _nearest_keys.collection_id;
    PERFORM pgml_tune._hold_tables(t.embeddings, t.source);
    IF NOT pgml_tune._is_pristine(t.embeddings) OR NOT EXISTS (SELECT FROM pgml_tune._collection_parts(collection_id)) THEN
        RAISE EXCEPTION 'the column or the vectors of collection "%" are not as they were made', t.name
            USING ERRCODE = '55000', HINT = format('SELECT drop_auto_embed(%L)', t.name);
    END IF;
    v_reference := CASE WHEN is_serving THEN (SELECT r.model_reference FROM pgml_tune.collection_route AS r WHERE r.name = t.name)
        ELSE t.model_reference END;
    RETURN ARRAY(
        SELECT m.key
        FROM pgml_tune._search_by_meaning(
            t, pgml_tune._question_vector(question, v_reference), 10, NULL, 'true',
            is_exact => pgml_tune._has_hnsw(t.embeddings) IS NOT TRUE
        ) AS m
        ORDER BY m.distance, m.key
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._nearest_keys(bigint, boolean, text) IS
    'The keys of the ten rows nearest to a question, by the vectors of a row of pgml_tune.collection.';

-- No search_path of its own: it runs the query of its caller, who finds his tables as usual.
CREATE OR REPLACE FUNCTION pgml_tune._golden_rows(query text, max_rows integer)
RETURNS text[]
LANGUAGE plpgsql
AS $$
DECLARE
    v_rows pg_catalog.refcursor;
    v_lines pg_catalog.text[] := '{}';
    v_chunk pg_catalog.text[];
BEGIN
    OPEN v_rows NO SCROLL FOR EXECUTE pgml_tune._rows_query(query, ARRAY['question', 'expected']);
    LOOP
        v_chunk := pgml_tune._next_rows(v_rows);
        v_lines := pg_catalog.array_cat(v_lines, v_chunk);
        EXIT WHEN pg_catalog.cardinality(v_chunk) OPERATOR(pg_catalog.=) 0
            OR pg_catalog.cardinality(v_lines) OPERATOR(pg_catalog.>) max_rows;
    END LOOP;
    CLOSE v_rows;
    RETURN v_lines;
END
$$;
COMMENT ON FUNCTION pgml_tune._golden_rows(text, integer) IS
    'Questions and the keys that are expected, from a query of the caller, as lines of JSON; more than so many only to tell that there are.';

CREATE OR REPLACE FUNCTION pgml_tune._record_validation(collection_id bigint, validation jsonb)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- With the rights of the caller: a trigger asks whether the source is his.
    UPDATE pgml_tune.collection AS c SET validation = _record_validation.validation
    WHERE c.collection_id = _record_validation.collection_id
$$;
COMMENT ON FUNCTION pgml_tune._record_validation(bigint, jsonb) IS 'Keeps what prepare_rollout() has measured of a collection.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_twin(collection_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'
AS $$
DECLARE
    t pgml_tune.collection;
BEGIN
    SELECT c.* INTO t
    FROM pgml_tune.collection AS c
    WHERE c.collection_id = _drop_twin.collection_id AND c.is_twin AND c.view_name IS NULL AND NOT EXISTS (
        SELECT FROM pgml_tune.collection_route AS r WHERE c.collection_id IN (r.collection_id, r.candidate_id)
    ) AND NOT pgml_tune._is_way_back(c.model_version_id);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- With the rights of the caller, who has to own what is dropped; the locks in the order in which all take them.
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', t.source);
    INSERT INTO pgml_tune.collection_drop VALUES (t.collection_id);
    PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, NULL, NULL, false);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_twin(bigint) IS 'Gives up the vectors of a twin, unless searches may go there; says whether it did.';
-- Shadows: columns beside those that embed_table() has filled, for vectors of another space, until a promotion gives them their names.

CREATE OR REPLACE FUNCTION pgml_tune._with_vector(shadow_id bigint, relation oid, new_row anyelement)
RETURNS anyelement
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_names text[];  -- of the text, of the other vector and of the shadow, as they are called today
    v_version text[];
    v_text text;
    v_is_wanted boolean;
    v_vector text;
BEGIN
    SELECT array_agg(a.attname::text ORDER BY k.place) INTO v_names
    FROM pg_trigger AS g
    CROSS JOIN LATERAL unnest(g.tgattr::smallint[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute AS a ON a.attrelid = g.tgrelid AND a.attnum = k.attnum
    WHERE g.tgname = format('~pgml_tune_shadow_%s_columns', shadow_id)
      AND g.tgfoid = to_regprocedure(format('pgml_tune._shadow_%s()', shadow_id));
    -- As its owner, and nobody else: the table may be another's by now, whose types must run no code here.
    IF cardinality(v_names) <> 3 OR (SELECT pg_get_userbyid(c.relowner) FROM pg_class AS c WHERE c.oid = relation) <> current_user THEN
        RETURN new_row;
    END IF;
    SELECT ARRAY[m.name, v.version] INTO v_version
    FROM pgml_tune.tracked_column AS c
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE c.tracked_column_id = shadow_id AND NOT EXISTS (
        -- A text that is generated is not known yet.
        SELECT FROM pg_attribute AS a WHERE a.attrelid = c.source AND a.attname = v_names[1] AND a.attgenerated <> ''
    );
    IF FOUND THEN
        EXECUTE format('SELECT ($1).%I::text, ($1).%I IS NOT NULL', v_names[1], v_names[2]) INTO v_text, v_is_wanted USING new_row;
    END IF;
    IF v_is_wanted THEN
        BEGIN
            v_vector := @extschema@.embed_pinned(v_text, v_version[1], v_version[2]);
        EXCEPTION WHEN others THEN  -- not a cancel, which is none of these
            -- Nobody searches with it yet, or any more: that must not keep anybody from writing.
            RAISE WARNING 'column "%" of table % gets no vector: %', v_names[3], relation::regclass, SQLERRM;
            PERFORM pgml_tune._leave_shadow(shadow_id);
        END;
    END IF;
    RETURN jsonb_populate_record(new_row, jsonb_build_object(v_names[3], v_vector));
END
$$;
COMMENT ON FUNCTION pgml_tune._with_vector(bigint, oid, anyelement) IS
    'A row that is written, with the vector of its text in a shadow wherever the other column has one.';

CREATE OR REPLACE FUNCTION pgml_tune._leave_shadow(shadow_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- With the rights of the owner; one of many writers is enough.
    PERFORM FROM pgml_tune.tracked_column AS c WHERE c.tracked_column_id = shadow_id AND c.is_filled FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE pgml_tune.tracked_column AS c SET is_filled = false WHERE c.tracked_column_id = shadow_id;
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._leave_shadow(bigint) IS 'Writes down that a row has no vector in a shadow: prepare_rollout() has to fill it.';

CREATE OR REPLACE FUNCTION pgml_tune._shadow_statements(shadow_id bigint)
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    -- Says nothing, but binds the trigger to the columns, so that none can be dropped without the other.
    v_binding text;
    v_changes text;  -- an update of nothing but the vector is a filling
BEGIN
    SELECT o.tracked_column_id AS id, o.source, o.source_column, o.shadow_of, o.target_column, t.attgenerated <> '' AS is_generated,
           pg_get_userbyid(s.relowner) AS owner
    INTO c
    FROM pgml_tune.tracked_column AS o
    JOIN pg_class AS s ON s.oid = o.source
    JOIN pg_attribute AS t ON t.attrelid = o.source AND t.attname = o.source_column AND NOT t.attisdropped
    WHERE o.tracked_column_id = shadow_id AND 2 = (
        SELECT count(*) FROM pg_attribute AS a
        WHERE a.attrelid = o.source AND a.attname IN (o.target_column, o.shadow_of) AND NOT a.attisdropped
    );
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    v_binding := format('(NEW.%1$I IS NULL OR NEW.%1$I IS NOT NULL)', c.target_column);
    IF c.is_generated THEN
        v_changes := format('OLD.%1$I IS NOT NULL AND NEW.%1$I IS NOT NULL', c.target_column);
    ELSE
        v_binding := v_binding || format(' AND (NEW.%1$I IS NULL OR NEW.%1$I IS NOT NULL)', c.source_column);
        v_changes := format(
            '(OLD.%1$I::text COLLATE "C" IS DISTINCT FROM NEW.%1$I::text COLLATE "C" OR (OLD.%2$I IS NULL) <> (NEW.%2$I IS NULL))',
            c.source_column, c.shadow_of
        );
    END IF;
    RETURN ARRAY[format(
        'CREATE OR REPLACE FUNCTION pgml_tune._shadow_%1$s()
         RETURNS trigger
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET pgml_tune.cache = ''off''
         AS $body$
         BEGIN
             RETURN pgml_tune._with_vector(%1$s, TG_RELID, NEW);
         END
         $body$', c.id
    ), format(
        'REVOKE ALL ON FUNCTION pgml_tune._shadow_%s() FROM PUBLIC', c.id
    ), format(
        'COMMENT ON FUNCTION pgml_tune._shadow_%s() IS %L', c.id,
        format('Trigger of column "%s" of %s: its vector follows the row.', c.target_column, c.source)
    ), format(
        'ALTER FUNCTION pgml_tune._shadow_%s() OWNER TO %I', c.id, c.owner
    ), format(
        -- Never fires. PostgreSQL keeps its list of columns true through renames, dumps and restores.
        'CREATE TRIGGER "~pgml_tune_shadow_%1$s_columns" AFTER UPDATE OF %2$I, %3$I, %4$I ON %5$s
         FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION pgml_tune._shadow_%1$s()',
        c.id, c.source_column, c.shadow_of, c.target_column, c.source
    )] || ARRAY(
        -- The last of all triggers by its name: one of the user may make the other vector.
        SELECT format('CREATE TRIGGER "~pgml_tune_shadow_%s_%s" BEFORE %s ON %s FOR EACH ROW WHEN (%s AND %s) EXECUTE FUNCTION pgml_tune._shadow_%1$s()',
            c.id, lower(t.event), t.event, c.source, t.condition, v_binding)
        FROM (
            VALUES ('UPDATE', v_changes),
                   ('INSERT', CASE WHEN NOT c.is_generated THEN format('NEW.%I IS NOT NULL', c.shadow_of) END)
        ) AS t (event, condition)
        WHERE t.condition IS NOT NULL
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._shadow_statements(bigint) IS
    'What makes the triggers by which the vector of a shadow follows its row, as the owner of the table.';

CREATE OR REPLACE FUNCTION pgml_tune._mend_shadows(relation oid)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning  -- what goes is known
SET lock_timeout = '300ms'
AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        -- With it go its triggers.
        SELECT DISTINCT format('DROP FUNCTION %s CASCADE', f.oid::regprocedure)
        FROM pg_trigger AS g
        JOIN pg_proc AS f
            ON f.oid = g.tgfoid AND f.pronamespace = 'pgml_tune'::regnamespace AND f.proname ~ '^_shadow_[0-9]+$'
        WHERE g.tgrelid = relation
    LOOP
        EXECUTE v_statement;
    END LOOP;
    FOR v_statement IN
        SELECT s.statement
        FROM pgml_tune.tracked_column AS c
        CROSS JOIN LATERAL unnest(pgml_tune._shadow_statements(c.tracked_column_id)) WITH ORDINALITY AS s (statement, place)
        WHERE c.source = relation AND c.shadow_of IS NOT NULL
        ORDER BY c.tracked_column_id, s.place
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._mend_shadows(oid) IS 'Gives the shadows of a table, and nothing else there, their triggers.';

CREATE OR REPLACE FUNCTION pgml_tune._free_column(relation oid, name text)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- 63 bytes at most, also with underscores behind.
    SELECT pgml_tune._free_name(
        CASE WHEN octet_length(_free_column.name) <= 58 THEN _free_column.name
             ELSE left(_free_column.name, 12) || '_' || left(md5(_free_column.name), 8) END,
        ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = relation)
    )
$$;
COMMENT ON FUNCTION pgml_tune._free_column(oid, text) IS 'A name for a column that the table does not have yet.';

-- No search_path of its own: what the caller has put on his table finds its names as he does.
CREATE OR REPLACE FUNCTION pgml_tune._add_shadow(column_id bigint, version_id bigint)
RETURNS text
LANGUAGE plpgsql
SET lock_timeout = '300ms'
AS $$
DECLARE
    c pgml_tune.tracked_column;
    v_shadow pg_catalog.text;
    v_type pg_catalog.text;
    v_dimensions pg_catalog.int4;
BEGIN
    -- One session at a time: two would add two columns.
    SELECT o.* INTO STRICT c FROM pgml_tune.tracked_column AS o WHERE o.tracked_column_id OPERATOR(pg_catalog.=) column_id
    FOR UPDATE;
    SELECT p.shadow_column INTO v_shadow
    FROM pgml_tune.model_version AS v
    CROSS JOIN LATERAL pgml_tune._columns_to_prepare(v.model_id, v.model_version_id) AS p
    WHERE v.model_version_id OPERATOR(pg_catalog.=) version_id AND p.column_id OPERATOR(pg_catalog.=) _add_shadow.column_id;
    IF v_shadow IS NOT NULL THEN
        RETURN v_shadow;
    END IF;
    PERFORM pgml_tune._forget_columns();  -- one of that name may have been dropped
    SELECT pgml_tune._free_column(c.source, pg_catalog.concat(c.target_column, '_', v.version)), f.target_type, v.dimensions
    INTO STRICT v_shadow, v_type, v_dimensions
    FROM pgml_tune.model_version AS v
    CROSS JOIN LATERAL pgml_tune._target_facts(c.source, c.source_column, c.target_column) AS f
    WHERE v.model_version_id OPERATOR(pg_catalog.=) version_id;
    PERFORM pgml_tune._add_vector_column(c.source, v_shadow, v_type, v_dimensions);
    INSERT INTO pgml_tune.tracked_column (source, target_column, model_version_id, filled_by, source_column, shadow_of, is_filled)
    VALUES (c.source, v_shadow, version_id, 'embed_table', c.source_column, c.target_column, false);
    PERFORM pgml_tune._mend_shadows(c.source);
    RETURN v_shadow;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_shadow(bigint, bigint) IS
    'Adds the column that gets the vectors of a version for a recorded column, and the trigger that keeps them true.';

CREATE OR REPLACE FUNCTION pgml_tune._shadow_indexes(relation oid, target_column text, shadow_column text)
RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'CREATE INDEX ON %s USING %I (%I %I.%I)%s%s', relation::regclass, m.amname, shadow_column, n.nspname, o.opcname,
        ' WITH (' || array_to_string(c.reloptions, ', ') || ')',
        ' WHERE ' || pg_get_expr(i.indpred, i.indrelid)
    )
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname = _shadow_indexes.target_column
    JOIN pg_opclass AS o ON o.oid = i.indclass[0]
    JOIN pg_namespace AS n ON n.oid = o.opcnamespace
    WHERE i.indrelid = relation AND i.indnatts = 1
      AND coalesce(strpos(pg_get_expr(i.indpred, i.indrelid), quote_ident(_shadow_indexes.target_column)), 0) = 0
      AND NOT EXISTS (
          SELECT FROM pg_index AS x JOIN pg_attribute AS b ON b.attrelid = x.indrelid AND b.attnum = x.indkey[0]
          WHERE x.indrelid = relation AND b.attname = _shadow_indexes.shadow_column AND x.indclass[0] = o.oid
      )
    ORDER BY c.relname
$$;
COMMENT ON FUNCTION pgml_tune._shadow_indexes(oid, text, text) IS
    'What makes the graphs and lists of a column once more for its shadow, where that has none of them yet.';

CREATE OR REPLACE FUNCTION pgml_tune._finish_shadow(column_id bigint, shadow_id bigint)
RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '300ms'
AS $$
DECLARE
    c pgml_tune.tracked_column;
    d pgml_tune.tracked_column;
    v_statement pg_catalog.text;
    v_count pg_catalog.int4 := 0;
BEGIN
    SELECT o.* INTO STRICT c FROM pgml_tune.tracked_column AS o WHERE o.tracked_column_id OPERATOR(pg_catalog.=) column_id;
    SELECT o.* INTO STRICT d FROM pgml_tune.tracked_column AS o WHERE o.tracked_column_id OPERATOR(pg_catalog.=) shadow_id;
    FOR v_statement IN
        SELECT s.statement FROM pgml_tune._shadow_indexes(c.source, c.target_column, d.target_column) AS s (statement)
    LOOP
        EXECUTE v_statement;
        v_count := v_count OPERATOR(pg_catalog.+) 1;
    END LOOP;
    UPDATE pgml_tune.tracked_column AS o SET is_filled = true, left_at = NULL
    WHERE o.tracked_column_id OPERATOR(pg_catalog.=) shadow_id;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION pgml_tune._finish_shadow(bigint, bigint) IS
    'Makes the indexes of a shadow whose rows have their vectors, and says how many; from now on it can take over.';

-- No search_path of its own: what the caller has put on his table finds its names as he does.
CREATE OR REPLACE FUNCTION pgml_tune._drop_shadow(shadow_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '300ms'
AS $$
DECLARE
    v_statement pg_catalog.text;
    v_relation pg_catalog.oid := (
        SELECT c.source::pg_catalog.oid FROM pgml_tune.tracked_column AS c
        WHERE c.tracked_column_id OPERATOR(pg_catalog.=) shadow_id
    );
BEGIN
    IF EXISTS (
        SELECT FROM pgml_tune.tracked_column AS c
        WHERE c.tracked_column_id OPERATOR(pg_catalog.=) shadow_id AND pgml_tune._is_way_back(c.model_version_id)
    ) THEN
        RAISE EXCEPTION 'rollback_model() may need the column that was prepared' USING ERRCODE = '55000',
            HINT = 'SELECT configure(''rollback_window_hours'', ''0'')';
    END IF;
    FOREACH v_statement IN ARRAY pgml_tune._drop_statements(shadow_id) LOOP
        EXECUTE v_statement;
    END LOOP;
    PERFORM pgml_tune._forget_columns();
    PERFORM pgml_tune._mend_shadows(v_relation);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_shadow(bigint) IS 'Gives up a shadow and its column.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_statements(shadow_id bigint)
RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT format('DROP TRIGGER %I ON %s', g.tgname, c.source) FROM pg_trigger AS g
        WHERE g.tgrelid = c.source AND g.tgfoid = to_regprocedure(format('pgml_tune._shadow_%s()', shadow_id))
    ) || format('ALTER TABLE %s DROP COLUMN %I', c.source, c.target_column)
    FROM pgml_tune.tracked_column AS c
    WHERE c.tracked_column_id = shadow_id AND c.shadow_of IS NOT NULL
$$;
COMMENT ON FUNCTION pgml_tune._drop_statements(bigint) IS 'What drops a shadow, in the name of the owner of its table.';

CREATE OR REPLACE FUNCTION pgml_tune._inherit_statements(relation oid, old_column text, new_column text)
RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('REVOKE ALL (%I) ON %s FROM %s CASCADE', new_column, relation::regclass, pgml_tune._role_name(g.grantee))
    FROM pg_attribute AS a CROSS JOIN LATERAL aclexplode(a.attacl) AS g
    WHERE a.attrelid = relation AND a.attname = new_column
    UNION ALL
    SELECT format('GRANT %s (%I) ON %s TO %s%s', g.privilege_type, new_column, relation::regclass,
        pgml_tune._role_name(g.grantee), CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_attribute AS a CROSS JOIN LATERAL aclexplode(a.attacl) AS g
    WHERE a.attrelid = relation AND a.attname = old_column
    UNION ALL
    -- Nobody else needs what is kept, and whoever loses the one must not keep the other.
    SELECT format('REVOKE ALL (%I) ON %s FROM %s CASCADE', old_column, relation::regclass, pgml_tune._role_name(g.grantee))
    FROM pg_attribute AS a CROSS JOIN LATERAL aclexplode(a.attacl) AS g
    WHERE a.attrelid = relation AND a.attname = old_column
    UNION ALL
    SELECT format('COMMENT ON COLUMN %s.%I IS %L', relation::regclass, new_column, col_description(relation, a.attnum))
    FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = old_column AND col_description(relation, a.attnum) IS NOT NULL
    UNION ALL
    SELECT format('ALTER TABLE %s ALTER %I SET STORAGE %s', relation::regclass, new_column,
        CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'x' THEN 'EXTENDED' ELSE 'EXTERNAL' END)
    FROM pg_attribute AS a JOIN pg_attribute AS b ON b.attrelid = a.attrelid AND b.attname = new_column
    WHERE a.attrelid = relation AND a.attname = old_column AND a.attstorage <> b.attstorage
    UNION ALL
    -- A session keeps the types of fields that a trigger has used: each is compiled anew after this change of nothing.
    SELECT DISTINCT format('ALTER FUNCTION %s COST %s', f.oid::regprocedure, f.procost)
    FROM pg_trigger AS g
    JOIN pg_proc AS f ON f.oid = g.tgfoid
    JOIN pg_language AS l ON l.oid = f.prolang AND l.lanname = 'plpgsql'
    WHERE g.tgrelid = relation AND f.pronamespace <> 'pgml_tune'::regnamespace
$$;
COMMENT ON FUNCTION pgml_tune._inherit_statements(oid, text, text) IS
    'What gives a column that takes over a name the grants, the comment and the storage of the other, and makes triggers look at it anew.';

CREATE OR REPLACE FUNCTION pgml_tune._swap_columns(model_id bigint, version_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    v_kept text;
    v_statement text;
BEGIN
    FOR c IN
        SELECT p.*, p.relation::regclass AS name
        FROM pgml_tune._columns_to_prepare(_swap_columns.model_id, _swap_columns.version_id) AS p
        -- The way back is never refused: embed_table() fills what is missing.
        WHERE p.is_done OR p.is_left
        ORDER BY p.relation, p.column_id
    LOOP
        -- The text form of its name was made without this lock.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', c.name);
        v_kept := pgml_tune._free_column(c.relation, c.target_column || '_' || c.version);
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', c.name, c.target_column, v_kept);
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', c.name, c.shadow_column, c.target_column);
        FOR v_statement IN
            SELECT i.statement FROM pgml_tune._inherit_statements(c.relation, v_kept, c.target_column) AS i (statement)
        LOOP
            EXECUTE v_statement;
        END LOOP;
        UPDATE pgml_tune.tracked_column AS t SET target_column = v_kept, shadow_of = c.target_column, left_at = now()
        WHERE t.tracked_column_id = c.column_id;
        UPDATE pgml_tune.tracked_column AS t SET target_column = c.target_column, shadow_of = NULL, left_at = NULL
        WHERE t.tracked_column_id = c.shadow_id;
        PERFORM pgml_tune._mend_shadows(c.relation);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._swap_columns(bigint, bigint) IS
    'Gives the prepared columns of a version the names of those that searches use, which are kept under a name of their own.';

CREATE OR REPLACE FUNCTION pgml_tune._retire_shadows()
RETURNS TABLE (object text, model_reference text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT t.tracked_column_id, t.source, t.target_column, m.name || '@' || v.version AS reference
        FROM pgml_tune.tracked_column AS t
        JOIN pgml_tune.model_version AS v ON v.model_version_id = t.model_version_id
        JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        -- One of that name that holds anything else has been put there since.
        JOIN LATERAL pgml_tune._target_facts(t.source, t.source_column, t.target_column) AS f ON f.target_type IS NOT NULL
        WHERE t.shadow_of IS NOT NULL AND t.left_at < now() - pgml_tune._rollback_window() AND NOT EXISTS (
            SELECT FROM pgml_tune.rollout AS r JOIN pgml_tune.model_version AS w ON w.model_version_id = r.to_version_id
            WHERE r.model_id = v.model_id AND r.ended_at IS NULL AND w.space_id = v.space_id
        )
        ORDER BY t.tracked_column_id
    LOOP
        object := format('%s.%I', c.source, c.target_column);
        model_reference := c.reference;
        BEGIN
            PERFORM set_config('lock_timeout', '2s', true);
            DELETE FROM pgml_tune.tracked_column AS t WHERE t.tracked_column_id = c.tracked_column_id;
            PERFORM pgml_tune._mend_shadows(c.source);
            EXECUTE format('ALTER TABLE %s DROP COLUMN %I', c.source, c.target_column);
            outcome := 'dropped';
        EXCEPTION WHEN lock_not_available OR dependent_objects_still_exist THEN
            outcome := SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._retire_shadows() IS
    'Drops the columns whose vectors no search has used for so long, unless others hold a lock or something is built on them.';
-- What stands between a model and a version in another space, and prepare_rollout(), which makes it: twins of collections and shadows
-- of recorded columns, only for the owners of their tables.

CREATE OR REPLACE FUNCTION pgml_tune._preparation_facts(version_id bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'model_id', m.model_id, 'model', m.name, 'version_id', v.model_version_id, 'version', v.version,
        'dimensions', v.dimensions
    )
    FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE v.model_version_id = _preparation_facts.version_id
$$;
COMMENT ON FUNCTION pgml_tune._preparation_facts(bigint) IS 'What a version is, and of which model.';

CREATE OR REPLACE FUNCTION pgml_tune._collections_to_prepare(model_id bigint, version_id bigint)
RETURNS TABLE (
    collection_id bigint, name text, owner text, is_own boolean, twin_id bigint, is_retired boolean, is_done boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.collection_id, c.name, pg_get_userbyid(s.relowner)::text, pg_has_role(s.relowner, 'USAGE'),
           t.collection_id, t.retired_xid IS NOT NULL, coalesce(
               t.is_ready AND t.is_filled AND t.retired_xid IS NULL AND pgml_tune._is_pristine(t.embeddings)
               AND EXISTS (SELECT FROM pgml_tune._collection_parts(t.collection_id))
               AND NOT EXISTS (SELECT FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = t.collection_id) AND (
                   -- What the collection began with, or has answered before, has been good enough.
                   NOT t.is_twin OR t.collection_id = c.collection_id OR t.validation @> '{"passed": true}'
               ), false
           )
    FROM pgml_tune._routes(_collections_to_prepare.model_id) AS r
    JOIN pgml_tune.collection AS c ON c.collection_id = r.collection_id
    JOIN pg_class AS s ON s.oid = c.source
    JOIN pgml_tune.model_version AS v ON v.model_version_id = _collections_to_prepare.version_id
    LEFT JOIN LATERAL (
        SELECT o.*
        FROM pgml_tune.collection AS o
        JOIN pgml_tune.model_version AS w ON w.model_version_id = o.model_version_id AND w.space_id = v.space_id
        -- A row of that name that somebody else has added is none of it.
        WHERE o.name = c.name AND o.source = c.source
        ORDER BY o.collection_id <> c.collection_id, o.retired_xid IS NOT NULL, o.collection_id DESC
        LIMIT 1
    ) AS t ON true
    ORDER BY c.name
$$;
COMMENT ON FUNCTION pgml_tune._collections_to_prepare(bigint, bigint) IS
    'The collections that a model answers, and what each has of vectors that questions under a version can be compared with.';

CREATE OR REPLACE FUNCTION pgml_tune._columns_to_prepare(model_id bigint, version_id bigint)
RETURNS TABLE (
    column_id bigint, relation oid, label text, source_column text, target_column text, version text, owner text, is_own boolean,
    shadow_id bigint, shadow_column text, shadow_version_id bigint, is_done boolean, is_left boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.tracked_column_id, s.oid, format('%I.%I.%I', n.nspname, s.relname, c.target_column), c.source_column, c.target_column,
           own.version, pg_get_userbyid(s.relowner)::text,
           -- Him and nobody else: triggers of the table run as whoever fills it.
           pg_get_userbyid(s.relowner) = current_user,
           d.tracked_column_id, d.target_column, d.model_version_id, coalesce(d.is_filled, false),
           d.left_at IS NOT NULL
    FROM pgml_tune.tracked_column AS c
    JOIN pgml_tune.model_version AS own ON own.model_version_id = c.model_version_id
    JOIN pgml_tune.model_version AS v
        ON v.model_version_id = _columns_to_prepare.version_id AND v.model_id = own.model_id AND v.space_id <> own.space_id
    JOIN pg_class AS s ON s.oid = c.source
    JOIN pg_namespace AS n ON n.oid = s.relnamespace
    -- One that a table has from another is renamed there.
    JOIN pg_attribute AS a
        ON a.attrelid = s.oid AND a.attname = c.target_column AND NOT a.attisdropped AND a.attinhcount = 0
    LEFT JOIN LATERAL (
        SELECT o.*
        FROM pgml_tune.tracked_column AS o
        JOIN pgml_tune.model_version AS w ON w.model_version_id = o.model_version_id AND w.space_id = v.space_id
        JOIN pg_attribute AS b ON b.attrelid = o.source AND b.attname = o.target_column AND NOT b.attisdropped
        -- One that was kept goes back in any case; one that writers do not feed any more, since the table has another owner, is none.
        LEFT JOIN pg_proc AS f ON f.oid = to_regprocedure(format('pgml_tune._shadow_%s()', o.tracked_column_id))
        WHERE o.source = c.source AND o.shadow_of = c.target_column AND o.filled_by = 'embed_table'
          AND (o.left_at IS NOT NULL OR f.proowner = s.relowner)
        ORDER BY o.is_filled DESC, o.tracked_column_id DESC
        LIMIT 1
    ) AS d ON true
    WHERE v.model_id = _columns_to_prepare.model_id
      AND c.shadow_of IS NULL AND c.filled_by = 'embed_table' AND c.source_column IS NOT NULL
    ORDER BY 3
$$;
COMMENT ON FUNCTION pgml_tune._columns_to_prepare(bigint, bigint) IS
    'The columns that embed_table() has filled with vectors of a model in another space than a version, and their shadows in its space.';

CREATE OR REPLACE FUNCTION pgml_tune._column_users(relation oid, column_name text)
RETURNS TABLE (type text, identity text, statement text, is_blocking boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- All that PostgreSQL binds to the number of a column, and so does not follow its name. An index of its own is made once more.
    SELECT CASE WHEN r.oid IS NULL THEN i.type ELSE 'view' END,
           CASE WHEN r.oid IS NULL THEN i.identity ELSE r.oid::regclass::text END,
           CASE
               WHEN r.relkind = 'm' THEN format('DROP MATERIALIZED VIEW %s', r.oid::regclass)
               WHEN r.relkind = 'v' THEN format('DROP VIEW %s', r.oid::regclass)
               WHEN i.type IN ('function', 'procedure', 'policy', 'trigger', 'rule', 'index') THEN
                   format('DROP %s %s', upper(i.type), i.identity)
               WHEN i.type = 'table constraint' THEN format('ALTER TABLE %s DROP CONSTRAINT %I', relation::regclass, o.conname)
               WHEN i.type = 'statistics object' THEN 'DROP STATISTICS ' || i.identity
               ELSE format('SELECT pg_describe_object(%s, %s, %s)', d.classid, d.objid, d.objsubid)
           END,
           d.classid IN ('pg_constraint'::regclass, 'pg_publication_rel'::regclass)
    FROM pg_attribute AS a
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
    LEFT JOIN pg_rewrite AS u ON d.classid = 'pg_rewrite'::regclass AND u.oid = d.objid
    LEFT JOIN pg_class AS r ON r.oid = u.ev_class AND r.relkind IN ('v', 'm')
    LEFT JOIN pg_constraint AS o ON d.classid = 'pg_constraint'::regclass AND o.oid = d.objid
    LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
    LEFT JOIN pg_index AS x ON d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid
    WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped
      AND (x.indexrelid IS NULL OR x.indexprs IS NOT NULL OR x.indpred IS NOT NULL AND x.indkey[0] <> a.attnum)
      AND (g.oid IS NULL OR g.tgname !~ '^~pgml_tune_shadow_')
    UNION ALL
    SELECT 'constraint', 'NOT NULL', format('ALTER TABLE %s ALTER %I DROP NOT NULL', relation::regclass, column_name), true
    FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = column_name AND a.attnotnull
$$;
COMMENT ON FUNCTION pgml_tune._column_users(oid, text) IS
    'What stays with the vectors of a column when another takes its name, and the statement that drops it; is_blocking: writers would fail.';

CREATE OR REPLACE FUNCTION pgml_tune._untracked_uses(model_id bigint, version_id bigint)
RETURNS TABLE (object text, statement text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH version AS (
        SELECT m.name AS model, s.dimensions, s.version AS serving_version, v.version, v.space_id
        FROM pgml_tune.model_version AS v
        JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        JOIN pgml_tune.serving AS s ON s.model_id = v.model_id
        JOIN pgml_tune.model_version AS o ON o.model_version_id = s.model_version_id AND o.space_id <> v.space_id
        WHERE v.model_version_id = _untracked_uses.version_id AND v.model_id = _untracked_uses.model_id
    ), prepared AS (
        SELECT * FROM pgml_tune._columns_to_prepare(_untracked_uses.model_id, _untracked_uses.version_id)
    )
    SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname),
           CASE c.relkind WHEN 'm' THEN format('DROP MATERIALIZED VIEW %s', c.oid::regclass)
               WHEN 'f' THEN format('DROP FOREIGN TABLE %s', c.oid::regclass)
               ELSE CASE WHEN k.source IS NULL THEN
                   format('SELECT track_column(%L, %L, %L)', format('%I.%I', n.nspname, c.relname), a.attname,
                       w.model || '@' || w.serving_version)
               -- It needs new vectors first, which only its user can make; to record it as of them now would be untrue.
               ELSE format('SELECT * FROM pgml_tune.tracked_columns WHERE source = %L::regclass',
                   format('%I.%I', n.nspname, c.relname))
               END END
    FROM version AS w
    CROSS JOIN pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0
    CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b
    JOIN pg_type AS y ON y.oid = b.base
    JOIN pg_type AS t
        ON t.oid = CASE y.typcategory WHEN 'A' THEN y.typelem ELSE y.oid END AND t.typname IN ('vector', 'halfvec')
    JOIN pg_extension AS e ON e.extname = 'vector' AND e.extnamespace = t.typnamespace
    LEFT JOIN pgml_tune.tracked_column AS k ON k.source = c.oid AND k.target_column = a.attname
    LEFT JOIN pgml_tune.model_version AS o ON o.model_version_id = k.model_version_id
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast')
      AND CASE
          WHEN k.source IS NULL THEN b.base_modifier IN (w.dimensions, -1)
          ELSE o.model_id = _untracked_uses.model_id AND o.space_id <> w.space_id AND k.shadow_of IS NULL
              AND k.tracked_column_id NOT IN (SELECT p.column_id FROM prepared AS p)
      END
    UNION ALL
    -- They would go on with the vectors of before, under a name that promises others.
    SELECT DISTINCT format('%s %s', u.type, u.identity), u.statement
    FROM prepared AS p
    CROSS JOIN LATERAL pgml_tune._column_users(p.relation, p.target_column) AS u
    WHERE NOT u.is_blocking
    UNION ALL
    -- What is stored of a query function stays that of the version before.
    SELECT DISTINCT format('%s %s', i.type, i.identity),
           CASE i.type WHEN 'index' THEN 'DROP INDEX ' || i.identity
               ELSE format('SELECT pg_describe_object(%s, %s, %s)', d.classid, d.objid, d.objsubid) END
    FROM version AS w
    CROSS JOIN pgml_tune._collections_to_prepare(_untracked_uses.model_id, _untracked_uses.version_id) AS c
    JOIN pg_depend AS d
        ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = pgml_tune._query_function(c.collection_id)
        AND d.classid IN ('pg_class'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass)
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
    ORDER BY 1
$$;
COMMENT ON FUNCTION pgml_tune._untracked_uses(bigint, bigint) IS
    'Columns and views of users that may hold vectors of what a model serves and would not follow it into the space of a version.';

CREATE OR REPLACE FUNCTION pgml_tune._missing_steps(model_id bigint, version_id bigint)
RETURNS TABLE (what text, statement text, object text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_call text := (
        SELECT format('CALL prepare_rollout(%L, %L)', m.name, v.version)
        FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        WHERE v.model_version_id = _missing_steps.version_id
    );
BEGIN
    RETURN QUERY
    SELECT 'collection', v_call, c.name
    FROM pgml_tune._collections_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c WHERE NOT c.is_done;
    RETURN QUERY
    SELECT 'column', v_call, c.label
    FROM pgml_tune._columns_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c WHERE NOT c.is_done;
    RETURN QUERY
    SELECT DISTINCT 'column', u.statement, format('%s (%s %s)', c.label, u.type, u.identity)
    FROM pgml_tune._columns_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c
    CROSS JOIN LATERAL pgml_tune._column_users(c.relation, c.target_column) AS u
    WHERE u.is_blocking;
    RETURN QUERY
    SELECT 'untracked', u.statement, u.object
    FROM pgml_tune._untracked_uses(_missing_steps.model_id, _missing_steps.version_id) AS u;
END
$$;
COMMENT ON FUNCTION pgml_tune._missing_steps(bigint, bigint) IS
    'What stands between a model and a version in another space: collections and columns without vectors of it, and uses that nobody has recorded (untracked); none for a version in the same space.';

-- Progress.

CREATE OR REPLACE FUNCTION pgml_tune._write_preparation(
    role_id bigint, model text, version text, object text, phase text, steps bigint, step bigint
)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.preparation AS p (pid, role_id, model, version, object, phase, steps, step, began_at, phase_began_at)
    VALUES (
        pg_backend_pid(), _write_preparation.role_id::oid, _write_preparation.model, _write_preparation.version,
        _write_preparation.object, _write_preparation.phase, _write_preparation.steps, _write_preparation.step,
        statement_timestamp(), clock_timestamp()
    )
    ON CONFLICT ON CONSTRAINT preparation_pkey DO UPDATE SET
        role_id = excluded.role_id, model = excluded.model, version = excluded.version, object = excluded.object,
        phase = excluded.phase, steps = excluded.steps, step = excluded.step, began_at = excluded.began_at,
        updated_at = clock_timestamp(), phase_began_at = CASE
            WHEN (p.began_at, p.object, p.phase) = (excluded.began_at, excluded.object, excluded.phase) THEN p.phase_began_at
            ELSE excluded.phase_began_at
        END
$$;
COMMENT ON FUNCTION pgml_tune._write_preparation(bigint, text, text, text, text, bigint, bigint) IS
    'Shows in pgml_tune.stat_progress how far the prepare_rollout() of this session has come.';

CREATE OR REPLACE FUNCTION pgml_tune._end_preparation()
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- Those of sessions that are gone go, too.
    DELETE FROM pgml_tune.preparation AS p
    WHERE p.pid = pg_backend_pid() OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = p.pid)
$$;
COMMENT ON FUNCTION pgml_tune._end_preparation() IS 'Takes this session, and those that are gone, out of pgml_tune.stat_progress.';

CREATE OR REPLACE FUNCTION pgml_tune._preparations()
RETURNS SETOF pgml_tune.preparation
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- A session that was ended, or has gone on to another statement, leaves its row behind.
    SELECT p.*
    FROM pgml_tune.preparation AS p
    JOIN pg_stat_activity AS a ON a.pid = p.pid AND a.state = 'active' AND a.query_start <= p.began_at
    WHERE a.datname = current_database()
$$;
COMMENT ON FUNCTION pgml_tune._preparations() IS 'The prepare_rollout() calls that run now.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.prepare_rollout(name text, version text, options jsonb DEFAULT '{}')
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import preparation
preparation.prepare_rollout(name, version, options)
$python$;
COMMENT ON PROCEDURE @extschema@.prepare_rollout(text, text, jsonb) IS
    'Makes the vectors of a version in another space beside those that answer, for each collection and recorded column of the model that is yours, in committed batches, and measures them; called again it resumes. Options: batch_size, rows_per_second, sample, min_recall, golden_query, drop (gives up what was prepared).';
CREATE OR REPLACE FUNCTION pgml_tune._parse_calls(lines text)
RETURNS SETOF pgml_tune.call_log
LANGUAGE sql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT timestamptz 'epoch' + f[1]::bigint * interval '1 microsecond',
           f[2]::bigint,
           f[3],
           f[4],
           f[5],
           f[6],
           f[7]::bigint,
           f[8]::integer,
           f[9]::integer,
           f[10]::bigint,
           replace(replace(replace(f[11], '%09', E'\t'), '%0A', E'\n'), '%25', '%'),
           f[12]::integer,
           f[13]::bigint,
           f[14]::integer,
           f[15]::integer,
           f[16]::integer,
           f[17],
           f[18]::double precision,
           f[19]::boolean,
           f[20]::boolean,
           f[21],
           f[22]::bigint,
           f[23]::bigint,
           f[24]::real,
           f[25]::oid,
           f[26],
           replace(replace(replace(f[27], '%09', E'\t'), '%0A', E'\n'), '%25', '%'),
           replace(replace(replace(f[28], '%09', E'\t'), '%0A', E'\n'), '%25', '%')
    FROM string_to_table(lines, E'\n') AS l (line), string_to_array(l.line, E'\t', '%') AS f
$$;
COMMENT ON FUNCTION pgml_tune._parse_calls(text) IS 'The calls that checked lines of the spool tell of.';

-- Whoever reads the logs calls this; it shows no text of users, which he may have no right to.
CREATE OR REPLACE FUNCTION pgml_tune._spooled_calls()
RETURNS SETOF text
LANGUAGE plpython3u STABLE SECURITY DEFINER PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.spooled_calls()
$python$;
COMMENT ON FUNCTION pgml_tune._spooled_calls() IS
    'Lines of the spool that the snapshot of the statement does not show as ingested, a text for each file, without texts of users.';

CREATE OR REPLACE FUNCTION pgml_tune._ingest_logs()
RETURNS bigint
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.ingest_logs()
$python$;
COMMENT ON FUNCTION pgml_tune._ingest_logs() IS
    'Adds what the spool holds to the log of calls and says how many; 0 while another session is doing so.';

CREATE OR REPLACE FUNCTION pgml_tune._add_log_partition(day date)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
AS $$
DECLARE
    v_name text := 'call_log_' || to_char(day, 'YYYYMMDD');
    v_statement text;
BEGIN
    EXECUTE format('CREATE TABLE pgml_tune.%I (LIKE pgml_tune.call_log_default INCLUDING INDEXES)', v_name);
    EXECUTE format('COMMENT ON TABLE pgml_tune.%I IS %L', v_name, format('Calls of %s, UTC.', day));
    -- Default privileges may have granted it to others.
    FOR v_statement IN
        SELECT DISTINCT format('REVOKE ALL ON pgml_tune.%I FROM %s', v_name,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = format('pgml_tune.%I', v_name)::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE v_statement;
    END LOOP;
    EXECUTE format(
        'WITH gone AS (DELETE FROM pgml_tune.call_log_default WHERE logged_at >= $1 AND logged_at < $2 RETURNING *)
         INSERT INTO pgml_tune.%I SELECT * FROM gone',
        v_name
    ) USING day::timestamptz, (day + 1)::timestamptz;
    EXECUTE format(
        'ALTER TABLE pgml_tune.call_log ATTACH PARTITION pgml_tune.%I FOR VALUES FROM (%L) TO (%L)',
        v_name, day::timestamptz, (day + 1)::timestamptz
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._add_log_partition(date) IS
    'Makes the partition of a day of the log of calls, and moves there what the default partition has of that day.';

CREATE OR REPLACE FUNCTION pgml_tune._rotate_logs()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'  -- who waits for such a lock holds up everybody behind him
SET TimeZone = 'UTC'
AS $$
DECLARE
    v_oldest date := current_date - coalesce(
        (SELECT s.value::integer FROM pgml_tune.setting AS s WHERE s.name = 'log_keep_days'),
        30  -- the default in settings.py
    );
    v_day date;
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM FROM pgml_tune.log_info FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;  -- another session ingests, or does this
    END IF;
    DELETE FROM pgml_tune.call_log_default WHERE logged_at < v_oldest;
    FOR v_day IN
        SELECT current_date + g.step FROM generate_series(0, 4) AS g (step)
        UNION
        SELECT d.logged_at::date FROM pgml_tune.call_log_default AS d WHERE d.logged_at < current_date
    LOOP
        IF to_regclass('pgml_tune.call_log_' || to_char(v_day, 'YYYYMMDD')) IS NULL THEN
            PERFORM pgml_tune._add_log_partition(v_day);
        END IF;
    END LOOP;
    FOR v_name IN
        SELECT c.relname
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'pgml_tune.call_log'::regclass
          AND c.relname ~ '^call_log_[0-9]{8}$'
          AND c.relname < 'call_log_' || to_char(v_oldest, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE pgml_tune.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END
$$;
COMMENT ON FUNCTION pgml_tune._rotate_logs() IS
    'Makes the partitions of the log of calls of today and the four days to come, drops those beyond log_keep_days, and says how many; never waits long for a lock.';

CREATE OR REPLACE FUNCTION pgml_tune._reset_counts()
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM pgml_tune.call_count;
    UPDATE pgml_tune.log_info SET stats_reset_at = clock_timestamp();
$$;
COMMENT ON FUNCTION pgml_tune._reset_counts() IS 'Deletes what the sessions have counted and written.';

CREATE OR REPLACE FUNCTION @extschema@.stat_reset()
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.stat_reset()
$python$;
COMMENT ON FUNCTION @extschema@.stat_reset() IS
    'Begins pgml_tune.stat_inference and stat_cache anew; what other sessions have counted and not yet written is added with their next call.';
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
-- Questions with verified SQL. What was verified is stored by name, and each reader sees what he may read himself.

CREATE OR REPLACE FUNCTION pgml_tune._is_own(created_by text)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(pg_has_role(to_regrole(quote_ident(created_by)), 'USAGE'), false) $$;
COMMENT ON FUNCTION pgml_tune._is_own(text) IS 'Whether whoever asks is, or belongs to, a role of this name.';

-- Where row security tells readers apart, SQL may hold values of rows that others do not see.
CREATE OR REPLACE FUNCTION pgml_tune._may_read(relations jsonb, created_by text)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_item jsonb;
    v_relation oid;
    v_is_telling boolean;
    v_is_own boolean := pgml_tune._is_own(created_by);
BEGIN
    FOR v_item IN SELECT r.item FROM jsonb_array_elements(relations) AS r (item) LOOP
        SELECT c.oid, row_security_active(c.oid) OR c.relkind = 'v' AND coalesce('security_invoker=true' = ANY (c.reloptions), false)
        INTO v_relation, v_is_telling
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = v_item ->> 'schema' AND c.relname = v_item ->> 'name'
          AND has_schema_privilege(n.oid, 'USAGE');
        IF NOT FOUND THEN
            RETURN false;  -- gone, or not to be known
        END IF;
        IF v_is_telling AND NOT v_is_own THEN
            RETURN false;
        END IF;
        IF NOT has_table_privilege(v_relation, 'SELECT') AND (
            NOT has_any_column_privilege(v_relation, 'SELECT')
            OR EXISTS (
                SELECT FROM jsonb_path_query(v_item, '$.columns[*]') AS k (name)
                LEFT JOIN pg_attribute AS a
                    ON a.attrelid = v_relation AND a.attname = k.name #>> '{}' AND NOT a.attisdropped
                WHERE a.attnum IS NULL OR NOT has_column_privilege(v_relation, a.attnum, 'SELECT')
            )
        ) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._may_read(jsonb, text) IS
    'Whether whoever asks may read all tables and columns of a verified example of a role, as they are now, and all their rows if it is of another.';

CREATE OR REPLACE FUNCTION pgml_tune._example_rank(created_by text)
RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN pgml_tune._is_own(created_by) THEN 0
        WHEN has_function_privilege(
            to_regrole(quote_ident(created_by)), '@extschema@.register_model(text, text, text, text, jsonb)', 'EXECUTE'
        ) THEN 1
        ELSE 2
    END
$$;
COMMENT ON FUNCTION pgml_tune._example_rank(text) IS
    'Whose example is taken where there are several: 0 the reader''s own, 1 one of an administrator, 2 one of somebody else.';

CREATE OR REPLACE FUNCTION pgml_tune._reads_only(relations jsonb, tables oid[])
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (
        SELECT FROM jsonb_array_elements(relations) AS r (item)
        WHERE NOT EXISTS (
            SELECT FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = r.item ->> 'schema' AND c.relname = r.item ->> 'name' AND c.oid = ANY (tables)
        )
    )
$$;
COMMENT ON FUNCTION pgml_tune._reads_only(jsonb, oid[]) IS 'Whether a verified example reads no other tables than these.';

CREATE OR REPLACE FUNCTION pgml_tune._path_text(schemas text[])
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Of no schemas it is the empty path; not known stays so.
    SELECT CASE WHEN schemas IS NOT NULL THEN array_to_string(
        ARRAY(SELECT quote_ident(s.name) FROM unnest(schemas) WITH ORDINALITY AS s (name, place) ORDER BY s.place), ', '
    ) END
$$;
COMMENT ON FUNCTION pgml_tune._path_text(text[]) IS 'Schemas as SET search_path takes them.';

-- By meaning where a vector is given, else the same question. As the caller, through a view that shows him what he may read.
CREATE OR REPLACE FUNCTION pgml_tune._find_sql_examples(
    normal_question text, question_vector text, model_version_id bigint, lowest double precision, model text,
    search_path text, tables oid[], most integer
)
RETURNS TABLE (sql_example_id bigint, question text, sql text, similarity double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF question_vector IS NULL THEN
        RETURN QUERY
        SELECT e.sql_example_id, e.question, e.sql, 1::double precision
        FROM pgml_tune._readable_sql_examples AS e
        WHERE e.normal_question = _find_sql_examples.normal_question
          AND e.search_path = _find_sql_examples.search_path
          AND (e.model IS NULL OR e.model = _find_sql_examples.model)
          AND (tables IS NULL OR pgml_tune._reads_only(e.relations, tables))
        ORDER BY pgml_tune._example_rank(e.created_by), e.sql_example_id DESC
        LIMIT most;
        RETURN;
    END IF;
    -- Vectors of other spaces may have other dimensions: they are left out before any is compared.
    RETURN QUERY EXECUTE format(
        'SELECT n.sql_example_id, n.question, n.sql, n.similarity
         FROM (
             SELECT e.sql_example_id, e.question, e.sql, e.created_by, 1 - (e.embedding OPERATOR(%1$s.<=>) $1::%1$s.vector) AS similarity
             FROM (
                 SELECT r.*
                 FROM pgml_tune._embedded_sql_examples AS r
                 JOIN pgml_tune.model_version AS v ON v.space_id = r.space_id
                 WHERE v.model_version_id = $2 AND r.search_path = $3 AND (r.model IS NULL OR r.model = $4)
                   AND ($5 IS NULL OR pgml_tune._reads_only(r.relations, $5))
                   AND %1$s.vector_dims(r.embedding) = %1$s.vector_dims($1::%1$s.vector)
                 OFFSET 0
             ) AS e
         ) AS n
         WHERE n.similarity >= $6
         ORDER BY n.similarity DESC, pgml_tune._example_rank(n.created_by), n.sql_example_id DESC
         LIMIT $7',
        pgml_tune._vector_schema()
    ) USING question_vector, model_version_id, search_path, model, tables, lowest, most;
END
$$;
COMMENT ON FUNCTION pgml_tune._find_sql_examples(text, text, bigint, double precision, text, text, oid[], integer) IS
    'Verified examples that the caller may read, of the same question or, given its vector, of questions that are at least so similar, best first.';

CREATE OR REPLACE FUNCTION pgml_tune._add_sql_example(example jsonb)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_role text := pg_get_userbyid((example ->> 'role_id')::oid);
    v_id bigint;
BEGIN
    -- Who gives another answer to his own question means this one.
    DELETE FROM pgml_tune.sql_example AS e
    WHERE e.normal_question = example ->> 'normal_question' AND e.search_path = pgml_tune._path_text(
            ARRAY(SELECT s.name FROM jsonb_array_elements_text(example -> 'path') WITH ORDINALITY AS s (name, place) ORDER BY s.place)
        )
      AND e.model IS NOT DISTINCT FROM example ->> 'model' AND e.created_by = v_role;
    EXECUTE format(
        'INSERT INTO pgml_tune.sql_example
             (question, normal_question, sql, search_path, relations, model, embedding, space_id, created_by)
         SELECT $1 ->> ''question'', $1 ->> ''normal_question'', $1 ->> ''sql'', pgml_tune._path_text(
                    ARRAY(SELECT s.name FROM jsonb_array_elements_text($1 -> ''path'') WITH ORDINALITY AS s (name, place) ORDER BY s.place)
                ), $1 -> ''relations'', $1 ->> ''model'', ($1 ->> ''vector'')::%s.vector, v.space_id, $2
         FROM (VALUES (($1 ->> ''model_version_id'')::bigint)) AS x (model_version_id)
         LEFT JOIN pgml_tune.model_version AS v ON v.model_version_id = x.model_version_id
         RETURNING sql_example_id',
        pgml_tune._vector_schema()
    ) INTO v_id USING example, v_role;
    RETURN v_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_sql_example(jsonb) IS
    'Keeps a verified example of a role in place of the one it has given for the same question; its number.';

-- What is kept answers others: that it was checked, and as whom, is proved by a seal that only add_sql_example() can make.
CREATE OR REPLACE FUNCTION pgml_tune._keep_sql_example(example text, seal bytea)
RETURNS bigint
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.keep_sql_example(example, seal)
$python$;
COMMENT ON FUNCTION pgml_tune._keep_sql_example(text, bytea) IS 'Keeps a verified example that add_sql_example() has checked and sealed; its number.';

CREATE OR REPLACE FUNCTION pgml_tune._write_sql_vectors(ids bigint[], vectors text[], model_version_id bigint)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_kept integer;
BEGIN
    EXECUTE format(
        'UPDATE pgml_tune.sql_example AS e SET embedding = x.question_vector::%s.vector, space_id = v.space_id
         FROM unnest($1, $2) AS x (id, question_vector), pgml_tune.model_version AS v
         WHERE e.sql_example_id = x.id AND v.model_version_id = $3',
        pgml_tune._vector_schema()
    ) USING ids, vectors, model_version_id;
    GET DIAGNOSTICS v_kept = ROW_COUNT;
    RETURN v_kept;
END
$$;
COMMENT ON FUNCTION pgml_tune._write_sql_vectors(bigint[], text[], bigint) IS 'Keeps vectors of questions of verified examples; of how many.';

-- Runs as its owner: whoever maintains may not read all questions, and gets none of them from it.
CREATE OR REPLACE FUNCTION pgml_tune._embed_sql_examples()
RETURNS integer
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.embed_sql_examples()
$python$;
COMMENT ON FUNCTION pgml_tune._embed_sql_examples() IS
    'Embeds questions of verified examples that have no vector of the default embedding model, a few hundred at a time; how many.';

-- No SET clause: the SQL is the caller's own and finds its names as he does.
CREATE OR REPLACE FUNCTION @extschema@.add_sql_example(question text, sql text, model text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE  -- not STRICT: model may be NULL
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.add_sql_example(question, sql, model)
$python$;
COMMENT ON FUNCTION @extschema@.add_sql_example(text, text, text) IS
    'Keeps SQL as the right answer to a question, for text_to_sql() to give when it is asked again and for models to train on; checked as if text_to_sql() had written it. Returns its number.';

CREATE OR REPLACE FUNCTION @extschema@.drop_sql_example(sql_example_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgml_tune._own_sql_examples AS e WHERE e.sql_example_id = drop_sql_example.sql_example_id;
    IF FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM pgml_tune.sql_examples AS e WHERE e.sql_example_id = drop_sql_example.sql_example_id
    ) THEN
        RAISE EXCEPTION 'example % is of another role', sql_example_id
            USING ERRCODE = '42501', DETAIL = 'Whoever has added it may drop it, and an administrator.';
    END IF;
    RAISE EXCEPTION 'example % does not exist', coalesce(sql_example_id::text, 'NULL')
        USING ERRCODE = '42704', HINT = 'SELECT sql_example_id, question FROM pgml_tune.sql_examples';
END
$$;
COMMENT ON FUNCTION @extschema@.drop_sql_example(bigint) IS 'Forgets a verified example; one of another role only for an administrator.';
CREATE OR REPLACE FUNCTION pgml_tune._loaded_models()
RETURNS TABLE (
    place text, artifact_sha256 text, bytes bigint, is_pinned boolean, is_quarantined boolean, calls bigint,
    last_used_at timestamptz, engine text, provider text, inference_precision text
)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import serving
return serving.loaded_models()
$python$;
COMMENT ON FUNCTION pgml_tune._loaded_models() IS
    'The models that the worker holds or has stopped running, and those of this session.';
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

CREATE OR REPLACE FUNCTION pgml_tune._clear_files()
RETURNS integer
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.clear_files()
$python$;
COMMENT ON FUNCTION pgml_tune._clear_files() IS
    'Removes what killed jobs and imports left below the model root and what no version uses, an hour after it was made, and says how many folders.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.maintain()
LANGUAGE plpgsql
AS $$
DECLARE
    v_removed integer;
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
    BEGIN
        PERFORM pgml_tune._rotate_logs();
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'log of calls: its table is in use, partitions are left for the next run';
    END;
    COMMIT;
    PERFORM pgml_tune._ingest_logs();
    COMMIT;
    PERFORM pgml_tune._compact_counts();
    PERFORM pgml_tune._forget_columns();
    PERFORM pgml_tune._expire_jobs();
    COMMIT;
    v_removed := pgml_tune._clear_files();
    IF v_removed OPERATOR(pg_catalog.>) 0 THEN
        RAISE NOTICE 'model root: % folders that nothing uses removed', v_removed;
    END IF;
    COMMIT;
    WHILE pgml_tune._embed_sql_examples() OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
    COMMIT;
    CALL pgml_tune._mend();
    CALL pgml_tune._retire();
END
$$;
COMMENT ON PROCEDURE @extschema@.maintain() IS
    'Empties the oldest generation of a full table cache, adds up the counters, deletes old jobs and files that nothing uses, brings collections in line with their tables (partitions, owners, grants, row security), and gives up vectors whose rollback_window is over; run it every few minutes, outside a transaction block.';

CREATE OR REPLACE PROCEDURE pgml_tune._maintain()
LANGUAGE plpgsql
AS $$
BEGIN
    CALL @extschema@.maintain();
END
$$;
COMMENT ON PROCEDURE pgml_tune._maintain() IS 'Lets the worker call maintain(), wherever that is.';
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
           OR _grant.level = 'ask' AND p.level IN ('usage', 'ask')
    LOOP
        EXECUTE v_statement;
    END LOOP;
    -- Made since: with them embed() asks what a model serves.
    FOR v_statement IN
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', f.oid::regprocedure, v_role)
        FROM pg_proc AS f WHERE f.pronamespace = 'pgml_tune'::regnamespace AND f.proname ~ '^_serving_[0-9]+$'
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
    'Lets a role embed, classify and search texts and read the registry, and nothing else; call it as owner of the extension.';

CREATE OR REPLACE FUNCTION @extschema@.grant_operate(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'operate') $$;
COMMENT ON FUNCTION @extschema@.grant_operate(regrole) IS
    'Lets a role do what grant_usage() gives, keep its tables embedded, train and measure models, read the statistics and run maintain().';

CREATE OR REPLACE FUNCTION @extschema@.grant_admin(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'admin') $$;
COMMENT ON FUNCTION @extschema@.grant_admin(regrole) IS
    'Lets a role do what grant_operate() gives, import, register and drop models, see and cancel all jobs, change settings, purge the cache and run doctor().';

CREATE OR REPLACE FUNCTION @extschema@.grant_ask(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'ask') $$;
COMMENT ON FUNCTION @extschema@.grant_ask(regrole) IS
    'Lets a role do what grant_usage() gives, and ask(), which runs SQL that a model has written; no other level includes it.';
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
            SELECT 'SCHEMA ' || n.nspname, n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ('pgml_tune', 'pgml_tune_scratch')
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
