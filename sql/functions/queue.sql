-- Collections in mode queue: what their triggers write down, and what the worker does with it. It reads texts and writes vectors as
-- the owner of the source, by a function of his.

CREATE OR REPLACE FUNCTION pgml_tune._enqueue_statement(collection_id bigint, event text, relation oid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_names text[];  -- of the key, and then of the text
    v_last integer;
    v_key text;
    v_keys text;
    v_text text;
    v_rows text;
BEGIN
    IF event = 'TRUNCATE' THEN
        RETURN coalesce((pgml_tune._sync_statements(collection_id, event, relation, NULL))[2], 'SELECT');
    END IF;
    -- Not all that _collection_parts() asks: a key too many is no harm.
    v_names := ARRAY(
        SELECT format('s.%I', a.attname)
        FROM pgml_tune.collection AS t
        JOIN pg_trigger AS g ON g.tgrelid = t.source AND g.tgname = 'pgml_tune_' || t.collection_id || '_columns'
        CROSS JOIN LATERAL unnest(g.tgattr::smallint[]) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = k.attnum
        WHERE t.collection_id = _enqueue_statement.collection_id
        ORDER BY k.position
    );
    v_last := cardinality(v_names);
    IF v_last = 0 THEN
        -- Either this raises an error, or the column was dropped with CASCADE, and nothing is to be done.
        RETURN (pgml_tune._sync_statements(collection_id, event, relation, 0))[1];
    END IF;
    v_text := v_names[v_last];
    v_keys := array_to_string(v_names[:v_last - 1], ', ');
    v_key := 'format(''%s'', ' || array_to_string(v_names[:v_last - 1], '), format(''%s'', ') || ')';
    v_rows := format('SELECT ARRAY[%s] COLLATE "C" AS key, %s::text COLLATE "C" AS body FROM pgml_tune_', v_key, v_text);
    v_keys := format(' AS s WHERE num_nulls(%s) = 0', v_keys);
    RETURN format('INSERT INTO pgml_tune.queue (collection_id, key) SELECT %s, r.key FROM (%s) AS r', collection_id, CASE event
        WHEN 'INSERT' THEN v_rows || 'new' || v_keys || format(' AND %s IS NOT NULL', v_text)
        WHEN 'DELETE' THEN v_rows || 'old' || v_keys
        ELSE format(
            'WITH n AS MATERIALIZED (%s), o AS MATERIALIZED (%s)
             SELECT c.key FROM (TABLE n EXCEPT ALL TABLE o) AS c UNION SELECT c.key FROM (TABLE o EXCEPT ALL TABLE n) AS c',
            v_rows || 'new' || v_keys, v_rows || 'old' || v_keys
        )
    END);
END
$$;
COMMENT ON FUNCTION pgml_tune._enqueue_statement(bigint, text, oid) IS
    'The statement with which the trigger of a collection in mode queue writes down the keys of rows that INSERT, UPDATE or DELETE has changed, or follows TRUNCATE.';

CREATE OR REPLACE FUNCTION pgml_tune._enqueue_missing(collection_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_count bigint;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    EXECUTE format(
        'INSERT INTO pgml_tune.queue (collection_id, key)
         SELECT %1$s, ARRAY[%2$s] FROM %3$s AS s
         WHERE s.%4$s IS NOT NULL AND num_nulls(%5$s) = 0 AND NOT EXISTS (
             SELECT FROM %6$s AS e WHERE %7$s AND e.chunk_no = 1 AND e.text_sha256 = sha256(convert_to(s.%4$s::text, ''UTF8''))
         )',
        collection_id, (SELECT string_agg(format('format(''%%s'', s.%I)', k), ', ') FROM unnest(p.key_names) AS k), p.source, p.content,
        (SELECT string_agg(format('s.%I', k), ', ') FROM unnest(p.key_names) AS k), p.embeddings, p.key_match
    );
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION pgml_tune._enqueue_missing(bigint) IS 'Queues all rows of a collection that have no vectors of their text, and says how many.';

CREATE OR REPLACE FUNCTION pgml_tune._key_parts(embeddings regclass, OUT columns text, OUT matches text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('($1)[i][%s]::%s AS %I', k.position, format_type(a.atttypid, a.atttypmod), a.attname), ', '),
           string_agg(format('e.%1$I %2$s k.%1$I', a.attname, pgml_tune._equality(a.atttypid)), ' AND ')
    FROM pg_attribute AS a
    CROSS JOIN LATERAL (SELECT substring(a.attname FROM '^key_([0-9]+)$')::integer) AS k (position)
    WHERE a.attrelid = embeddings AND a.attnum > 0 AND NOT a.attisdropped AND k.position IS NOT NULL
$$;
COMMENT ON FUNCTION pgml_tune._key_parts(regclass) IS
    'How row i of the keys of the queue becomes the key columns of a side table, and how these (e) and those (k) are compared.';

CREATE OR REPLACE FUNCTION pgml_tune._read_queued(collection_id bigint, keys text[])
RETURNS TABLE (key_no integer, content text, text_sha256 bytea)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p record;
    v_columns text;
    v_matches text;
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT k.columns, k.matches INTO v_columns, v_matches FROM pgml_tune._key_parts(p.embeddings::regclass) AS k;
    RETURN QUERY EXECUTE format(
        -- Texts are many times as large as they are in the table: only those that are taken now are looked into. One that no
        -- setting lets pass is cut to what shows that.
        'SELECT k.i, CASE WHEN k.is_taken THEN CASE WHEN k.bytes > 16777216 THEN left(k.content, 4194305) ELSE k.content END END,
                b.text_sha256
         FROM (
             SELECT e.i, %1$s, c.content, octet_length(c.content) AS bytes,
                    sum(octet_length(c.content)) OVER (ORDER BY e.i ROWS UNBOUNDED PRECEDING) - octet_length(c.content) < 4194304
                        AS is_taken
             FROM (SELECT i, %2$s FROM generate_subscripts($1, 1) AS i) AS e
             JOIN %3$s AS s ON %4$s
             CROSS JOIN LATERAL (SELECT s.%5$s::text AS content) AS c
             WHERE s.%5$s IS NOT NULL
         ) AS k
         CROSS JOIN LATERAL (
             SELECT CASE WHEN k.is_taken AND k.bytes <= 16777216 THEN sha256(convert_to(k.content, ''UTF8'')) END AS text_sha256 OFFSET 0
         ) AS b
         WHERE CASE WHEN b.text_sha256 IS NULL THEN true ELSE NOT EXISTS (
             SELECT FROM %6$s AS e WHERE %7$s AND e.chunk_no = 1 AND e.text_sha256 = b.text_sha256
         ) END
         ORDER BY k.i',
        p.numbered_keys, v_columns, p.source, p.key_match, p.content, p.embeddings, v_matches
    ) USING keys;
END
$$;
COMMENT ON FUNCTION pgml_tune._read_queued(bigint, text[]) IS
    'The texts of rows that have no vectors of them, and their hashes; beyond 4 MB NULL, to be looked at another time. Of a text of more than 16 MB the beginning only, without a hash.';

CREATE OR REPLACE FUNCTION pgml_tune._store_queued(
    collection_id bigint, keys text[], hashes bytea[], text_nos integer[], chunk_nos integer[], vectors vector[]
)
RETURNS SETOF integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    v_columns text;
    v_matches text;
    v_stored integer[];
BEGIN
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT k.columns, k.matches INTO v_columns, v_matches FROM pgml_tune._key_parts(p.embeddings::regclass) AS k;
    IF cardinality(text_nos) > 0 THEN
        -- Not of a text that is another by now: whoever has changed it has queued the row again.
        EXECUTE format(
            'WITH f AS MATERIALIZED (
                 SELECT %1$s, s.%2$s::text AS content, e.text_sha256, e.i
                 FROM (SELECT i, %3$s, ($2)[i] AS text_sha256 FROM generate_subscripts($1, 1) AS i) AS e
                 JOIN %4$s AS s ON %5$s
                 WHERE e.text_sha256 = sha256(convert_to(s.%2$s::text, ''UTF8''))
             ), written AS (
                 INSERT INTO %6$s (%7$s, chunk_no, text_sha256, embedding, lexemes)
                 SELECT f.%8$s, v.chunk_no, f.text_sha256, v.embedding::%9$s, %10$s
                 FROM unnest($3, $4, $5) AS v (text_no, chunk_no, embedding) JOIN f ON f.i = v.text_no
                 ON CONFLICT (%7$s, chunk_no) DO UPDATE
                 SET text_sha256 = excluded.text_sha256, embedding = excluded.embedding, lexemes = excluded.lexemes
             )
             SELECT array_agg(f.i) FROM f',
            p.numbered_keys, p.content, v_columns, p.source, p.key_match, p.embeddings, p.key_list,
            replace(p.key_list, ', ', ', f.'), p.storage, p.lexemes
        ) INTO v_stored USING keys, hashes, text_nos, chunk_nos, vectors;
        EXECUTE format(
            'DELETE FROM %s AS e USING (SELECT i, %s, ($2)[i] AS text_sha256 FROM unnest($3) AS i) AS k
             WHERE %s AND e.text_sha256 <> k.text_sha256',
            p.embeddings, v_columns, v_matches
        ) USING keys, hashes, v_stored;
    END IF;
    EXECUTE format(
        'DELETE FROM %s AS e USING (SELECT %s FROM generate_subscripts($1, 1) AS i WHERE ($2)[i] IS NULL) AS k
         WHERE %s AND NOT EXISTS (SELECT FROM %s AS s WHERE %s AND s.%s IS NOT NULL)',
        p.embeddings, v_columns, v_matches, p.source, p.key_match, p.content
    ) USING keys, hashes;
    RETURN QUERY SELECT unnest(v_stored);
END
$$;
COMMENT ON FUNCTION pgml_tune._store_queued(bigint, text[], bytea[], integer[], integer[], vector[]) IS
    'Writes vectors of rows that still have the text of this hash, and deletes those of rows without one that are gone; says which rows were written.';

CREATE OR REPLACE FUNCTION pgml_tune._feed_function(collection_id bigint)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('pgml_tune._feed_%s(text[], bytea[], integer[], integer[], %s.vector[])', collection_id, pgml_tune._vector_schema())
$$;
COMMENT ON FUNCTION pgml_tune._feed_function(bigint) IS 'What a collection in mode queue is fed with.';

CREATE OR REPLACE FUNCTION pgml_tune._feed_collection(
    collection_id bigint, keys text[], hashes bytea[], text_nos integer[], chunk_nos integer[], vectors vector[]
)
RETURNS TABLE (key_no integer, content text, text_sha256 bytea)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_level integer;
BEGIN
    PERFORM pgml_tune._hold_collection(
        collection_id, pgml_tune._feed_function(collection_id), CASE WHEN hashes IS NULL THEN 'read' ELSE 'wait' END
    );
    v_level := pgml_tune._begin_restricted();
    RETURN QUERY EXECUTE format('SELECT * FROM pgml_tune._feed_%s($1, $2, $3, $4, $5)', collection_id)
        USING keys, hashes, text_nos, chunk_nos, vectors;
    PERFORM pgml_tune._end_restricted(v_level);
END
$$;
COMMENT ON FUNCTION pgml_tune._feed_collection(bigint, text[], bytea[], integer[], integer[], vector[]) IS
    'As the owner of the source of a collection: the texts of rows whose keys were queued, or with their hashes given, writes their vectors.';

CREATE OR REPLACE FUNCTION pgml_tune._queues()
RETURNS TABLE (
    collection_id bigint, name text, model_version_id bigint, model_reference text, digest text, chunk_tokens integer,
    chunk_overlap integer, batch_size integer, is_waiting boolean, is_filled boolean
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.collection_id, c.name, c.model_version_id, c.model_reference, v.artifact_sha256, c.chunk_tokens, c.chunk_overlap, c.batch_size,
           EXISTS (
               SELECT FROM pgml_tune.queue AS q
               WHERE q.collection_id = c.collection_id AND (q.due_at IS NULL OR q.due_at <= clock_timestamp())
           ),
           -- A twin is filled by prepare_rollout(), at first.
           CASE WHEN c.is_ready THEN c.is_filled ELSE c.is_twin END
    FROM pgml_tune.collection AS c
    JOIN pgml_tune.model_version AS v ON v.model_version_id = c.model_version_id
    WHERE c.mode = 'queue' AND c.embeddings IS NOT NULL AND c.retired_xid IS NULL
      AND EXISTS (SELECT FROM pgml_tune._collection_parts(c.collection_id))
    ORDER BY c.collection_id
$$;
COMMENT ON FUNCTION pgml_tune._queues() IS
    'The collections in mode queue, whether rows wait now, and whether the worker has nothing to fill but these.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_queue(collection_id bigint, OUT queued bigint, OUT last_id bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_given_up bigint;
BEGIN
    queued := (pgml_tune._fill_collection(collection_id, 'enqueue', NULL, NULL, NULL, NULL))[1];
    DELETE FROM pgml_tune.queue AS q USING pgml_tune.queue_failure AS f
    WHERE q.collection_id = _fill_queue.collection_id AND q.xmin = pg_current_xact_id()::xid
      AND f.collection_id = q.collection_id AND f.key = q.key;
    GET DIAGNOSTICS v_given_up = ROW_COUNT;
    queued := queued - v_given_up;
    last_id := (SELECT max(q.queue_id) FROM pgml_tune.queue AS q WHERE q.collection_id = _fill_queue.collection_id);
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_queue(bigint) IS
    'Queues the rows of a collection without vectors of their text, but for those that were given up: how many, and the last that waits.';

CREATE OR REPLACE FUNCTION pgml_tune._fail_queued(
    collection_id bigint, queue_id bigint, sqlstate text, message text, is_final boolean
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_most_tries CONSTANT integer := 5;
    c_first_wait CONSTANT interval := '1 second';
    q pgml_tune.queue;
BEGIN
    DELETE FROM pgml_tune.queue AS o
    WHERE o.collection_id = _fail_queued.collection_id AND o.queue_id = _fail_queued.queue_id
    RETURNING o.* INTO q;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF q.tries + 1 < c_most_tries AND NOT is_final THEN
        INSERT INTO pgml_tune.queue (collection_id, key, tries, enqueued_at, due_at)
        VALUES (q.collection_id, q.key, q.tries + 1, q.enqueued_at, clock_timestamp() + c_first_wait * 2 ^ q.tries);
        RETURN false;
    END IF;
    DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = q.collection_id AND f.key = q.key;
    INSERT INTO pgml_tune.queue_failure (collection_id, key, tries, sqlstate, message, enqueued_at)
    VALUES (q.collection_id, q.key, q.tries + 1, _fail_queued.sqlstate, _fail_queued.message, q.enqueued_at);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._fail_queued(bigint, bigint, text, text, boolean) IS
    'Puts a row that cannot be embedded back for a while, twice as long each time, or gives it up after the fifth or the final one (true).';

CREATE OR REPLACE FUNCTION pgml_tune._has_steady_worker()
RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.worker AS w
        WHERE NOT w.is_one_shot AND w.seen_at > clock_timestamp() - interval '30 seconds'
          AND EXISTS (SELECT FROM pg_stat_get_activity(w.backend_pid))
    )
$$;
COMMENT ON FUNCTION pgml_tune._has_steady_worker() IS 'Whether a worker that stays, and so feeds queues, serves this database.';

CREATE OR REPLACE FUNCTION pgml_tune._refill_collection(collection_id bigint)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pgml_tune.collection AS c SET is_filled = false
    WHERE c.collection_id = _refill_collection.collection_id AND c.mode = 'queue' AND c.is_filled;
    RETURN pgml_tune._has_steady_worker();
END
$$;
COMMENT ON FUNCTION pgml_tune._refill_collection(bigint) IS
    'Lets the worker look at all rows of a collection in mode queue; says whether one serves this database.';

CREATE OR REPLACE FUNCTION pgml_tune._count_waiting(collection_id bigint)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT count(DISTINCT q.key) FROM pgml_tune.queue AS q WHERE q.collection_id = _count_waiting.collection_id $$;
COMMENT ON FUNCTION pgml_tune._count_waiting(bigint) IS 'Rows of a collection that wait for the worker.';

CREATE OR REPLACE FUNCTION pgml_tune._requeue(collection_id bigint)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH failed AS (
        DELETE FROM pgml_tune.queue_failure AS f WHERE f.collection_id = _requeue.collection_id RETURNING f.*
    ), queued AS (
        INSERT INTO pgml_tune.queue (collection_id, key) SELECT f.collection_id, f.key FROM failed AS f RETURNING true
    )
    SELECT count(*) FROM queued
$$;
COMMENT ON FUNCTION pgml_tune._requeue(bigint) IS 'Queues the rows of a collection again that were given up, and says how many.';

CREATE OR REPLACE FUNCTION @extschema@.requeue_failed(collection text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owns boolean;
BEGIN
    IF requeue_failed.collection IS NOT NULL THEN
        SELECT bool_or(pg_has_role(s.relowner, 'USAGE')) INTO v_owns
        FROM pgml_tune.collection AS c JOIN pg_class AS s ON s.oid = c.source
        WHERE c.name = requeue_failed.collection AND c.mode = 'queue';
        IF v_owns IS NULL THEN
            RAISE EXCEPTION 'there is no collection in mode queue of this name' USING ERRCODE = '42704',
                HINT = 'SELECT collection, mode FROM pgml_tune.embedding_collections';
        ELSIF NOT v_owns THEN
            RAISE EXCEPTION 'must be owner of the table of collection "%"', requeue_failed.collection USING ERRCODE = '42501';
        END IF;
    END IF;
    RETURN (
        SELECT coalesce(sum(pgml_tune._requeue(c.collection_id)), 0)::bigint
        FROM pgml_tune.collection AS c JOIN pg_class AS s ON s.oid = c.source
        WHERE c.mode = 'queue' AND pg_has_role(s.relowner, 'USAGE')
          AND (requeue_failed.collection IS NULL OR c.name = requeue_failed.collection)
    );
END
$$;
COMMENT ON FUNCTION @extschema@.requeue_failed(text) IS
    'Lets the worker try rows again that it has given up, of one collection or of all whose tables are yours, and says how many; see pgml_tune.queue_failures.';
