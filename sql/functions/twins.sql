-- Twins: vectors of a collection in another space, beside those that answer its searches. All that could run code of the owner of a
-- table runs as him.

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

CREATE OR REPLACE FUNCTION pgml_tune._drop_twin(collection_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'
AS $$
DECLARE
    t pgml_tune.collection;
BEGIN
    SELECT c.* INTO t
    FROM pgml_tune.collection AS c
    WHERE c.collection_id = _drop_twin.collection_id AND c.is_twin AND c.view_name IS NULL AND NOT EXISTS (
        SELECT FROM pgml_tune.collection_route AS r WHERE c.collection_id IN (r.collection_id, r.candidate_id)
    ) AND NOT pgml_tune._is_way_back(c.model_version_id);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- With the rights of the caller, who has to own what is dropped; the locks in the order in which all take them.
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', t.source);
    INSERT INTO pgml_tune.collection_drop VALUES (t.collection_id);
    PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, NULL, NULL, false);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_twin(bigint) IS 'Gives up the vectors of a twin, unless searches may go there; says whether it did.';
