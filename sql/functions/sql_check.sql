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
