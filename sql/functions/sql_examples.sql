-- Questions with verified SQL. What was verified is stored by name, and each reader sees what he may read himself.

CREATE OR REPLACE FUNCTION pgml_tune._is_own(created_by text)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(pg_has_role(to_regrole(quote_ident(created_by)), 'USAGE'), false) $$;
COMMENT ON FUNCTION pgml_tune._is_own(text) IS 'Whether whoever asks is, or belongs to, a role of this name.';

-- Where row security tells readers apart, SQL may hold values of rows that others do not see.
CREATE OR REPLACE FUNCTION pgml_tune._may_read(relations jsonb, created_by text)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_item jsonb;
    v_relation oid;
    v_is_telling boolean;
    v_is_own boolean := pgml_tune._is_own(created_by);
BEGIN
    FOR v_item IN SELECT r.item FROM jsonb_array_elements(relations) AS r (item) LOOP
        SELECT c.oid, row_security_active(c.oid) OR c.relkind = 'v' AND coalesce('security_invoker=true' = ANY (c.reloptions), false)
        INTO v_relation, v_is_telling
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = v_item ->> 'schema' AND c.relname = v_item ->> 'name'
          AND has_schema_privilege(n.oid, 'USAGE');
        IF NOT FOUND THEN
            RETURN false;  -- gone, or not to be known
        END IF;
        IF v_is_telling AND NOT v_is_own THEN
            RETURN false;
        END IF;
        IF NOT has_table_privilege(v_relation, 'SELECT') AND (
            NOT has_any_column_privilege(v_relation, 'SELECT')
            OR EXISTS (
                SELECT FROM jsonb_path_query(v_item, '$.columns[*]') AS k (name)
                LEFT JOIN pg_attribute AS a
                    ON a.attrelid = v_relation AND a.attname = k.name #>> '{}' AND NOT a.attisdropped
                WHERE a.attnum IS NULL OR NOT has_column_privilege(v_relation, a.attnum, 'SELECT')
            )
        ) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._may_read(jsonb, text) IS
    'Whether whoever asks may read all tables and columns of a verified example of a role, as they are now, and all their rows if it is of another.';

CREATE OR REPLACE FUNCTION pgml_tune._example_rank(created_by text)
RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN pgml_tune._is_own(created_by) THEN 0
        WHEN has_function_privilege(
            to_regrole(quote_ident(created_by)), '@extschema@.register_model(text, text, text, text, jsonb)', 'EXECUTE'
        ) THEN 1
        ELSE 2
    END
$$;
COMMENT ON FUNCTION pgml_tune._example_rank(text) IS
    'Whose example is taken where there are several: 0 the reader''s own, 1 one of an administrator, 2 one of somebody else.';

CREATE OR REPLACE FUNCTION pgml_tune._reads_only(relations jsonb, tables oid[])
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (
        SELECT FROM jsonb_array_elements(relations) AS r (item)
        WHERE NOT EXISTS (
            SELECT FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = r.item ->> 'schema' AND c.relname = r.item ->> 'name' AND c.oid = ANY (tables)
        )
    )
$$;
COMMENT ON FUNCTION pgml_tune._reads_only(jsonb, oid[]) IS 'Whether a verified example reads no other tables than these.';

CREATE OR REPLACE FUNCTION pgml_tune._path_text(schemas text[])
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Of no schemas it is the empty path; not known stays so.
    SELECT CASE WHEN schemas IS NOT NULL THEN array_to_string(
        ARRAY(SELECT quote_ident(s.name) FROM unnest(schemas) WITH ORDINALITY AS s (name, place) ORDER BY s.place), ', '
    ) END
$$;
COMMENT ON FUNCTION pgml_tune._path_text(text[]) IS 'Schemas as SET search_path takes them.';

-- By meaning where a vector is given, else the same question. As the caller, through a view that shows him what he may read.
CREATE OR REPLACE FUNCTION pgml_tune._find_sql_examples(
    normal_question text, question_vector text, model_version_id bigint, lowest double precision, model text,
    search_path text, tables oid[], most integer
)
RETURNS TABLE (sql_example_id bigint, question text, sql text, similarity double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF question_vector IS NULL THEN
        RETURN QUERY
        SELECT e.sql_example_id, e.question, e.sql, 1::double precision
        FROM pgml_tune._readable_sql_examples AS e
        WHERE e.normal_question = _find_sql_examples.normal_question
          AND e.search_path = _find_sql_examples.search_path
          AND (e.model IS NULL OR e.model = _find_sql_examples.model)
          AND (tables IS NULL OR pgml_tune._reads_only(e.relations, tables))
        ORDER BY pgml_tune._example_rank(e.created_by), e.sql_example_id DESC
        LIMIT most;
        RETURN;
    END IF;
    -- Vectors of other spaces may have other dimensions: they are left out before any is compared.
    RETURN QUERY EXECUTE format(
        'SELECT n.sql_example_id, n.question, n.sql, n.similarity
         FROM (
             SELECT e.sql_example_id, e.question, e.sql, e.created_by, 1 - (e.embedding OPERATOR(%1$s.<=>) $1::%1$s.vector) AS similarity
             FROM (
                 SELECT r.*
                 FROM pgml_tune._embedded_sql_examples AS r
                 JOIN pgml_tune.model_version AS v ON v.space_id = r.space_id
                 WHERE v.model_version_id = $2 AND r.search_path = $3 AND (r.model IS NULL OR r.model = $4)
                   AND ($5 IS NULL OR pgml_tune._reads_only(r.relations, $5))
                   AND %1$s.vector_dims(r.embedding) = %1$s.vector_dims($1::%1$s.vector)
                 OFFSET 0
             ) AS e
         ) AS n
         WHERE n.similarity >= $6
         ORDER BY n.similarity DESC, pgml_tune._example_rank(n.created_by), n.sql_example_id DESC
         LIMIT $7',
        pgml_tune._vector_schema()
    ) USING question_vector, model_version_id, search_path, model, tables, lowest, most;
END
$$;
COMMENT ON FUNCTION pgml_tune._find_sql_examples(text, text, bigint, double precision, text, text, oid[], integer) IS
    'Verified examples that the caller may read, of the same question or, given its vector, of questions that are at least so similar, best first.';

CREATE OR REPLACE FUNCTION pgml_tune._add_sql_example(example jsonb)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_role text := pg_get_userbyid((example ->> 'role_id')::oid);
    v_id bigint;
BEGIN
    -- Who gives another answer to his own question means this one.
    DELETE FROM pgml_tune.sql_example AS e
    WHERE e.normal_question = example ->> 'normal_question' AND e.search_path = pgml_tune._path_text(
            ARRAY(SELECT s.name FROM jsonb_array_elements_text(example -> 'path') WITH ORDINALITY AS s (name, place) ORDER BY s.place)
        )
      AND e.model IS NOT DISTINCT FROM example ->> 'model' AND e.created_by = v_role;
    EXECUTE format(
        'INSERT INTO pgml_tune.sql_example
             (question, normal_question, sql, search_path, relations, model, embedding, space_id, created_by)
         SELECT $1 ->> ''question'', $1 ->> ''normal_question'', $1 ->> ''sql'', pgml_tune._path_text(
                    ARRAY(SELECT s.name FROM jsonb_array_elements_text($1 -> ''path'') WITH ORDINALITY AS s (name, place) ORDER BY s.place)
                ), $1 -> ''relations'', $1 ->> ''model'', ($1 ->> ''vector'')::%s.vector, v.space_id, $2
         FROM (VALUES (($1 ->> ''model_version_id'')::bigint)) AS x (model_version_id)
         LEFT JOIN pgml_tune.model_version AS v ON v.model_version_id = x.model_version_id
         RETURNING sql_example_id',
        pgml_tune._vector_schema()
    ) INTO v_id USING example, v_role;
    RETURN v_id;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_sql_example(jsonb) IS
    'Keeps a verified example of a role in place of the one it has given for the same question; its number.';

-- What is kept answers others: that it was checked, and as whom, is proved by a seal that only add_sql_example() can make.
CREATE OR REPLACE FUNCTION pgml_tune._keep_sql_example(example text, seal bytea)
RETURNS bigint
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.keep_sql_example(example, seal)
$python$;
COMMENT ON FUNCTION pgml_tune._keep_sql_example(text, bytea) IS 'Keeps a verified example that add_sql_example() has checked and sealed; its number.';

CREATE OR REPLACE FUNCTION pgml_tune._write_sql_vectors(ids bigint[], vectors text[], model_version_id bigint)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_kept integer;
BEGIN
    EXECUTE format(
        'UPDATE pgml_tune.sql_example AS e SET embedding = x.question_vector::%s.vector, space_id = v.space_id
         FROM unnest($1, $2) AS x (id, question_vector), pgml_tune.model_version AS v
         WHERE e.sql_example_id = x.id AND v.model_version_id = $3',
        pgml_tune._vector_schema()
    ) USING ids, vectors, model_version_id;
    GET DIAGNOSTICS v_kept = ROW_COUNT;
    RETURN v_kept;
END
$$;
COMMENT ON FUNCTION pgml_tune._write_sql_vectors(bigint[], text[], bigint) IS 'Keeps vectors of questions of verified examples; of how many.';

-- Runs as its owner: whoever maintains may not read all questions, and gets none of them from it.
CREATE OR REPLACE FUNCTION pgml_tune._embed_sql_examples()
RETURNS integer
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.embed_sql_examples()
$python$;
COMMENT ON FUNCTION pgml_tune._embed_sql_examples() IS
    'Embeds questions of verified examples that have no vector of the default embedding model, a few hundred at a time; how many.';

-- No SET clause: the SQL is the caller's own and finds its names as he does.
CREATE OR REPLACE FUNCTION @extschema@.add_sql_example(question text, sql text, model text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE  -- not STRICT: model may be NULL
AS $python$
from pgml_tune.backend import sql_examples
return sql_examples.add_sql_example(question, sql, model)
$python$;
COMMENT ON FUNCTION @extschema@.add_sql_example(text, text, text) IS
    'Keeps SQL as the right answer to a question, for text_to_sql() to give when it is asked again and for models to train on; checked as if text_to_sql() had written it. Returns its number.';

CREATE OR REPLACE FUNCTION @extschema@.drop_sql_example(sql_example_id bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgml_tune._own_sql_examples AS e WHERE e.sql_example_id = drop_sql_example.sql_example_id;
    IF FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM pgml_tune.sql_examples AS e WHERE e.sql_example_id = drop_sql_example.sql_example_id
    ) THEN
        RAISE EXCEPTION 'example % is of another role', sql_example_id
            USING ERRCODE = '42501', DETAIL = 'Whoever has added it may drop it, and an administrator.';
    END IF;
    RAISE EXCEPTION 'example % does not exist', coalesce(sql_example_id::text, 'NULL')
        USING ERRCODE = '42704', HINT = 'SELECT sql_example_id, question FROM pgml_tune.sql_examples';
END
$$;
COMMENT ON FUNCTION @extschema@.drop_sql_example(bigint) IS 'Forgets a verified example; one of another role only for an administrator.';
