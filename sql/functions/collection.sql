-- Tables kept embedded. The side tables are written by functions that their owners own, never by a superuser: a trigger that an
-- owner puts on his side table must not run as anybody but him. What every statement of a trigger asks is in plpgsql, which keeps
-- the plans; an SQL function would plan for milliseconds each time.

CREATE OR REPLACE FUNCTION pgml_tune._vector_schema()
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT quote_ident(n.nspname)
        FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._vector_schema() IS 'Where pgvector is, quoted.';

CREATE OR REPLACE FUNCTION pgml_tune._base_type(type oid, modifier integer)
RETURNS TABLE (base oid, base_modifier integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE step AS (
        SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, _base_type.modifier AS modifier
        FROM pg_type AS t WHERE t.oid = _base_type.type
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, s.typtypmod
        FROM step AS s JOIN pg_type AS t ON t.oid = s.typbasetype
        WHERE s.typtype = 'd'
    )
    SELECT s.oid, s.modifier FROM step AS s WHERE s.typtype <> 'd';
END
$$;
COMMENT ON FUNCTION pgml_tune._base_type(oid, integer) IS
    'The type below a domain, and below the domains below it. What works on base types runs no CHECK of anybody.';

CREATE OR REPLACE FUNCTION pgml_tune._equality(type oid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT CASE
            WHEN t.typtype IN ('e', 'r', 'm') THEN 'OPERATOR(pg_catalog.=)'
            WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN
                CASE WHEN pgml_tune._equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END
            ELSE (
                SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
                FROM pg_opclass AS c
                JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
                JOIN pg_amop AS a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
                    AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
                JOIN pg_operator AS o ON o.oid = a.amopopr
                JOIN pg_namespace AS n ON n.oid = o.oprnamespace
                WHERE c.opcdefault
                  AND c.opcintype = CASE t.oid WHEN 'varchar'::regtype THEN 'text'::regtype::oid
                                               WHEN 'cidr'::regtype THEN 'inet'::regtype::oid ELSE t.oid END
            )
        END
        FROM pg_type AS t WHERE t.oid = _equality.type
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._equality(oid) IS
    'The operator that compares values of a base type, with its schema; NULL if there is none that does so for certain.';

CREATE OR REPLACE FUNCTION pgml_tune._source_key(source oid)
RETURNS smallint[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (i.indkey::smallint[])[0:i.indnkeyatts - 1]
    FROM pg_index AS i
    WHERE i.indrelid = _source_key.source
      AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
          SELECT FROM unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AS k (attnum)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, -1) AS b
          WHERE NOT a.attnotnull OR pgml_tune._equality(b.base) IS NULL
      )
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._source_key(oid) IS
    'The columns of the primary key, or of a unique index over columns that are NOT NULL; NULL if there is none.';

CREATE OR REPLACE FUNCTION pgml_tune._object_base(source oid, source_column text, collection text)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.short
    FROM pg_class AS c
    CROSS JOIN LATERAL (
        VALUES (1, c.relname || '_' || source_column), (2, CASE WHEN strpos(collection, '.') = 0 THEN collection END)
    ) AS n (place, name)
    CROSS JOIN LATERAL (
        -- 63 bytes with the suffix: a longer name is cut to what certainly fits, and told apart by a hash of the whole.
        SELECT CASE WHEN octet_length(n.name) <= 53 THEN n.name ELSE left(n.name, 11) || '_' || left(md5(n.name), 8) END
    ) AS b (short)
    WHERE c.oid = source AND n.name IS NOT NULL
      AND NOT EXISTS (
          SELECT FROM pg_class AS o WHERE o.relnamespace = c.relnamespace AND o.relname = b.short || '_embedding'
      ) AND NOT EXISTS (
          SELECT FROM pg_type AS o WHERE o.typnamespace = c.relnamespace AND o.typname = b.short || '_embedding'
      ) AND NOT EXISTS (
          SELECT FROM pg_proc AS o WHERE o.pronamespace = c.relnamespace AND o.proname = b.short || '_query'
      )
    ORDER BY n.place
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._object_base(oid, text, text) IS
    'What the names of the view and the query function begin with: table and column, or where these are taken the collection; NULL if that is taken, too.';

CREATE OR REPLACE FUNCTION pgml_tune._source_facts(source regclass, source_column text, collection text)
RETURNS TABLE (
    source_oid bigint, schema_name text, default_name text, kind text, is_temporary boolean, is_ours boolean,
    is_partition boolean, is_inherited boolean, is_forced boolean, owner text, is_owner boolean,
    owner_may_embed boolean, owner_may_create boolean, has_names boolean, has_column boolean, is_text boolean, is_virtual boolean,
    has_key boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::bigint, n.nspname::text,
           -- A collection keeps its name when its table or column is renamed.
           coalesce(
               (SELECT t.name
                FROM pgml_tune.collection AS t
                CROSS JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p
                WHERE t.source = c.oid AND p.plain_content = _source_facts.source_column AND strpos(t.name, '.') > 0
                LIMIT 1),
               n.nspname || '.' || c.relname || '.' || _source_facts.source_column
           ),
           c.relkind::text, c.relpersistence = 't',
           n.nspname IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast'),
           c.relispartition,
           c.relkind = 'r' AND NOT c.relispartition
               AND EXISTS (SELECT FROM pg_inherits AS h WHERE c.oid IN (h.inhparent, h.inhrelid)),
           c.relforcerowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper,
           quote_ident(r.rolname), pg_has_role(c.relowner, 'USAGE'),
           has_schema_privilege(c.relowner, 'pgml_tune', 'USAGE')
               AND has_function_privilege(c.relowner, 'pgml_tune._sync_statements(bigint, text, oid, bigint)', 'EXECUTE'),
           has_schema_privilege(c.relowner, n.oid, 'CREATE'),
           pgml_tune._object_base(c.oid, _source_facts.source_column, _source_facts.collection) IS NOT NULL,
           a.attnum IS NOT NULL,
           (SELECT t.typcategory = 'S' FROM pgml_tune._base_type(a.atttypid, -1) AS b JOIN pg_type AS t ON t.oid = b.base),
           a.attgenerated = 'v',
           pgml_tune._source_key(c.oid) IS NOT NULL
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_roles AS r ON r.oid = c.relowner
    LEFT JOIN pg_attribute AS a
        ON a.attrelid = c.oid AND a.attname = _source_facts.source_column AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid = _source_facts.source
$$;
COMMENT ON FUNCTION pgml_tune._source_facts(regclass, text, text) IS 'What decides whether a column can be kept embedded.';

CREATE OR REPLACE FUNCTION pgml_tune._collection_parts(collection_id bigint)
RETURNS TABLE (
    source text, embeddings text, content text, plain_content text, key_attnums smallint[], key_names text[], numbered_keys text, key_list text, key_match text, row_match text,
    model text, storage text, chunk_tokens integer, chunk_overlap integer, lexemes text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.source::text, t.embeddings::text,
           quote_ident(k.names[cardinality(k.names)]),
           k.names[cardinality(k.names)], (g.tgattr::smallint[])[0:cardinality(k.names) - 2],
           k.names[:cardinality(k.names) - 1], k.numbered, k.listed, k.matches, k.row_matches,
           t.model_reference, x.vector_type || '(' || t.dimensions || ')', t.chunk_tokens, t.chunk_overlap,
           -- A tsvector holds 1 MB at most.
           CASE WHEN t.text_search IS NULL THEN 'NULL::tsvector' ELSE format(
               'CASE WHEN v.chunk_no = 1 THEN to_tsvector(%L::regconfig, left(f.content, 200000)) END', t.text_search
           ) END
    FROM pgml_tune.collection AS t
    JOIN pg_trigger AS g ON g.tgrelid = t.source AND g.tgname = 'pgml_tune_' || t.collection_id || '_columns'
    CROSS JOIN LATERAL (SELECT pgml_tune._vector_schema() || '.' || t.storage) AS x (vector_type)
    CROSS JOIN LATERAL (
        SELECT bool_and(c.is_text OR c.base = i.atttypid) AS has_keys,
               array_agg(c.name ORDER BY c.position) AS names,
               string_agg(format('s.%I AS key_%s', c.name, c.position), ', ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS numbered,
               string_agg('key_' || c.position, ', ' ORDER BY c.position) FILTER (WHERE NOT c.is_text) AS listed,
               string_agg(format('s.%I %s e.key_%s', c.name, c.equality, c.position), ' AND ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS matches,
               string_agg(format('s.%1$I %2$s n.%1$I', c.name, c.equality), ' AND ' ORDER BY c.position)
                   FILTER (WHERE NOT c.is_text) AS row_matches
        FROM (
            SELECT u.position, a.attname::text AS name, u.position = cardinality(g.tgattr::smallint[]) AS is_text,
                   CASE y.typtype WHEN 'd' THEN (SELECT b.base FROM pgml_tune._base_type(y.oid, -1) AS b) ELSE y.oid END AS base,
                   CASE y.typtype WHEN 'b' THEN pgml_tune._equality(y.oid)
                       ELSE pgml_tune._equality((SELECT b.base FROM pgml_tune._base_type(y.oid, -1) AS b)) END AS equality
            FROM unnest(g.tgattr::smallint[]) WITH ORDINALITY AS u (attnum, position)
            JOIN pg_attribute AS a ON a.attrelid = t.source AND a.attnum = u.attnum
            JOIN pg_type AS y ON y.oid = a.atttypid
        ) AS c
        LEFT JOIN pg_attribute AS i
            ON i.attrelid = t.embeddings AND i.attname = 'key_' || c.position AND NOT i.attisdropped
    ) AS k
    WHERE t.collection_id = _collection_parts.collection_id
      -- The side table is its owner's, who may have given a column a type with casts of his own: they would run as any reader.
      AND k.has_keys
      AND (SELECT o.relkind = 'r' FROM pg_class AS o WHERE o.oid = t.embeddings)
      AND 4 = (
          SELECT count(*) FROM pg_attribute AS i
          WHERE i.attrelid = t.embeddings AND i.attnum > 0 AND NOT i.attisdropped AND CASE i.attname
              WHEN 'chunk_no' THEN i.atttypid = 'integer'::regtype
              WHEN 'text_sha256' THEN i.atttypid = 'bytea'::regtype
              WHEN 'lexemes' THEN i.atttypid = 'tsvector'::regtype
              WHEN 'embedding' THEN i.atttypid = to_regtype(x.vector_type) AND i.atttypmod = t.dimensions
              ELSE false
          END
      );
END
$$;
COMMENT ON FUNCTION pgml_tune._collection_parts(bigint) IS
    'The names of today, quoted, from which the statements of a collection are made, with the aliases s (source), n (its new rows), e (side table), f (texts), v (their vectors). No row: its table or column is gone, or the side table is not as it was made.';

CREATE OR REPLACE FUNCTION pgml_tune._hold_tables(embeddings regclass, source regclass)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT bool_and(c.relkind IN ('r', 'p')) FROM pg_class AS c WHERE c.oid IN (embeddings, source)) THEN
        EXECUTE format('SELECT FROM %s AS e, %s AS s LIMIT 0', embeddings, source);
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_tables(regclass, regclass) IS
    'Locks both tables of a collection against changes of their columns until the transaction ends: what _collection_parts() says afterwards stays so.';

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
    v_statements text[];
BEGIN
    SELECT * INTO p FROM pgml_tune._collection_parts(collection_id);
    -- The column was dropped with CASCADE, or only the schema was restored: the table stays writable, doctor() tells.
    IF NOT FOUND THEN
        RETURN ARRAY['SELECT false'];
    END IF;
    -- A partition that was detached keeps its triggers until maintain() finds it.
    IF relation <> p.source::regclass AND p.source::regclass <> ALL (
        SELECT r::oid FROM pg_partition_ancestors(relation) AS r
    ) THEN
        RETURN ARRAY['SELECT false'];
    END IF;
    v_hash := format(v_hash, p.content);

    IF event = 'TRUNCATE' THEN
        RETURN ARRAY[v_question, format(
            'DELETE FROM %s AS e WHERE NOT EXISTS (SELECT FROM %s AS s WHERE %s)', p.embeddings, p.source, p.key_match
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
                FROM pgml_tune_new AS n JOIN %15$s AS s ON %16$s
                WHERE s.%2$s::text = n.%2$s::text %5$s
             ), %6$sfresh AS MATERIALIZED (
                %7$s
             ), vectors AS MATERIALIZED (
                SELECT b.part, v.text_no, v.chunk_no, v.embedding
                FROM (%17$s) AS b CROSS JOIN LATERAL pgml_tune._embed_passages(b.contents, %8$L, %9$L, %10$L) AS v
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
            p.source, p.row_match, v_contents
        ), format(
            'DELETE FROM %s AS e USING pgml_tune_new AS n, %s AS s
             WHERE %s AND %s AND e.text_sha256 IS DISTINCT FROM %s',
            p.embeddings, p.source, p.row_match, p.key_match, v_hash
        )];
    END IF;
    IF event = 'UPDATE' THEN
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
             WHERE %2$s AND NOT EXISTS (SELECT FROM %3$s AS s WHERE %2$s)',
            p.embeddings, p.key_match, p.source
        );
    END IF;
    RETURN v_question || v_statements;
END
$$;
COMMENT ON FUNCTION pgml_tune._sync_statements(bigint, text, oid, bigint) IS
    'The statements with which the trigger of a collection follows INSERT, UPDATE, DELETE or TRUNCATE of a table, after a question whether there is anything to do.';

CREATE OR REPLACE FUNCTION pgml_tune._keep_part(
    collection_id bigint, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS integer[]
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
RETURNS integer[]
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
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c
    WHERE c.collection_id = _build_collection.collection_id FOR UPDATE;
    SELECT c.* INTO v_class FROM pg_class AS c WHERE c.oid = t.source;
    v_attnum := (
        SELECT a.attnum FROM pg_attribute AS a
        WHERE a.attrelid = t.source AND a.attname = t.source_column AND a.attnum > 0 AND NOT a.attisdropped
    );
    v_key := pgml_tune._source_key(t.source);
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
    EXECUTE format('COMMENT ON TABLE pgml_tune.%I IS %L', v_name,
        format('Vectors of collection "%s"; text_sha256 is of the whole text.', t.name));

    EXECUTE format(
        'CREATE FUNCTION pgml_tune._sync_%1$s() RETURNS trigger
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET pgml_tune.cache = ''off''
         SET row_security = off SET jit = off
         AS $body$
         DECLARE
             v_rows bigint;
             v_statements text[];
             v_statement text;
             v_has_changed boolean;
         BEGIN
             IF TG_OP IN (''INSERT'', ''UPDATE'') THEN
                 SELECT count(*) INTO v_rows FROM pgml_tune_new;
             END IF;
             v_statements := pgml_tune._sync_statements(%1$s, TG_OP, TG_RELID, v_rows);
             EXECUTE v_statements[1] INTO v_has_changed;
             IF v_has_changed THEN
                 FOREACH v_statement IN ARRAY v_statements[2:] LOOP
                     EXECUTE v_statement;
                 END LOOP;
             END IF;
             RETURN NULL;
         END
         $body$', t.collection_id);
    EXECUTE format(
        'CREATE FUNCTION pgml_tune._keep_%1$s(leaf oid, first_block bigint, end_block bigint, max_rows integer) RETURNS integer[]
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET pgml_tune.cache = ''off''
         SET row_security = off SET jit = off
         AS $body$
         BEGIN
             IF leaf IS NULL THEN
                 RETURN pgml_tune._keep_orphans(%1$s);
             END IF;
             RETURN pgml_tune._keep_part(%1$s, leaf, first_block, end_block, max_rows);
         END
         $body$', t.collection_id);
    EXECUTE format('REVOKE ALL ON FUNCTION pgml_tune._sync_%1$s(), pgml_tune._keep_%1$s(oid, bigint, bigint, integer) FROM PUBLIC',
        t.collection_id);
    EXECUTE format('COMMENT ON FUNCTION pgml_tune._sync_%s() IS %L', t.collection_id,
        format('Trigger of collection "%s": follows what happens to its table.', t.name));
    EXECUTE format('COMMENT ON FUNCTION pgml_tune._keep_%s(oid, bigint, bigint, integer) IS %L', t.collection_id,
        format('Embeds rows of collection "%s" that have no vectors.', t.name));
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

CREATE OR REPLACE FUNCTION pgml_tune._mending_statements(collection_id bigint)
RETURNS TABLE (change text, relation oid, statement text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_graph_rows CONSTANT integer := 10000;  -- below, comparing all is as fast, exact, and spares writers the graph
    t pgml_tune.collection;
    p record;
    v_source pg_class;
    v_wants_graph boolean;
BEGIN
    SELECT c.* INTO t FROM pgml_tune.collection AS c WHERE c.collection_id = _mending_statements.collection_id;
    SELECT c.* INTO v_source FROM pg_class AS c WHERE c.oid = t.source;
    SELECT * INTO p FROM pgml_tune._collection_parts(collection_id);
    IF NOT FOUND THEN
        RETURN;
    END IF;

    RETURN QUERY
    SELECT 'owner', NULL::oid, format('ALTER %s OWNER TO %I', o.object, pg_get_userbyid(v_source.relowner))
    FROM (
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END || c.oid::regclass, c.relowner
        FROM pg_class AS c WHERE c.oid IN (t.embeddings, t.view_name)
        UNION ALL
        SELECT 'FUNCTION ' || f.oid::regprocedure, f.proowner
        FROM pg_proc AS f
        WHERE f.oid = t.query_function OR f.pronamespace = 'pgml_tune'::regnamespace
            AND f.proname IN ('_sync_' || t.collection_id, '_keep_' || t.collection_id)
    ) AS o (object, owner)
    WHERE o.owner <> v_source.relowner;

    RETURN QUERY
    SELECT 'persistence', NULL::oid,
           format('ALTER TABLE %s SET %s', p.embeddings, CASE v_source.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END)
    FROM pg_class AS c WHERE c.oid = t.embeddings AND c.relpersistence <> v_source.relpersistence;

    RETURN QUERY
    WITH leaf AS (
        SELECT t.source::oid AS relation UNION SELECT f.relid FROM pg_partition_tree(t.source) AS f
    )
    SELECT 'partition detached', g.tgrelid, format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass)
    FROM pg_trigger AS g
    WHERE g.tgfoid = format('pgml_tune._sync_%s()', collection_id)::regprocedure
      AND g.tgrelid NOT IN (SELECT l.relation FROM leaf AS l)
    UNION ALL
    SELECT 'partition attached', l.relation, format(
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
    SELECT 'row security', NULL::oid, format(
        'CREATE POLICY source_row ON %s FOR SELECT USING (EXISTS (SELECT FROM (SELECT %s) AS e JOIN %s AS s ON %s OFFSET 0))',
        p.embeddings, p.key_list, p.source, p.key_match
    )
    WHERE v_source.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy AS o WHERE o.polrelid = t.embeddings)
    UNION ALL
    SELECT 'row security', NULL, format('ALTER TABLE %s %s ROW LEVEL SECURITY', p.embeddings,
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
    SELECT DISTINCT 'grants', NULL::oid, format('REVOKE ALL ON %s FROM %s', x.oid::regclass, pgml_tune._role_name(x.grantee))
    FROM target AS x
    WHERE x.grantee IS NOT NULL AND (x.privilege_type <> 'SELECT' OR x.grantee NOT IN (SELECT r.grantee FROM reader AS r))
    UNION ALL
    SELECT 'grants', NULL, format('GRANT SELECT ON %s TO %s', x.oid::regclass, pgml_tune._role_name(r.grantee))
    FROM (SELECT DISTINCT o.oid FROM target AS o) AS x CROSS JOIN reader AS r
    WHERE r.grantee <> v_source.relowner AND NOT EXISTS (
        SELECT FROM target AS h WHERE h.oid = x.oid AND h.grantee = r.grantee AND h.privilege_type = 'SELECT'
    );

    v_wants_graph := t.index_method <> 'none' AND pgml_tune._has_hnsw(t.embeddings) IS NULL;
    IF v_wants_graph AND t.index_method = 'auto' THEN
        EXECUTE format('SELECT count(*) >= %s FROM (SELECT FROM %s LIMIT %1$s) AS e', c_graph_rows, t.embeddings)
        INTO v_wants_graph;
    END IF;
    RETURN QUERY
    SELECT 'index', NULL::oid, format('CREATE INDEX %I ON %s USING hnsw (embedding %s.%s_cosine_ops)',
        c.relname || '_hnsw', p.embeddings, pgml_tune._vector_schema(), t.storage)
    FROM pg_class AS c WHERE c.oid = t.embeddings AND v_wants_graph;
END
$$;
COMMENT ON FUNCTION pgml_tune._mending_statements(bigint) IS
    'What would bring a collection in line with its table: who owns and reads it, row security, triggers on its partitions, and the index once it is wanted.';

CREATE OR REPLACE FUNCTION pgml_tune._mend_collection(collection_id bigint)
RETURNS TABLE (change text, relation oid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT m.change, m.relation, m.statement FROM pgml_tune._mending_statements(collection_id) AS m LOOP
        EXECUTE r.statement;
        change := r.change;
        relation := r.relation;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._mend_collection(bigint) IS 'Brings a collection in line with its table, and says what was not.';

CREATE OR REPLACE FUNCTION pgml_tune._role_name(role oid)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END $$;
COMMENT ON FUNCTION pgml_tune._role_name(oid) IS 'A grantee as GRANT writes it.';

CREATE OR REPLACE FUNCTION pgml_tune._fill_collection(
    collection_id bigint, leaf oid, first_block bigint, end_block bigint, max_rows integer
)
RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_result integer[];
BEGIN
    -- Its owner may have made the function run as its caller, who is a superuser here. The lock keeps it as it is till the end.
    PERFORM FROM pg_proc AS p
    JOIN pgml_tune.collection AS t ON t.collection_id = _fill_collection.collection_id
    JOIN pg_class AS c ON c.oid = t.source
    WHERE p.oid = to_regprocedure(format('pgml_tune._keep_%s(oid, bigint, bigint, integer)', _fill_collection.collection_id))
      AND p.prosecdef AND p.proowner = c.relowner
      AND p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp']
    FOR SHARE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the functions of collection % are not as they were made', collection_id USING ERRCODE = '55000';
    END IF;
    -- One session at a time: two would embed the same rows.
    BEGIN
        PERFORM FROM pgml_tune.collection AS t
        WHERE t.collection_id = _fill_collection.collection_id FOR NO KEY UPDATE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'collection % is being filled by another session', collection_id USING ERRCODE = '55P03';
    END;
    EXECUTE format('SELECT pgml_tune._keep_%s($1, $2, $3, $4)', collection_id)
    INTO v_result USING leaf, first_block, end_block, max_rows;
    RETURN v_result;
END
$$;
COMMENT ON FUNCTION pgml_tune._fill_collection(bigint, oid, bigint, bigint, integer) IS
    'Embeds rows of a part of a collection, as the owner of its source; with leaf NULL deletes vectors of rows that are gone.';

CREATE OR REPLACE FUNCTION pgml_tune._finish_collection(collection_id bigint)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
    p record;
    v_schema text;
    v_base text;
    v_view text;
    v_function text;
    v_side text;
    v_columns text;
    v_names text[];
BEGIN
    SELECT c.* INTO STRICT t FROM pgml_tune.collection AS c
    WHERE c.collection_id = _finish_collection.collection_id FOR NO KEY UPDATE;
    IF t.is_ready THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT p FROM pgml_tune._collection_parts(collection_id);
    SELECT n.nspname INTO STRICT v_schema
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = t.source;
    IF NOT has_schema_privilege((SELECT c.relowner FROM pg_class AS c WHERE c.oid = t.source), v_schema, 'CREATE') THEN
        RAISE EXCEPTION 'the owner of table % may not create objects in its schema', t.source USING ERRCODE = '42501';
    END IF;
    v_side := (SELECT c.relname FROM pg_class AS c WHERE c.oid = t.embeddings);

    IF t.text_search IS NOT NULL AND to_regclass(format('pgml_tune.%I', v_side || '_lexemes')) IS NULL THEN
        EXECUTE format('CREATE INDEX %I ON %s USING gin (lexemes)', v_side || '_lexemes', p.embeddings);
    END IF;

    -- The columns of the source keep their names, those beside them give way.
    v_names := p.key_names || p.plain_content;
    SELECT string_agg(format('s.%I', k.name), ', ' ORDER BY k.position) INTO v_columns
    FROM (SELECT n.name, min(n.position) FROM unnest(v_names) WITH ORDINALITY AS n (name, position) GROUP BY n.name)
        AS k (name, position);
    v_base := pgml_tune._object_base(t.source, p.plain_content, t.name);
    IF v_base IS NULL THEN
        RAISE EXCEPTION 'the names of the view and the query function of collection "%" are taken', t.name
            USING ERRCODE = '42710';
    END IF;
    v_view := v_base || '_embedding';
    EXECUTE format(
        'CREATE VIEW %I.%I WITH (security_invoker = true) AS
         SELECT %s, e.chunk_no AS %I, e.embedding::%s.%s AS %I
         FROM %s AS e JOIN %s AS s ON %s',
        v_schema, v_view, v_columns, pgml_tune._free_name('chunk', v_names), pgml_tune._vector_schema(), t.storage,
        pgml_tune._free_name('embedding', v_names), p.embeddings, p.source, p.key_match
    );
    EXECUTE format('COMMENT ON VIEW %I.%I IS %L', v_schema, v_view,
        format('Texts of collection "%s" with their vectors, for an ORDER BY of your own.', t.name));
    v_function := v_base || '_query';
    EXECUTE format(
        'CREATE FUNCTION %I.%I(input text) RETURNS %s.%s
         LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000
         RETURN @extschema@.embed_pinned(input, %L, %L, ''query'')%s',
        v_schema, v_function, pgml_tune._vector_schema(), t.storage,
        split_part(p.model, '@', 1), split_part(p.model, '@', 2),
        CASE t.storage WHEN 'halfvec' THEN format('::%s.halfvec', pgml_tune._vector_schema()) ELSE '' END
    );
    EXECUTE format('COMMENT ON FUNCTION %I.%I(text) IS %L', v_schema, v_function,
        format('Vector of a question to collection "%s", under %s.', t.name, p.model));
    UPDATE pgml_tune.collection AS c
    SET is_ready = true, view_name = format('%I.%I', v_schema, v_view)::regclass,
        query_function = format('%I.%I(text)', v_schema, v_function)::regprocedure
    WHERE c.collection_id = t.collection_id;
    PERFORM pgml_tune._mend_collection(collection_id);
    EXECUTE format('ANALYZE %s', p.embeddings);
END
$$;
COMMENT ON FUNCTION pgml_tune._finish_collection(bigint) IS
    'Makes the indexes, the view and the query function of a collection that is filled, and opens it to its readers.';

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

CREATE OR REPLACE FUNCTION pgml_tune._free_name(name text, taken text[])
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.name FROM (
        SELECT repeat('_', g) AS tail, _free_name.name || repeat('_', g) AS name FROM generate_series(0, 40) AS g
    ) AS c WHERE c.name <> ALL (taken) ORDER BY length(c.tail) LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._free_name(text, text[]) IS 'A name, with as many underscores as keep it apart from others.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_parts(
    collection_id bigint, embeddings oid, view_name oid, query_function oid
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning  -- what goes is known
AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        SELECT format('DROP VIEW %s', c.oid::regclass) FROM pg_class AS c WHERE c.oid = view_name AND c.relkind = 'v'
        UNION ALL
        SELECT format('DROP FUNCTION %s', p.oid::regprocedure) FROM pg_proc AS p WHERE p.oid = query_function
        UNION ALL
        -- With them go the triggers that call them.
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure) FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proname IN ('_sync_' || collection_id, '_keep_' || collection_id)
        UNION ALL
        SELECT format('DROP TABLE %s', c.oid::regclass) FROM pg_class AS c WHERE c.oid = embeddings AND c.relkind = 'r'
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_parts(bigint, oid, oid, oid) IS 'Drops what belongs to a collection, with the rights of the caller.';

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
        PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, t.view_name, t.query_function);
        DELETE FROM pgml_tune.collection AS c WHERE c.collection_id = t.collection_id;
        RETURN NEXT t.name;
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
          AND f.proname IN ('_sync_' || collection_id, '_keep_' || collection_id)
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
        SELECT 'it is not filled yet',
               format('CALL auto_embed(%L, %L, collection => %L)', t.source, p.plain_content, t.name)
        WHERE p.source IS NOT NULL AND NOT t.is_ready
        UNION ALL
        SELECT 'its key is unique no more, and rows with the same key lose their vectors',
               format('ALTER TABLE %s ADD UNIQUE (%s)', t.source,
                   (SELECT string_agg(quote_ident(k), ', ') FROM unnest(p.key_names) AS k))
        WHERE p.source IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = t.source AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
              AND i.indkey::smallint[] <@ p.key_attnums
        )
        UNION ALL
        SELECT format('%s is not followed: triggers are disabled', g.tgrelid::regclass),
               format('ALTER TABLE %s ENABLE TRIGGER USER; CALL auto_embed(%L, %L, collection => %L)',
                   g.tgrelid::regclass, t.source, p.plain_content, t.name)
        FROM pg_trigger AS g
        WHERE p.source IS NOT NULL AND g.tgenabled = 'D'
          AND g.tgfoid = to_regprocedure(format('pgml_tune._sync_%s()', t.collection_id))
        GROUP BY g.tgrelid
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

CREATE OR REPLACE FUNCTION pgml_tune._collection_ids()
RETURNS SETOF bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT t.collection_id FROM pgml_tune.collection AS t WHERE t.embeddings IS NOT NULL ORDER BY t.collection_id $$;
COMMENT ON FUNCTION pgml_tune._collection_ids() IS 'The collections there are.';

CREATE OR REPLACE FUNCTION pgml_tune._collection_row(collection_id bigint, name text)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_jsonb(t) || jsonb_build_object(
        'source_oid', t.source::oid::bigint, 'source', t.source, 'text_search', t.text_search,
        'source_column', coalesce(p.plain_content, t.source_column), 'model', m.name, 'version', v.version,
        'is_lost', p.source IS NULL
    )
    FROM pgml_tune.collection AS t
    JOIN pgml_tune.model_version AS v ON v.model_version_id = t.model_version_id
    JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    LEFT JOIN LATERAL pgml_tune._collection_parts(t.collection_id) AS p ON true
    WHERE t.collection_id = _collection_row.collection_id OR t.name = _collection_row.name
$$;
COMMENT ON FUNCTION pgml_tune._collection_row(bigint, text) IS 'A collection by its number or its name.';

CREATE OR REPLACE FUNCTION pgml_tune._add_collection(settings jsonb)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- With the rights of the caller: a trigger asks whether the source is his.
    INSERT INTO pgml_tune.collection (
        name, source, source_column, model_version_id, mode, index_method, storage, chunk_tokens, chunk_overlap,
        batch_size, text_search, model_reference, dimensions
    )
    SELECT s.name, s.source_oid::oid, s.source_column, s.model_version_id, s.mode, s.index_method, s.storage,
           s.chunk_tokens, s.chunk_overlap, s.batch_size, s.text_search::oid, s.model_reference, s.dimensions
    FROM jsonb_to_record(settings) AS s (
        name text, source_oid bigint, source_column text, model_version_id bigint, mode text, index_method text,
        storage text, chunk_tokens integer, chunk_overlap integer, batch_size integer, text_search bigint,
        model_reference text, dimensions integer
    )
    ON CONFLICT DO NOTHING
    RETURNING collection_id
$$;
COMMENT ON FUNCTION pgml_tune._add_collection(jsonb) IS 'Adds the row of a collection; NULL if the name is taken.';

CREATE OR REPLACE FUNCTION pgml_tune._find_text_search(name text)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN _find_text_search.name IS NULL THEN get_current_ts_config()::oid::bigint ELSE (
        SELECT c.oid::bigint
        FROM pg_ts_config AS c JOIN pg_namespace AS n ON n.oid = c.cfgnamespace
        WHERE _find_text_search.name = n.nspname || '.' || c.cfgname
           OR _find_text_search.name = c.cfgname AND n.nspname = 'pg_catalog'
        LIMIT 1
    ) END
$$;
COMMENT ON FUNCTION pgml_tune._find_text_search(text) IS
    'A text search configuration by its name, that of PostgreSQL itself without a schema; NULL means the default one.';

CREATE OR REPLACE FUNCTION pgml_tune._drop_collection(collection_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    t pgml_tune.collection;
BEGIN
    -- With the rights of the caller, who has to own what is dropped.
    DELETE FROM pgml_tune.collection AS c WHERE c.collection_id = _drop_collection.collection_id RETURNING c.* INTO t;
    PERFORM pgml_tune._drop_parts(t.collection_id, t.embeddings, t.view_name, t.query_function);
END
$$;
COMMENT ON FUNCTION pgml_tune._drop_collection(bigint) IS 'Removes a collection and all that belongs to it.';

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
END
$$;
COMMENT ON FUNCTION pgml_tune._count_rows(bigint, text) IS
    'Rows with a text that the caller sees (rows), those with vectors of it (embedded), with vectors of another (stale), or without vectors of it (missing); NULL where he may not read the table.';

CREATE OR REPLACE FUNCTION pgml_tune._prepare_collection(
    source regclass, source_column name, model text, collection text, mode text, options jsonb
)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import collection as entry
return entry.prepare(source, source_column, model, collection, mode, options)
$python$;
COMMENT ON FUNCTION pgml_tune._prepare_collection(regclass, name, text, text, text, jsonb) IS
    'Checks what auto_embed() was given, adds the collection or finds the one there is, and returns its number.';

-- No SET clause: a procedure that has one cannot commit. Under the search_path of the caller it only calls functions.
CREATE OR REPLACE PROCEDURE pgml_tune._fill(collection_id bigint)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import collection
return collection.fill(collection_id)
$python$;
COMMENT ON PROCEDURE pgml_tune._fill(bigint) IS 'Embeds the rows of a collection that need it, in committed batches.';

CREATE OR REPLACE PROCEDURE pgml_tune._mend()
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import collection
return collection.mend()
$python$;
COMMENT ON PROCEDURE pgml_tune._mend() IS 'Brings all collections in line with their tables.';

CREATE OR REPLACE PROCEDURE @extschema@.auto_embed(
    source regclass, source_column name, model text DEFAULT NULL, collection text DEFAULT NULL,
    mode text DEFAULT 'trigger', options jsonb DEFAULT '{}'
)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL pgml_tune._fill(pgml_tune._prepare_collection(source, source_column, model, collection, mode, options));
END
$$;
COMMENT ON PROCEDURE @extschema@.auto_embed(regclass, name, text, text, text, jsonb) IS
    'Keeps a text column embedded from now on, for semantic_search(): triggers first, then all rows in committed batches; called again it resumes. Options: index, storage, chunk_tokens, chunk_overlap, batch_size, text_search.';

CREATE OR REPLACE FUNCTION @extschema@.drop_auto_embed(collection text)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import collection as entry
return entry.drop(collection)
$python$;
COMMENT ON FUNCTION @extschema@.drop_auto_embed(text) IS
    'Ends a collection: its triggers, vectors, view and query function go, its table stays.';
