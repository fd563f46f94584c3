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

-- The text is one SELECT, or its parentheses could end those round it. The view never outlives the block.
CREATE OR REPLACE FUNCTION pgml_tune._analyse_sql(query text, OUT view_id oid, OUT tree text)
RETURNS record
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_view pg_catalog.text := pg_catalog.format('pgml_tune_scratch.%I', pg_catalog.gen_random_uuid());
BEGIN
    EXECUTE pg_catalog.format(E'CREATE VIEW %s AS SELECT 1 AS one FROM (\n%s\n) AS q', v_view, query);
    SELECT r.ev_class, r.ev_action::pg_catalog.text INTO STRICT view_id, tree
    FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class OPERATOR(pg_catalog.=) v_view::pg_catalog.regclass;
    RAISE EXCEPTION USING ERRCODE = 'PGML0';
EXCEPTION WHEN SQLSTATE 'PGML0' THEN
    NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._analyse_sql(text) IS 'What the server understands by a SELECT, as it keeps it for a view.';

-- What may not be written is refused by the transaction being read-only. No worker of a parallel plan: limits of time and
-- memory are those of this process. No CHECK of a table is evaluated while it is planned.
CREATE OR REPLACE FUNCTION pgml_tune._guard_sql()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT set_config('transaction_read_only', 'on', true), set_config('jit', 'off', true),
           set_config('max_parallel_workers_per_gather', '0', true), set_config('constraint_exclusion', 'off', true)
$$;
COMMENT ON FUNCTION pgml_tune._guard_sql() IS 'Settings under which SQL that a model has written is planned and run.';

CREATE OR REPLACE FUNCTION pgml_tune._plan_sql(query text)
RETURNS double precision
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_plan pg_catalog.json;
BEGIN
    PERFORM pgml_tune._guard_sql();
    EXECUTE pg_catalog.concat('EXPLAIN (FORMAT JSON) ', query) INTO STRICT v_plan;
    RAISE EXCEPTION USING ERRCODE = 'PGML0';
EXCEPTION WHEN SQLSTATE 'PGML0' THEN
    RETURN pg_catalog.json_extract_path_text(v_plan, '0', 'Plan', 'Total Cost')::pg_catalog.float8;
END
$$;
COMMENT ON FUNCTION pgml_tune._plan_sql(text) IS
    'What the planner thinks a SELECT costs; refused if the caller may not read what it reads.';

CREATE OR REPLACE FUNCTION pgml_tune._run_sql(
    query text, max_rows integer, max_bytes bigint, OUT lines text[], OUT is_cut boolean
)
RETURNS record
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_rows pg_catalog.refcursor;
    v_line pg_catalog.text;
    v_bytes pg_catalog.int8 := 0;
BEGIN
    lines := '{}';
    is_cut := false;
    PERFORM pgml_tune._guard_sql();
    OPEN v_rows NO SCROLL FOR EXECUTE query;
    LOOP
        FETCH v_rows INTO v_line;
        EXIT WHEN NOT FOUND;
        v_bytes := v_bytes OPERATOR(pg_catalog.+) pg_catalog.octet_length(v_line);
        is_cut := pg_catalog.cardinality(lines) OPERATOR(pg_catalog.>=) max_rows
            OR v_bytes OPERATOR(pg_catalog.>) max_bytes;
        EXIT WHEN is_cut;
        lines[pg_catalog.cardinality(lines) OPERATOR(pg_catalog.+) 1] := v_line;
    END LOOP;
    CLOSE v_rows;
    RAISE EXCEPTION USING ERRCODE = 'PGML0';
EXCEPTION WHEN SQLSTATE 'PGML0' THEN
    NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._run_sql(text, integer, bigint) IS
    'The first rows of a SELECT of one column of text, read without writing.';

CREATE OR REPLACE FUNCTION pgml_tune._sql_functions(function_ids oid[], operator_ids oid[])
RETURNS TABLE (
    function_id oid, operator_id oid, name text, signature text, schema_name text, volatility text, kind text,
    is_builtin boolean, extension text, argument_types text[]
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid, o.oid, p.proname, p.oid::regprocedure::text, n.nspname, p.provolatile, p.prokind,
           p.oid < 16384 AND n.nspname = 'pg_catalog' AND l.lanname IN ('internal', 'sql'),
           CASE WHEN l.lanname IN ('c', 'internal', 'sql') THEN (
               SELECT e.extname FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
               JOIN pg_roles AS r ON r.oid = p.proowner AND r.rolsuper
               WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                 AND d.refclassid = 'pg_extension'::regclass
           ) END,
           ARRAY(SELECT a.type_id::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type_id, place) ORDER BY a.place)
    FROM (
        SELECT f.function_id, NULL::oid AS operator_id FROM unnest(function_ids) AS f (function_id)
        UNION ALL
        SELECT o.oprcode, o.oid FROM pg_operator AS o WHERE o.oid = ANY (operator_ids)
    ) AS f
    LEFT JOIN pg_operator AS o ON o.oid = f.operator_id
    JOIN pg_proc AS p ON p.oid = f.function_id
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_language AS l ON l.oid = p.prolang
$$;
COMMENT ON FUNCTION pgml_tune._sql_functions(oid[], oid[]) IS 'What functions, and those of operators, are.';

CREATE OR REPLACE FUNCTION pgml_tune._sql_relations(relation_ids oid[])
RETURNS TABLE (
    relation_id oid, schema_name text, name text, kind text, is_own boolean, columns text, tree text, policies text[]
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid, n.nspname, c.relname, c.relkind,
           n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgml_tune'),
           (
               SELECT json_object_agg(a.attnum, a.attname)::text FROM pg_attribute AS a
               WHERE a.attrelid = c.oid AND NOT a.attisdropped
           ),
           CASE c.relkind WHEN 'v' THEN (
               SELECT r.ev_action::text FROM pg_rewrite AS r WHERE r.ev_class = c.oid AND r.rulename = '_RETURN'
           ) END,
           CASE WHEN c.relrowsecurity THEN ARRAY(
               SELECT p.polqual::text FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL
           ) END
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (relation_ids)
$$;
COMMENT ON FUNCTION pgml_tune._sql_relations(oid[]) IS
    'What relations are, and what else is evaluated when they are read: the queries of views and the policies of rows.';
