-- Semantic search over text that every server has: the descriptions of its own functions, operators, types and tables.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset linestyle unicode
\pset border 1
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS demo CASCADE;
CREATE SCHEMA demo;
SET search_path = demo, public;
RESET client_min_messages;

\echo
\echo '1. A table of what this server says about itself, from pg_description'
\set ECHO queries
CREATE TABLE manual (
    manual_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object text NOT NULL,
    description text NOT NULL,
    embedding vector(384)
);
\set ECHO none
INSERT INTO manual (object, description)
SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description
FROM pg_description AS d
-- Not the 800 names of languages: so many vectors that are nearly the same can trap a search of the index.
WHERE d.classoid <> 'pg_collation'::regclass;
SELECT count(*) AS rows, pg_size_pretty(sum(octet_length(description))) AS text FROM manual;

\echo '2. embed(), 500 rows a call (a second run takes them from the cache)'
\set ECHO queries
\timing on
DO $$
DECLARE
    v_total bigint := (SELECT count(*) FROM manual);
BEGIN
    FOR v_first IN 1 .. v_total BY 500 LOOP
        WITH part AS (
            SELECT array_agg(m.manual_id) AS ids, array_agg(m.object || ': ' || m.description) AS texts
            FROM manual AS m
            WHERE m.manual_id BETWEEN v_first AND v_first + 499
        )
        UPDATE manual AS m
        SET embedding = e.embedding
        FROM part, unnest(part.ids, embed(part.texts)) AS e(manual_id, embedding)
        WHERE m.manual_id = e.manual_id;
        RAISE INFO '% of % embedded', least(v_first + 499, v_total), v_total;
    END LOOP;
END
$$;
CREATE INDEX ON manual USING hnsw (embedding vector_cosine_ops);
\timing off
\set ECHO none
ANALYZE manual;

\echo
\echo '3. Questions in plain words'
\set ECHO queries
SELECT q.question, left(a.object, 40) AS object, left(a.description, 48) AS description
FROM (VALUES
    (1, 'remove spaces from both ends of a string'),
    (2, 'read one field of a JSON document'),
    (3, 'which sessions are waiting for a lock'),
    (4, 'turn a list into rows'),
    (5, 'kill a running query')
) AS q(number, question)
CROSS JOIN LATERAL (
    SELECT m.object, m.description
    FROM manual AS m
    ORDER BY m.embedding <=> embed(q.question, kind => 'query')
    LIMIT 3
) AS a
ORDER BY q.number;

EXPLAIN (COSTS OFF)
SELECT object FROM manual ORDER BY embedding <=> embed('remove spaces', kind => 'query') LIMIT 3;
\set ECHO none

\echo '4. A trigger of your own: a row is searchable as soon as it is there'
\set ECHO queries
CREATE TABLE note (content text NOT NULL, embedding vector(384) NOT NULL);

CREATE FUNCTION note_embed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.embedding := embed(NEW.content, 'minilm@v1');
    RETURN NEW;
END
$$;

CREATE TRIGGER note_embed BEFORE INSERT OR UPDATE OF content ON note
FOR EACH ROW EXECUTE FUNCTION note_embed();

INSERT INTO note (content) VALUES
    ('The invoice of March was paid twice.'),
    ('Our printer on the second floor is out of toner.'),
    ('Please reset my password, I cannot sign in.');

SELECT content FROM note ORDER BY embedding <=> embed('refund for a double payment', 'minilm@v1', 'query') LIMIT 1;
\set ECHO none

\echo '5. The same text again comes out of the cache'
-- The model is in memory now, even if every text above came out of the cache.
DO $$ BEGIN PERFORM embed(gen_random_uuid()::text); END $$;
SELECT 'a text that was never seen before: ' || gen_random_uuid() AS new_text \gset
\set ECHO queries
\timing on
SELECT vector_dims(embed(:'new_text'));
SELECT vector_dims(embed(:'new_text'));
\timing off
\set ECHO none

\echo
\echo '6. A wrong name is an error that says what to do'
\set ON_ERROR_STOP off
\set ECHO queries
SELECT embed('hello', 'minlim');
\set ECHO none
