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

