-- Vectors of a version in another space, made beside those that answer: twins of collections and shadows of recorded columns. What
-- only reads here is asked by rollout_model(), too. Only the owner of a table has anything made for it, and of a collection all that
-- could run code of his runs as him.

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
               t.is_ready AND t.is_filled AND t.retired_xid IS NULL AND (
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
    shadow_id bigint, shadow_column text, shadow_version_id bigint, is_done boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.tracked_column_id, s.oid, format('%I.%I.%I', n.nspname, s.relname, c.target_column), c.source_column, c.target_column,
           own.version, pg_get_userbyid(s.relowner)::text,
           -- Him and nobody else: triggers of the table run as whoever fills it.
           pg_get_userbyid(s.relowner) = current_user,
           d.tracked_column_id, d.target_column, d.model_version_id, coalesce(d.is_filled, false)
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
        WHERE o.source = c.source AND o.shadow_of = c.target_column AND o.filled_by = 'embed_table'
        ORDER BY o.is_filled DESC, o.tracked_column_id DESC
        LIMIT 1
    ) AS d ON true
    WHERE v.model_id = _columns_to_prepare.model_id
      AND c.shadow_of IS NULL AND c.filled_by = 'embed_table' AND c.source_column IS NOT NULL
    ORDER BY 3
$$;
COMMENT ON FUNCTION pgml_tune._columns_to_prepare(bigint, bigint) IS
    'The columns that embed_table() has filled with vectors of a model in another space than a version, and their shadows in its space.';

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
           format('SELECT track_column(%L, %L, %L)', format('%I.%I', n.nspname, c.relname), a.attname,
               -- One that is recorded needs new vectors first, which only its user can make.
               w.model || '@' || CASE WHEN k.source IS NULL THEN w.serving_version ELSE w.version END)
    FROM version AS w
    CROSS JOIN pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0
    CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b
    JOIN pg_type AS t ON t.oid = b.base AND t.typname IN ('vector', 'halfvec')
    JOIN pg_extension AS e ON e.extname = 'vector' AND e.extnamespace = t.typnamespace
    LEFT JOIN pgml_tune.tracked_column AS k ON k.source = c.oid AND k.target_column = a.attname
    LEFT JOIN pgml_tune.model_version AS o ON o.model_version_id = k.model_version_id
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast')
      AND CASE
          WHEN k.source IS NULL THEN b.base_modifier IN (w.dimensions, -1)
          ELSE o.model_id = _untracked_uses.model_id AND o.space_id <> w.space_id AND k.shadow_of IS NULL
              AND k.tracked_column_id NOT IN (SELECT p.column_id FROM prepared AS p)
      END
    UNION ALL
    -- It would go on to show the vectors of before, under a name that promises others.
    SELECT DISTINCT format('view %s', y.oid::regclass),
           format('DROP %s %s', CASE y.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, y.oid::regclass)
    FROM prepared AS p
    JOIN pg_attribute AS a ON a.attrelid = p.relation AND a.attname = p.target_column
    JOIN pg_depend AS d
        ON d.refclassid = 'pg_class'::regclass AND d.refobjid = p.relation AND d.refobjsubid = a.attnum
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS u ON u.oid = d.objid
    JOIN pg_class AS y ON y.oid = u.ev_class AND y.relkind IN ('v', 'm')
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
    SELECT 'untracked', u.statement, u.object
    FROM pgml_tune._untracked_uses(_missing_steps.model_id, _missing_steps.version_id) AS u;
END
$$;
COMMENT ON FUNCTION pgml_tune._missing_steps(bigint, bigint) IS
    'What stands between a model and a version in another space: collections and columns without vectors of it, and uses that nobody has recorded (untracked); none for a version in the same space.';

-- Twins of collections.

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

-- Shadows of columns: beside the column that searches use, until a promotion gives them its name.

CREATE OR REPLACE FUNCTION pgml_tune._clear_shadow()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], NULL));
END
$$;
COMMENT ON FUNCTION pgml_tune._clear_shadow() IS
    'Trigger of a column that is prepared or kept beside another: its vector goes with the text that it was made of.';

CREATE OR REPLACE FUNCTION pgml_tune._mend_shadow_triggers(relation oid)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        SELECT format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass)
        FROM pg_trigger AS g
        WHERE g.tgrelid = relation AND g.tgparentid = 0 AND g.tgfoid = 'pgml_tune._clear_shadow()'::regprocedure
        UNION ALL
        SELECT format(
            'CREATE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION pgml_tune._clear_shadow(%L)',
            'pgml_tune_shadow_' || c.tracked_column_id, c.source,
            CASE t.attgenerated
                WHEN '' THEN format('OLD.%1$I::text COLLATE "C" IS DISTINCT FROM NEW.%1$I::text COLLATE "C"', c.source_column)
                -- It is generated after this trigger: every change but the filling itself may be one of it.
                ELSE format('OLD.%1$I IS NOT NULL AND NEW.%1$I IS NOT NULL', c.target_column)
            END, c.target_column
        )
        FROM pgml_tune.tracked_column AS c
        JOIN pg_attribute AS t ON t.attrelid = c.source AND t.attname = c.source_column AND NOT t.attisdropped
        JOIN pg_attribute AS a ON a.attrelid = c.source AND a.attname = c.target_column AND NOT a.attisdropped
        WHERE c.source = relation AND c.shadow_of IS NOT NULL
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._mend_shadow_triggers(oid) IS 'Gives the shadows of a table, and nothing else there, their triggers.';

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
    SELECT pgml_tune._free_column(c.source, pg_catalog.concat(c.target_column, '_', v.version)), f.target_type, v.dimensions
    INTO STRICT v_shadow, v_type, v_dimensions
    FROM pgml_tune.model_version AS v
    CROSS JOIN LATERAL pgml_tune._target_facts(c.source, c.source_column, c.target_column) AS f
    WHERE v.model_version_id OPERATOR(pg_catalog.=) version_id;
    PERFORM pgml_tune._add_vector_column(c.source, v_shadow, v_type, v_dimensions);
    INSERT INTO pgml_tune.tracked_column (source, target_column, model_version_id, filled_by, source_column, shadow_of, is_filled)
    VALUES (c.source, v_shadow, version_id, 'embed_table', c.source_column, c.target_column, false);
    PERFORM pgml_tune._mend_shadow_triggers(c.source);
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

CREATE OR REPLACE FUNCTION pgml_tune._swap_columns(model_id bigint, version_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    v_kept text;
BEGIN
    FOR c IN
        SELECT p.*, p.relation::regclass AS name
        FROM pgml_tune._columns_to_prepare(_swap_columns.model_id, _swap_columns.version_id) AS p WHERE p.is_done
        ORDER BY p.relation, p.column_id
    LOOP
        -- The text form of its name was made without this lock.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', c.name);
        v_kept := pgml_tune._free_column(c.relation, c.target_column || '_' || c.version);
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', c.name, c.target_column, v_kept);
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', c.name, c.shadow_column, c.target_column);
        UPDATE pgml_tune.tracked_column AS t SET target_column = v_kept, shadow_of = c.target_column, left_at = now()
        WHERE t.tracked_column_id = c.column_id;
        UPDATE pgml_tune.tracked_column AS t SET target_column = c.target_column, shadow_of = NULL, left_at = NULL
        WHERE t.tracked_column_id = c.shadow_id;
        PERFORM pgml_tune._mend_shadow_triggers(c.relation);
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
            EXECUTE format('ALTER TABLE %s DROP COLUMN %I', c.source, c.target_column);
            DELETE FROM pgml_tune.tracked_column AS t WHERE t.tracked_column_id = c.tracked_column_id;
            PERFORM pgml_tune._mend_shadow_triggers(c.source);
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

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.prepare_rollout(name text, version text, options jsonb DEFAULT '{}')
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import preparation
preparation.prepare_rollout(name, version, options)
$python$;
COMMENT ON PROCEDURE @extschema@.prepare_rollout(text, text, jsonb) IS
    'Makes the vectors of a version in another space beside those that answer, for each collection and recorded column of the model that is yours, in committed batches, and measures them; called again it resumes. Options: batch_size, rows_per_second, sample, min_recall, golden_query.';
