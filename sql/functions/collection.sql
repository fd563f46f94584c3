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
