-- What tables, columns, keys and operators are called now: catalogs are asked, nothing is remembered, so renames and restores do
-- no harm. What every statement of a trigger asks is in plpgsql, which keeps the plans; an SQL function would plan for
-- milliseconds each time.

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

CREATE OR REPLACE FUNCTION pgml_tune._source_key(source oid, content smallint)
RETURNS smallint[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (i.indkey::smallint[])[0:i.indnkeyatts - 1]
    FROM pg_index AS i
    WHERE i.indrelid = _source_key.source
      AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indnkeyatts <= 31  -- the key of the side table has one more
      AND NOT EXISTS (
          SELECT FROM unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AS k (attnum)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, -1) AS b
          WHERE NOT a.attnotnull OR pgml_tune._equality(b.base) IS NULL OR a.attnum = content
      )
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1
$$;
COMMENT ON FUNCTION pgml_tune._source_key(oid, smallint) IS
    'The columns of the primary key, or of a unique index over columns that are NOT NULL, without the text itself; NULL if there is none.';

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

CREATE OR REPLACE FUNCTION pgml_tune._mode_argument(mode text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE mode WHEN 'trigger' THEN '' ELSE format(', mode => %L', mode) END $$;
COMMENT ON FUNCTION pgml_tune._mode_argument(text) IS 'What follows in a call of auto_embed() for a collection in a mode.';

CREATE OR REPLACE FUNCTION pgml_tune._role_name(role oid)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END $$;
COMMENT ON FUNCTION pgml_tune._role_name(oid) IS 'A grantee as GRANT writes it.';

CREATE OR REPLACE FUNCTION pgml_tune._may_embed(role oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT has_schema_privilege(role, 'pgml_tune', 'USAGE')
        AND has_function_privilege(role, 'pgml_tune._sync_statements(bigint, text, oid, bigint)', 'EXECUTE')
$$;
COMMENT ON FUNCTION pgml_tune._may_embed(oid) IS 'Whether triggers can run as a role.';

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
           pgml_tune._may_embed(c.relowner),
           has_schema_privilege(c.relowner, n.oid, 'CREATE'),
           pgml_tune._object_base(c.oid, _source_facts.source_column, _source_facts.collection) IS NOT NULL,
           a.attnum IS NOT NULL,
           (SELECT t.typcategory = 'S' FROM pgml_tune._base_type(a.atttypid, -1) AS b JOIN pg_type AS t ON t.oid = b.base),
           a.attgenerated = 'v',
           pgml_tune._source_key(c.oid, a.attnum) IS NOT NULL
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
    model text, storage text, chunk_tokens integer, chunk_overlap integer, lexemes text, is_filled boolean
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
           -- A tsvector holds 1 MB at most, and a word may count twice. A configuration that was dropped makes none.
           coalesce((
               SELECT format(
                   'CASE WHEN v.chunk_no = 1 THEN to_tsvector(%L::regconfig, left(f.content, 100000)) END', t.text_search
               )
               FROM pg_ts_config AS y WHERE y.oid::regconfig::text = t.text_search
           ), 'NULL::tsvector'),
           t.is_filled
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
      AND (SELECT o.relkind = 'r' AND o.relnamespace = 'pgml_tune'::regnamespace FROM pg_class AS o WHERE o.oid = t.embeddings)
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
        -- The source first, as its writers do.
        EXECUTE format('SELECT FROM %s AS s, %s AS e LIMIT 0', source, embeddings);
    END IF;
END
$$;
COMMENT ON FUNCTION pgml_tune._hold_tables(regclass, regclass) IS
    'Locks both tables of a collection against changes of their columns until the transaction ends: what _collection_parts() says afterwards stays so.';
