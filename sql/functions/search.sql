-- All of these run with the rights of the caller: what he may not read he does not find.

CREATE OR REPLACE FUNCTION pgml_tune._object_expression(relation oid, attnums smallint[])
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT format('(SELECT to_jsonb(o.*) FROM (SELECT %s) AS o)', string_agg(
            CASE
                -- A cast to json that the owner of a type has made would run as whoever searches; an output function is PostgreSQL's.
                WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN
                    format('CASE WHEN s.%1$I IS NULL THEN NULL ELSE format(''%%s'', s.%1$I) END AS %1$I', a.attname)
                WHEN t.oid <> a.atttypid THEN
                    format('s.%1$I::%2$s AS %1$I', a.attname, format_type(b.base, b.base_modifier))
                ELSE format('s.%I', a.attname)
            END, ', ' ORDER BY array_position(attnums, a.attnum), a.attnum
        ))
        FROM pg_attribute AS a
        CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b
        JOIN pg_type AS t ON t.oid = b.base
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.attnum = ANY (attnums) OR attnums IS NULL AND has_column_privilege(relation, a.attnum, 'SELECT'))
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._object_expression(oid, smallint[]) IS
    'An expression for a row of alias s as jsonb, which runs no code of the owners of types: the columns named, or with NULL those that the caller may read.';

CREATE OR REPLACE FUNCTION pgml_tune._filter_condition(relation regclass, filter jsonb)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    v_conditions text[] := '{true}';
BEGIN
    IF filter IS NULL THEN
        RETURN 'true';
    END IF;
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'filter is not a JSON object'
            USING ERRCODE = '22023', HINT = 'SELECT jsonb_build_object(''column'', ''value'')';
    END IF;
    FOR r IN
        SELECT f.key, f.value, a.attname, b.base, pgml_tune._equality(b.base) AS equality
        FROM jsonb_each(filter) AS f
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = relation AND a.attname = f.key AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN LATERAL pgml_tune._base_type(a.atttypid, -1) AS b ON true
    LOOP
        IF r.attname IS NULL THEN
            RAISE EXCEPTION 'a column of the filter does not exist in table %', relation
                USING ERRCODE = '42703', DETAIL = format('Columns of the table are: %s.', (
                    SELECT string_agg(a.attname, ', ' ORDER BY a.attnum)
                    FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
                ));
        END IF;
        IF r.value = 'null' THEN
            v_conditions := v_conditions || format('s.%I IS NULL', r.attname);
            CONTINUE;
        END IF;
        IF r.equality IS NULL THEN
            RAISE EXCEPTION 'column "%" has a type that a filter cannot compare', r.attname USING ERRCODE = '22023';
        END IF;
        IF r.base <> 'jsonb'::regtype AND jsonb_typeof(r.value) IN ('object', 'array') THEN
            RAISE EXCEPTION 'the value of filter for column "%" is not a text, number, boolean or null', r.attname
                USING ERRCODE = '22023';
        END IF;
        -- $1 is the filter: what it asks for stands in no statement that an error could show.
        v_conditions := v_conditions || format('s.%I %s ($1 %s %L)::%s', r.attname, r.equality,
            CASE r.base WHEN 'jsonb'::regtype THEN '->' ELSE '->>' END, r.attname, format_type(r.base, -1));
    END LOOP;
    RETURN array_to_string(v_conditions, ' AND ');
END
$$;
COMMENT ON FUNCTION pgml_tune._filter_condition(regclass, jsonb) IS
    'A filter as a condition on alias s, where $1 is the filter: equality for each column it names.';

CREATE OR REPLACE FUNCTION pgml_tune._leaves_few(relation regclass, condition text, filter jsonb)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Where a filter keeps what is far from the question, a walk through the graph is slower than comparing so many, and misses
    -- more than a tenth of what they have.
    c_few_rows CONSTANT integer := 30000;
    v_is_few boolean;
BEGIN
    IF condition = 'true' AND NOT row_security_active(relation) THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT count(*) <= %s FROM (SELECT FROM %s AS s WHERE %s LIMIT %1$s + 1) AS m',
        c_few_rows, relation, condition) INTO v_is_few USING filter;
    RETURN v_is_few;
END
$$;
COMMENT ON FUNCTION pgml_tune._leaves_few(regclass, text, jsonb) IS
    'Whether a filter, or the row security of the caller, leaves so few rows that looking at each is fastest.';

CREATE OR REPLACE FUNCTION pgml_tune._unit(salt text, unit text)
RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As service/assignment.py does it.
    RETURN ('x' || left(encode(sha256(convert_to(salt || ':' || unit, 'UTF8')), 'hex'), 15))::bit(60)::bigint;
END
$$;
COMMENT ON FUNCTION pgml_tune._unit(text, text) IS
    'First 60 bits of sha256(salt:unit); a candidate answers where the remainder by 10,000 is below its share.';

CREATE OR REPLACE FUNCTION pgml_tune._open_collection(collection text, k integer, query text, is_fallback boolean)
RETURNS TABLE (opened pgml_tune.collection, model_reference text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    r pgml_tune.collection_route;
    v_unit text := current_setting('pgml_tune.unit', true);
    v_is_candidate boolean := false;
BEGIN
    IF collection IS NULL OR k IS NULL THEN
        RAISE EXCEPTION 'collection and k must not be NULL' USING ERRCODE = '22023';
    END IF;
    IF k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k is %, valid are 1 to 10000', k USING ERRCODE = CASE WHEN k < 1 THEN '22023' ELSE '54000' END;
    END IF;
    -- One row: the version that embeds the question and the vectors it is compared with are never those of two moments.
    SELECT o.* INTO r FROM pgml_tune.collection_route AS o WHERE o.name = _open_collection.collection;
    IF octet_length(v_unit) > 1000 THEN
        RAISE EXCEPTION 'invalid value for parameter "pgml_tune.unit"'
            USING ERRCODE = '22023', DETAIL = 'It has more than 1000 bytes.', HINT = 'RESET pgml_tune.unit';
    END IF;
    IF r.rollout_id IS NOT NULL AND r.candidate_id IS NOT NULL AND query IS NOT NULL AND NOT is_fallback THEN
        v_is_candidate := pgml_tune._unit(r.salt, coalesce(nullif(v_unit, ''), query)) % 10000 < r.share;
    END IF;
    SELECT c.* INTO t FROM pgml_tune.collection AS c
    WHERE c.collection_id = CASE WHEN v_is_candidate THEN r.candidate_id ELSE r.collection_id END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such collection'
            USING ERRCODE = '42704', HINT = 'SELECT collection FROM pgml_tune.embedding_collections';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class AS s WHERE s.oid = t.source) THEN
        RAISE EXCEPTION 'the table of collection "%" is gone', t.name USING ERRCODE = '42P01', HINT = 'CALL maintain()';
    END IF;
    IF NOT t.is_ready THEN
        IF t.mode = 'queue' AND NOT t.is_twin THEN
            RAISE EXCEPTION 'collection "%" is not filled yet', t.name
                USING ERRCODE = '55000', DETAIL = 'pgml-tune worker fills it while it runs.',
                      HINT = 'SELECT phase, steps_total, metric_value FROM pgml_tune.stat_progress WHERE kind = ''queue''';
        END IF;
        RAISE EXCEPTION 'collection "%" is not filled yet', t.name
            USING ERRCODE = '55000', HINT = format('CALL auto_embed(%L, %L, collection => %L%s)', t.source, t.source_column, t.name, pgml_tune._mode_argument(t.mode));
    END IF;
    IF has_table_privilege(t.embeddings, 'SELECT') IS NOT TRUE THEN
        RAISE EXCEPTION 'permission denied for collection "%"', t.name
            USING ERRCODE = '42501',
                  DETAIL = 'Its readers are those of its table; maintain() takes over what has changed there.',
                  HINT = CASE WHEN has_any_column_privilege(t.source, 'SELECT') THEN 'CALL maintain()'
                      ELSE format('GRANT SELECT ON %s TO %I', t.source, current_user) END;
    END IF;
    PERFORM pgml_tune._hold_tables(t.embeddings, t.source);
    IF NOT EXISTS (SELECT FROM pgml_tune._collection_parts(t.collection_id)) THEN
        RAISE EXCEPTION 'the column or the vectors of collection "%" are not as they were made', t.name
            USING ERRCODE = '55000', HINT = format('SELECT drop_auto_embed(%L)', t.name);
    END IF;
    opened := t;
    model_reference := CASE WHEN v_is_candidate THEN r.candidate_reference ELSE r.model_reference END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgml_tune._open_collection(text, integer, text, boolean) IS
    'The vectors of a collection that answer a query of the caller now, and the version that embeds it; is_fallback asks for the serving version.';

CREATE OR REPLACE FUNCTION pgml_tune._begin_search(collection text, query text, k integer, filter jsonb, needs_words boolean)
RETURNS TABLE (opened pgml_tune.collection, condition text, embedding text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o record;
BEGIN
    FOR v_try IN 1 .. 2 LOOP
        SELECT * INTO STRICT o FROM pgml_tune._open_collection(collection, k, query, is_fallback => v_try = 2);
        opened := o.opened;
        IF needs_words AND NOT EXISTS (
            SELECT FROM pg_ts_config AS y WHERE y.oid::regconfig::text = opened.text_search
        ) THEN
            RAISE EXCEPTION 'collection "%" has no full text search', opened.name
                USING ERRCODE = '55000', DETAIL = 'It was made with the option text_search none, or its configuration was dropped.',
                      HINT = format('SELECT drop_auto_embed(%L)', opened.name);
        END IF;
        condition := pgml_tune._filter_condition(opened.source, filter);
        -- What the caller has done wrong is known by now: from here on it is the model that may fail.
        IF query IS NOT NULL THEN
            embedding := pgml_tune._embed_question(
                query, split_part(o.model_reference, '@', 1), split_part(o.model_reference, '@', 2),
                jsonb_build_object('collection', opened.name, 'is_fallback', v_try = 2)
            )::text;
        END IF;
        EXIT WHEN query IS NULL OR embedding IS NOT NULL;
        -- The candidate of a rollout has failed: the serving version answers, model and vectors together.
    END LOOP;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgml_tune._begin_search(text, text, integer, jsonb, boolean) IS
    'The vectors that answer a query, the filter as a condition, and the vector of the query; NULL for a query that is NULL.';

-- What hybrid_search() has both of its parts do: which collection it is, what the filter asks for and whether it leaves few rows has
-- been found out before, once.

CREATE OR REPLACE FUNCTION pgml_tune._search_by_meaning(
    opened pgml_tune.collection, embedding text, depth integer, filter jsonb, condition text, is_exact boolean
)
RETURNS TABLE (key jsonb, distance double precision, document jsonb)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_ef_search CONSTANT integer := 400;  -- at least: measured, 100 loses a point of nDCG@10 on one-word questions, 400 none
    c_most_ef_search CONSTANT integer := 1000;  -- pgvector's limit
    c_chunks_per_row CONSTANT integer := 4;  -- looked at in the hope to meet so many different rows
    p record;
    v_distance text;
    v_head text;
    v_tail text;
    v_candidates integer := depth;
    v_keys jsonb[];
    v_distances double precision[];
    v_documents jsonb[];
    v_ef_search text;
    v_iterative_scan text;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(opened.collection_id);
    v_distance := format('e.embedding OPERATOR(%s.<=>) $2::%s', pgml_tune._vector_schema(), p.storage);
    v_head := format(
        'SELECT array_agg(r.key ORDER BY r.distance, r.key), array_agg(r.distance ORDER BY r.distance, r.key),
                array_agg(r.document ORDER BY r.distance, r.key)
         FROM (
             SELECT %1$s AS key, e.distance, %2$s AS document
             FROM (
                 -- The best chunk of each row.
                 SELECT %3$s, min(e.distance) AS distance
                 FROM (
                     SELECT e.*, %4$s AS distance FROM %5$s AS e JOIN %6$s AS s ON %7$s WHERE %8$s ORDER BY ',
        pgml_tune._object_expression(opened.source, p.key_attnums), pgml_tune._object_expression(opened.source, NULL),
        p.key_list, v_distance, p.embeddings, p.source, p.key_match, condition
    );
    v_tail := format(
        ' LIMIT $3) AS e GROUP BY %1$s ORDER BY min(e.distance), %1$s LIMIT $4) AS e JOIN %2$s AS s ON %3$s) AS r',
        p.key_list, p.source, p.key_match
    );

    IF NOT is_exact THEN
        IF p.chunk_tokens IS NOT NULL THEN
            v_candidates := depth * c_chunks_per_row;
        END IF;
        v_ef_search := current_setting('hnsw.ef_search');
        v_iterative_scan := current_setting('hnsw.iterative_scan', true);
        PERFORM set_config(
            'hnsw.ef_search', least(greatest(
                v_ef_search::integer, CASE condition WHEN 'true' THEN c_ef_search ELSE c_most_ef_search END, 2 * v_candidates
            ), c_most_ef_search)::text, true
        );
        IF v_iterative_scan IS NOT NULL THEN  -- pgvector 0.8
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
        END IF;
        EXECUTE v_head || v_distance || v_tail INTO v_keys, v_distances, v_documents
        USING filter, embedding, v_candidates, depth;
        PERFORM set_config('hnsw.ef_search', v_ef_search, true);
        IF v_iterative_scan IS NOT NULL THEN
            PERFORM set_config('hnsw.iterative_scan', v_iterative_scan, true);
        END IF;
    END IF;
    IF is_exact OR coalesce(cardinality(v_keys), 0) < depth THEN
        -- An index cannot serve a sum.
        EXECUTE v_head || format('(%s) + 0, %s', v_distance, p.key_list) || v_tail INTO v_keys, v_distances, v_documents
        USING filter, embedding, CASE WHEN p.chunk_tokens IS NULL THEN depth END, depth;
    END IF;
    RETURN QUERY SELECT u.key, u.distance, u.document
        FROM unnest(v_keys, v_distances, v_documents) AS u (key, distance, document);
END
$$;
COMMENT ON FUNCTION pgml_tune._search_by_meaning(pgml_tune.collection, text, integer, jsonb, text, boolean) IS
    'The rows of an opened collection nearest to the vector of a query; is_exact compares all rows that the condition leaves, else the graph is asked first.';

CREATE OR REPLACE FUNCTION @extschema@.semantic_search(
    collection text, query text, k integer DEFAULT 10, filter jsonb DEFAULT NULL
)
RETURNS TABLE (key jsonb, distance double precision, document jsonb)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- it takes longer than the search
SET extra_float_digits = 1 SET bytea_output = 'hex' SET intervalstyle = 'postgres'  -- a key is the same in every session
AS $$
DECLARE
    b record;
    t pgml_tune.collection;
    v_rows integer;
BEGIN
    SELECT * INTO STRICT b FROM pgml_tune._begin_search(collection, query, k, filter, needs_words => false);
    t := b.opened;
    IF query IS NOT NULL THEN
        RETURN QUERY SELECT m.key, m.distance, m.document
        FROM pgml_tune._search_by_meaning(
            t, b.embedding, k, filter, b.condition,
            is_exact => pgml_tune._has_hnsw(t.embeddings) IS NOT TRUE OR pgml_tune._leaves_few(t.source, b.condition, filter)
        ) AS m;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        PERFORM pgml_tune._end_search(v_rows);
    END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.semantic_search(text, text, integer, jsonb) IS
    'The k rows of a collection nearest in meaning to a query, nearest first: key, cosine distance (0 to 2) of the best chunk, and the row as far as the caller may read it; filter is equality on columns, as {"column": value}.';

CREATE OR REPLACE FUNCTION pgml_tune._text_query(embeddings regclass, text_search regconfig, query text)
RETURNS TABLE (rare tsquery, every tsquery)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    WITH word AS (
        -- By rarity; a word that the statistics do not name is rare.
        SELECT '''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''' AS quoted,
               sum(coalesce(f.frequency, 0.0015)) OVER (ORDER BY f.frequency NULLS FIRST, w.lexeme) AS share,
               row_number() OVER (ORDER BY f.frequency NULLS FIRST, w.lexeme) AS place
        FROM unnest(to_tsvector(text_search, left(query, 10000))) AS w
        LEFT JOIN (
            SELECT u.word, u.frequency
            FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_stats AS p ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = 'lexemes'
            CROSS JOIN LATERAL unnest(p.most_common_elems::text::text[], p.most_common_elem_freqs) AS u (word, frequency)
            WHERE c.oid = embeddings AND u.word IS NOT NULL
        ) AS f ON f.word = w.lexeme
    )
    SELECT string_agg(w.quoted, ' | ')
               FILTER (WHERE w.place = 1 OR w.share * (SELECT c.reltuples FROM pg_class AS c WHERE c.oid = embeddings) <= 2000)
               ::tsquery,
           string_agg(w.quoted, ' | ')::tsquery
    FROM word AS w
    WHERE w.place <= 100;
END
$$;
COMMENT ON FUNCTION pgml_tune._text_query(regclass, regconfig, text) IS
    'The words of a query as alternatives: the rare ones, which find rows, and all, which rank them. Made of lexemes: the syntax of tsquery means nothing in a query.';

CREATE OR REPLACE FUNCTION pgml_tune._search_by_words(
    opened pgml_tune.collection, query text, depth integer, filter jsonb, condition text, is_few boolean
)
RETURNS TABLE (key jsonb, place bigint, document jsonb)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_most_candidates CONSTANT integer := 20000;  -- ranked
    p record;
    v_rare tsquery;
    v_every tsquery;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(opened.collection_id);
    SELECT q.rare, q.every INTO v_rare, v_every
    FROM pgml_tune._text_query(opened.embeddings, opened.text_search::regconfig, query) AS q;
    IF is_few THEN
        v_rare := v_every;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT %1$s AS key, row_number() OVER (ORDER BY e.rank DESC, %2$s) AS place, %3$s AS document
         FROM (
             SELECT * FROM (
                 SELECT e.*, ts_rank(e.lexemes, $2) AS rank
                 FROM %5$s AS e JOIN %6$s AS s ON %7$s
                 WHERE e.lexemes @@ $3 AND %4$s LIMIT %8$s
             ) AS e ORDER BY e.rank DESC, %2$s LIMIT $4
         ) AS e JOIN %6$s AS s ON %7$s',
        pgml_tune._object_expression(opened.source, p.key_attnums), 'e.' || replace(p.key_list, ', ', ', e.'),
        pgml_tune._object_expression(opened.source, NULL), condition, p.embeddings, p.source, p.key_match, c_most_candidates
    ) USING filter, v_every, v_rare, depth;
END
$$;
COMMENT ON FUNCTION pgml_tune._search_by_words(pgml_tune.collection, text, integer, jsonb, text, boolean) IS
    'The rows of an opened collection that full text search ranks highest for a query.';

CREATE OR REPLACE FUNCTION @extschema@.hybrid_search(
    collection text, query text, k integer DEFAULT 10, filter jsonb DEFAULT NULL, weight double precision DEFAULT 0.5
)
RETURNS TABLE (key jsonb, score double precision, document jsonb)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- it takes longer than the search
SET extra_float_digits = 1 SET bytea_output = 'hex' SET intervalstyle = 'postgres'  -- a key is the same in every session
AS $$
DECLARE
    c_damping CONSTANT integer := 60;  -- Cormack, Clarke, Buettcher: Reciprocal Rank Fusion, SIGIR 2009
    c_least_depth CONSTANT integer := 50;
    b record;
    t pgml_tune.collection;
    v_rows integer;
    v_depth integer := least(greatest(2 * k::bigint, c_least_depth), 10000);
    v_is_few boolean;
BEGIN
    IF weight IS NULL OR NOT weight BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'weight is not a number from 0 to 1' USING ERRCODE = '22023', HINT = 'Use 0.5 for equal parts.';
    END IF;
    SELECT * INTO STRICT b FROM pgml_tune._begin_search(collection, query, k, filter, needs_words => true);
    IF query IS NULL THEN
        RETURN;
    END IF;
    t := b.opened;
    v_is_few := pgml_tune._leaves_few(t.source, b.condition, filter);
    RETURN QUERY
    WITH semantic AS (
        SELECT m.key, m.document, row_number() OVER (ORDER BY m.distance, m.key) AS place
        FROM pgml_tune._search_by_meaning(
            t, b.embedding, v_depth, filter, b.condition, is_exact => v_is_few OR pgml_tune._has_hnsw(t.embeddings) IS NOT TRUE
        ) AS m
    ), textual AS (
        SELECT w.key, w.document, w.place
        FROM pgml_tune._search_by_words(t, query, v_depth, filter, b.condition, v_is_few) AS w
    ), fused AS (
        SELECT coalesce(s.key, f.key) AS key, coalesce(s.document, f.document) AS document,
               coalesce(weight / (c_damping + s.place), 0) + coalesce((1 - weight) / (c_damping + f.place), 0) AS score
        FROM semantic AS s FULL JOIN textual AS f ON f.key = s.key
    )
    SELECT u.key, u.score, u.document FROM fused AS u WHERE u.score > 0 ORDER BY u.score DESC, u.key LIMIT hybrid_search.k;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    PERFORM pgml_tune._end_search(v_rows);
END
$$;
COMMENT ON FUNCTION @extschema@.hybrid_search(text, text, integer, jsonb, double precision) IS
    'semantic_search() and PostgreSQL full text search fused by reciprocal ranks: score = weight/(60 + place in meaning) + (1 - weight)/(60 + place in words), highest first.';
