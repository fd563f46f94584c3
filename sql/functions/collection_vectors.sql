-- The vectors of a collection, as triggers and fills write them: always as the owner of the source, never as a superuser. A trigger
-- that an owner puts on his side table must not run as anybody but him.

CREATE OR REPLACE FUNCTION pgml_tune._sync_statements(collection_id bigint, event text, relation oid, row_count bigint)
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_few_rows CONSTANT integer := 100;  -- their statement is planned in half the time
    p record;
    v_hash text := 'sha256(convert_to(s.%s::text, ''UTF8''))';
    v_has_changed text := '';  -- an inserted row always has
    v_known text := '';
    v_is_fresh text := 'true';
    v_fresh text;
    v_contents text;
    v_question text := 'SELECT true';
    v_has_rows boolean;
    v_source text;  -- where the rows of this statement are
    v_is_blind boolean;
    v_new text;  -- the new rows, as they are now
    v_gone text;  -- a row of the same key that is still there
    v_partition text;  -- the condition that holds for keys of this partition; NULL: it is not one, or not his
    v_statements text[];
BEGIN
    SELECT * INTO p FROM pgml_tune._collection_parts(collection_id);
    -- The column was dropped with CASCADE, or only the schema was restored: the table stays writable, doctor() tells.
    IF NOT FOUND THEN
        IF NOT EXISTS (
            SELECT FROM pg_trigger AS g
            WHERE g.tgrelid = relation AND g.tgname = format('pgml_tune_%s_%s', collection_id, lower(event))
        ) THEN
            RAISE EXCEPTION 'table % is kept embedded since after this transaction began', relation::regclass
                USING ERRCODE = '40001', DETAIL = 'Its isolation level hides the collection from it.', HINT = 'ROLLBACK';
        END IF;
        RETURN ARRAY['SELECT false'];
    END IF;
    v_source := p.source;
    IF relation <> p.source::regclass THEN
        -- A partition that was detached keeps its triggers until maintain() finds it.
        IF p.source::regclass <> ALL (SELECT r::oid FROM pg_partition_ancestors(relation) AS r) THEN
            RETURN ARRAY['SELECT false'];
        END IF;
        -- The key holds the partition key, so no other partition has to be looked into, or locked.
        IF (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = relation) THEN
            v_source := relation::regclass::text;
            v_partition := pg_get_partition_constraintdef(relation);
        END IF;
    END IF;
    v_hash := format(v_hash, p.content);
    v_new := format('pgml_tune_new AS n JOIN %s AS s ON %s', v_source, p.row_match);
    v_gone := format('%s AS s WHERE %s', v_source, p.key_match);
    -- After a change of owner the triggers run as the former one, until maintain(): without a look into the table.
    v_is_blind := NOT has_table_privilege(v_source, 'SELECT');
    IF event IN ('INSERT', 'UPDATE')
        AND (v_is_blind OR relation = p.source::regclass AND pgml_tune._is_plainly_partitioned(relation)) THEN
        -- To plan a look into each of many partitions takes longer than the model. No trigger of the user has had its say there.
        v_new := 'pgml_tune_new AS n CROSS JOIN LATERAL (SELECT n.*) AS s';
        v_gone := format('pgml_tune_new AS s WHERE %s', p.key_match);
    ELSIF v_is_blind THEN
        v_gone := '(SELECT 1) AS s WHERE false';
    END IF;

    IF event = 'TRUNCATE' THEN
        IF relation = p.source::regclass AND NOT v_is_blind THEN
            -- A trigger of the user may have put rows back.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p.source) INTO v_has_rows;
            IF NOT v_has_rows THEN
                RETURN ARRAY[v_question, format('TRUNCATE ONLY %s', p.embeddings)];
            END IF;
        END IF;
        RETURN ARRAY[v_question, format(
            'DELETE FROM %s AS e WHERE NOT EXISTS (SELECT FROM %s)
             AND EXISTS (SELECT FROM (SELECT %s) AS s WHERE %s)',
            p.embeddings, v_gone, (
                SELECT string_agg(format('e.key_%s AS %I', k.position, k.name), ', ')
                FROM unnest(p.key_names) WITH ORDINALITY AS k (name, position)
            ), coalesce(v_partition, 'true')
        )];
    END IF;

    IF event = 'UPDATE' THEN
        v_has_changed := format(
            'AND NOT EXISTS (SELECT FROM %s AS e WHERE %s AND e.chunk_no = 1 AND e.text_sha256 = %s)',
            p.embeddings, p.key_match, v_hash
        );
        -- A row whose key has changed, and a text that another row of this statement had before, take its vectors along.
        v_known := format(
            'known AS MATERIALIZED (
                SELECT DISTINCT ON (e.text_sha256, e.chunk_no) e.text_sha256, e.chunk_no, e.embedding, e.lexemes
                FROM pgml_tune_old AS s JOIN %s AS e ON %s
                WHERE e.text_sha256 IN (SELECT c.text_sha256 FROM changed AS c)
             ), ', p.embeddings, p.key_match
        );
        v_is_fresh := 'NOT EXISTS (SELECT FROM known AS k WHERE k.text_sha256 = c.text_sha256)';
    END IF;
    IF row_count <= c_few_rows THEN
        v_fresh := format('SELECT c.*, 1 AS part, row_number() OVER () AS text_no FROM changed AS c WHERE %s', v_is_fresh);
        v_contents := 'SELECT 1 AS part, ARRAY(SELECT f.content FROM fresh AS f ORDER BY f.text_no) AS contents';
    ELSE
        -- At most 10000 texts and about 8 MB go to the model at once.
        v_fresh := format(
            'SELECT f.*, row_number() OVER (PARTITION BY f.part ORDER BY f.place) AS text_no
             FROM (
                 SELECT c.*, row_number() OVER w AS place,
                        (row_number() OVER w - 1) / 10000 + sum(octet_length(c.content)) OVER w / 8388608 AS part
                 FROM changed AS c WHERE %s WINDOW w AS (ROWS UNBOUNDED PRECEDING)
             ) AS f', v_is_fresh
        );
        v_contents := 'SELECT f.part, array_agg(f.content ORDER BY f.text_no) AS contents FROM fresh AS f GROUP BY f.part';
    END IF;

    IF event IN ('INSERT', 'UPDATE') THEN
        v_statements := ARRAY[format(
            'WITH changed AS MATERIALIZED (
                SELECT %1$s, s.%2$s::text AS content, %3$s AS text_sha256
                -- As they are now: a trigger of the user may have changed a row again, which was an event of its own.
                FROM %15$s
                WHERE s.%2$s::text = n.%2$s::text %5$s
             ), %6$sfresh AS MATERIALIZED (
                %7$s
             ), vectors AS MATERIALIZED (
                SELECT b.part, v.text_no, v.chunk_no, v.embedding
                FROM (%16$s) AS b CROSS JOIN LATERAL pgml_tune._embed_passages(b.contents, %8$L, %9$L, %10$L) AS v
                WHERE cardinality(b.contents) > 0
             )
             INSERT INTO %4$s (%11$s, chunk_no, text_sha256, embedding, lexemes)
             SELECT f.%12$s, v.chunk_no, f.text_sha256, v.embedding, %13$s
             FROM vectors AS v JOIN fresh AS f ON f.part = v.part AND f.text_no = v.text_no
             %14$s
             ON CONFLICT (%11$s, chunk_no) DO UPDATE
             SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes',
            p.numbered_keys, p.content, v_hash, p.embeddings, v_has_changed, v_known, v_fresh, p.model, p.chunk_tokens,
            p.chunk_overlap, p.key_list, replace(p.key_list, ', ', ', f.'), p.lexemes,
            CASE WHEN event = 'UPDATE' THEN format(
                'UNION ALL SELECT c.%s, k.chunk_no, k.text_sha256, k.embedding, k.lexemes
                 FROM changed AS c JOIN known AS k ON k.text_sha256 = c.text_sha256',
                replace(p.key_list, ', ', ', c.')
            ) ELSE '' END,
            v_new, v_contents
        ), format(
            'DELETE FROM %s AS e USING %s WHERE %s AND e.text_sha256 IS DISTINCT FROM %s',
            p.embeddings, v_new, p.key_match, v_hash
        )];
    END IF;
    IF event = 'UPDATE' AND p.is_filled THEN
        -- Most updates change neither the text nor the key.
        v_question := format(
            'SELECT EXISTS (SELECT %1$s, s.%2$s::text COLLATE "C" FROM pgml_tune_new AS s
                                EXCEPT ALL SELECT %1$s, s.%2$s::text COLLATE "C" FROM pgml_tune_old AS s)',
            p.numbered_keys, p.content
        );
    END IF;
    IF event IN ('UPDATE', 'DELETE') THEN
        v_statements := v_statements || format(
            'DELETE FROM %1$s AS e USING pgml_tune_old AS s
             WHERE %2$s AND NOT EXISTS (SELECT FROM %3$s)',
            p.embeddings, p.key_match, v_gone
        );
    END IF;
    RETURN v_question || v_statements;
END
$$;
COMMENT ON FUNCTION pgml_tune._sync_statements(bigint, text, oid, bigint) IS
    'The statements with which the trigger of a collection follows INSERT, UPDATE, DELETE or TRUNCATE of a table, after a question whether there is anything to do.';

CREATE OR REPLACE FUNCTION pgml_tune._is_plainly_partitioned(relation oid)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = relation) AND NOT EXISTS (
        SELECT FROM pg_partition_tree(relation) AS t
        JOIN pg_trigger AS g ON g.tgrelid = t.relid
        WHERE NOT g.tgisinternal AND g.tgtype & 2 = 0 AND g.tgname !~ '^pgml_tune_[0-9]+_'  -- 2: BEFORE
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._is_plainly_partitioned(oid) IS
    'Whether a table is partitioned and no AFTER trigger but ours can have changed its rows since they were written.';

CREATE OR REPLACE FUNCTION pgml_tune._keep_part(
    collection_id bigint, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_leaf text;
    v_rows tid[];
    v_contents text[];
    v_hashes bytea[];
    v_is_cut boolean;
    v_stored integer;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT format('%I.%I', n.nspname, c.relname) INTO v_leaf
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = leaf;
    IF NOT FOUND OR v_leaf <> p.source AND p.source::regclass <> ALL (SELECT r::oid FROM pg_partition_ancestors(leaf) AS r) THEN
        RETURN '{0,0,0}';
    END IF;

    EXECUTE format(
        'SELECT array_agg(b.row_id ORDER BY b.row_id) FILTER (WHERE b.fits),
                array_agg(b.content ORDER BY b.row_id) FILTER (WHERE b.fits),
                array_agg(b.text_sha256 ORDER BY b.row_id) FILTER (WHERE b.fits),
                NOT bool_and(b.fits)
         FROM (
             -- About 4 MB of text at once, and one text at least.
             SELECT a.*, sum(octet_length(a.content)) OVER (ORDER BY a.row_id ROWS UNBOUNDED PRECEDING)
                 - octet_length(a.content) < 4194304 AS fits
             FROM (
                 SELECT s.ctid AS row_id, s.%1$s::text AS content, h.text_sha256
                 FROM ONLY %2$s AS s
                 CROSS JOIN LATERAL (SELECT sha256(convert_to(s.%1$s::text, ''UTF8'')) OFFSET 0) AS h (text_sha256)
                 WHERE s.ctid >= $1 AND s.ctid < $2 AND s.%1$s IS NOT NULL AND NOT EXISTS (
                     SELECT FROM %3$s AS e WHERE %4$s AND e.chunk_no = 1 AND e.text_sha256 = h.text_sha256
                 )
                 LIMIT $3
             ) AS a
         ) AS b',
        p.content, v_leaf, p.embeddings, p.key_match
    ) INTO v_rows, v_contents, v_hashes, v_is_cut
    USING format('(%s,0)', first_block)::tid, format('(%s,0)', end_block)::tid, max_rows;
    IF v_rows IS NULL THEN
        RETURN '{0,0,0}';
    END IF;

    -- The model works without a lock on anything; what has changed meanwhile is left to the trigger of that change.
    SELECT pgml_tune._store_vectors(
        collection_id, v_leaf, v_rows, v_contents, v_hashes,
        array_agg(v.text_no), array_agg(v.chunk_no), array_agg(v.embedding)
    ) INTO v_stored
    FROM pgml_tune._embed_passages(v_contents, p.model, p.chunk_tokens, p.chunk_overlap) AS v;
    RETURN ARRAY[cardinality(v_rows), v_stored, v_is_cut::integer];
END
$$;
COMMENT ON FUNCTION pgml_tune._keep_part(bigint, oid, bigint, bigint, integer) IS
    'Embeds rows of some blocks of a leaf whose text has no vectors yet; how many were found, how many stored, and 1 if there may be more.';

CREATE OR REPLACE FUNCTION pgml_tune._store_vectors(
    collection_id bigint, leaf text, row_ids tid[], contents text[], hashes bytea[],
    text_nos integer[], chunk_nos integer[], embeddings vector[]
)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_locked tid[];
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    -- A row that is locked is skipped, so nobody is drawn into a deadlock; so is one whose text is another by now.
    EXECUTE format(
        'SELECT array_agg(l.row_id)
         FROM (
             SELECT s.ctid AS row_id, sha256(convert_to(s.%s::text, ''UTF8'')) AS text_sha256
             FROM ONLY %s AS s WHERE s.ctid = ANY ($1) FOR SHARE OF s SKIP LOCKED
         ) AS l JOIN unnest($1, $2) AS t (row_id, text_sha256) ON l.row_id = t.row_id AND l.text_sha256 = t.text_sha256',
        p.content, leaf
    ) INTO v_locked USING row_ids, hashes;
    EXECUTE format(
        'WITH f AS (
             SELECT %1$s, t.content, t.text_sha256, t.text_no
             FROM unnest($1, $2, $3) WITH ORDINALITY AS t (row_id, content, text_sha256, text_no)
             JOIN ONLY %2$s AS s ON s.ctid = t.row_id
             WHERE s.ctid = ANY ($7)
         )
         INSERT INTO %3$s (%4$s, chunk_no, text_sha256, embedding, lexemes)
         SELECT f.%5$s, v.chunk_no, f.text_sha256, v.embedding, %6$s
         FROM f JOIN unnest($4, $5, $6) AS v (text_no, chunk_no, embedding) ON v.text_no = f.text_no
         ON CONFLICT (%4$s, chunk_no) DO UPDATE
         SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes',
        p.numbered_keys, leaf, p.embeddings, p.key_list, replace(p.key_list, ', ', ', f.'), p.lexemes
    ) USING row_ids, contents, hashes, text_nos, chunk_nos, embeddings, v_locked;
    EXECUTE format(
        'DELETE FROM %s AS e USING ONLY %s AS s
         WHERE s.ctid = ANY ($1) AND %s AND e.text_sha256 IS DISTINCT FROM sha256(convert_to(s.%s::text, ''UTF8''))',
        p.embeddings, leaf, p.key_match, p.content
    ) USING v_locked;
    RETURN coalesce(cardinality(v_locked), 0);
END
$$;
COMMENT ON FUNCTION pgml_tune._store_vectors(bigint, text, tid[], text[], bytea[], integer[], integer[], vector[]) IS
    'Writes vectors of rows that still have the text they were made of, and says of how many rows.';

CREATE OR REPLACE FUNCTION pgml_tune._keep_orphans(collection_id bigint)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_rows tid[];
    v_deleted integer;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    -- Locked first and looked at again: a row that comes back meanwhile waits here, and then adds its vectors anew.
    EXECUTE format(
        'SELECT array_agg(o.row_id) FROM (
             SELECT e.ctid AS row_id FROM %s AS e
             WHERE NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL) FOR UPDATE OF e SKIP LOCKED
         ) AS o',
        p.embeddings, p.source, p.key_match, p.content
    ) INTO v_rows;
    EXECUTE format(
        'DELETE FROM %s AS e WHERE e.ctid = ANY ($1)
         AND NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL)',
        p.embeddings, p.source, p.key_match, p.content
    ) USING v_rows;
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN ARRAY[coalesce(cardinality(v_rows), 0), v_deleted, 0];
END
$$;
COMMENT ON FUNCTION pgml_tune._keep_orphans(bigint) IS
    'Deletes the vectors of rows that are gone, or have no text any more.';

-- Without a SET clause, at whose end the settings would be merged that are to be taken back; they name nothing.
CREATE OR REPLACE FUNCTION pgml_tune._begin_restricted()
RETURNS integer
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import collection
return collection.begin_restricted()
$python$;
COMMENT ON FUNCTION pgml_tune._begin_restricted() IS
    'Lets code of an owner, in a function of an index for instance, leave nothing behind that would run as whoever commits; granted to nobody.';

CREATE OR REPLACE FUNCTION pgml_tune._end_restricted(level integer)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
AS $python$
from pgml_tune.backend import collection
return collection.end_restricted(level)
$python$;
COMMENT ON FUNCTION pgml_tune._end_restricted(integer) IS 'Ends what _begin_restricted() has begun; granted to nobody.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_collection(collection_id bigint, function text, manner text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_source regclass;
    v_embeddings regclass;
BEGIN
    -- Locks are taken in the order in which writers and drop_auto_embed() take them: the source first.
    SELECT t.source, t.embeddings INTO v_source, v_embeddings
    FROM pgml_tune.collection AS t WHERE t.collection_id = _hold_collection.collection_id;
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = v_source) THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ROW SHARE MODE', v_source);
    END IF;
    -- One session at a time: two would embed the same rows, or write over what the other has made of a later text. Who only reads
    -- waits for nobody but one that drops it.
    BEGIN
        IF manner = 'read' THEN
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR KEY SHARE;
        ELSIF manner = 'wait' THEN
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR NO KEY UPDATE;
        ELSE
            PERFORM FROM pgml_tune.collection AS t
            WHERE t.collection_id = _hold_collection.collection_id FOR NO KEY UPDATE NOWAIT;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the collection is gone' USING ERRCODE = '42704';
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'the collection of table % is being filled by another session', v_source USING ERRCODE = '55P03';
    END;
    -- Its owner may have made the function run as its caller, who is a superuser here. The lock keeps it as it is till the end.
    PERFORM FROM pg_proc AS p
    JOIN pgml_tune.collection AS t ON t.collection_id = _hold_collection.collection_id
    JOIN pg_class AS c ON c.oid = t.source
    WHERE p.oid = to_regprocedure(function)
      AND p.prosecdef AND p.proowner = c.relowner
      AND p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp']
    FOR SHARE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the functions of the collection of table % are not as they were made', v_source
            USING ERRCODE = '55000', HINT = 'CALL maintain()';
    END IF;
    -- A trigger of his could wait for the commit, and would then run as whoever commits.
    EXECUTE format('LOCK TABLE ONLY %s IN ROW EXCLUSIVE MODE', v_embeddings);
    IF NOT pgml_tune._is_pristine(v_embeddings) THEN
        RAISE EXCEPTION 'table % is not as it was made', v_embeddings USING ERRCODE = '55000';
    END IF;
    -- What is called afterwards relies on it: both tables are locked now.
    IF NOT EXISTS (SELECT FROM pgml_tune._collection_parts(collection_id)) THEN
        RAISE EXCEPTION 'the collection is gone' USING ERRCODE = '42704';
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_collection(bigint, text, text) IS
    'Locks a collection against other sessions that fill it (manner try: or refuses, wait) or drop it (read), and makes sure that a function of its owner may be called on it.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_collection(
    collection_id bigint, task text, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_manner text := 'try';
    v_level integer;
    v_result bigint[];
BEGIN
    -- Those that feed it hold it again and again, for as long as it takes to store a batch; nobody else has claimed rows of it.
    IF EXISTS (SELECT FROM pgml_tune.collection AS t WHERE t.collection_id = _fill_collection.collection_id AND t.mode = 'queue')
        OR EXISTS (SELECT FROM pgml_tune.queue AS q WHERE q.collection_id = _fill_collection.collection_id) THEN
        v_manner := 'wait';
    END IF;
    PERFORM pgml_tune._hold_collection(
        collection_id, format('pgml_tune._keep_%s(text, oid, bigint, bigint, integer)', collection_id), v_manner
    );
    v_level := pgml_tune._begin_restricted();
    EXECUTE format('SELECT pgml_tune._keep_%s($1, $2, $3, $4, $5)', collection_id)
    INTO v_result USING task, leaf, first_block, end_block, max_rows;
    PERFORM pgml_tune._end_restricted(v_level);
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_collection(bigint, text, oid, bigint, bigint, integer) IS
    'Works on a collection as the owner of its source: embeds rows of a range of blocks (fill), deletes vectors of rows that are gone (orphans), queues rows without vectors (enqueue), searches with some of its texts (probe), or counts rows (as _count_rows).';

CREATE OR REPLACE FUNCTION pgml_tune._count_rows(collection_id bigint, what text)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p record;
    v_count bigint;
BEGIN
    SELECT c.* INTO p FROM pgml_tune._collection_parts(collection_id) AS c;
    IF NOT FOUND OR NOT has_table_privilege(p.embeddings, 'SELECT') OR NOT (
        SELECT bool_and(has_column_privilege(p.source, c.name, 'SELECT'))
        FROM unnest(p.key_names || p.plain_content) AS c (name)
    ) THEN
        RETURN NULL;
    END IF;
    PERFORM pgml_tune._hold_tables(p.embeddings, p.source);
    SELECT c.* INTO p FROM pgml_tune._collection_parts(collection_id) AS c;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        CASE what
            WHEN 'rows' THEN 'SELECT count(*) FROM %1$s AS s WHERE s.%2$s IS NOT NULL'
            WHEN 'embedded' THEN
                'SELECT count(*) FROM %1$s AS s JOIN %3$s AS e ON %4$s AND e.chunk_no = 1
                 WHERE e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8''))'
            WHEN 'stale' THEN
                'SELECT count(*) FROM %1$s AS s JOIN %3$s AS e ON %4$s AND e.chunk_no = 1
                 WHERE e.text_sha256 IS DISTINCT FROM sha256(convert_to(s.%2$s::text, ''UTF8''))'
            WHEN 'missing' THEN
                'SELECT count(*) FROM %1$s AS s WHERE s.%2$s IS NOT NULL AND NOT EXISTS (
                     SELECT FROM %3$s AS e WHERE %4$s AND e.chunk_no = 1
                        AND e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8'')))'
        END,
        p.source, p.content, p.embeddings, p.key_match
    ) INTO v_count;
    RETURN v_count;
EXCEPTION WHEN undefined_table THEN  -- dropped meanwhile
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._count_rows(bigint, text) IS
    'Rows with a text that the caller sees (rows), those with vectors of it (embedded), with vectors of another (stale), or without vectors of it (missing); NULL where he may not read the table.';
