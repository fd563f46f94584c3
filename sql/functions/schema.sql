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
