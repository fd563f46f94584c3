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
