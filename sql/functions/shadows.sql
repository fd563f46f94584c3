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
