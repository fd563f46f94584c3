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
