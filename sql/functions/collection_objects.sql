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
