-- Search over text that every server has, the descriptions of its own functions, operators, types and tables; and training on it.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset linestyle unicode
\pset border 1
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DO $$
DECLARE
    v_model text;
BEGIN
    -- An earlier demo may have been left in the middle of its rollout.
    LOOP
        SELECT t.model INTO v_model
        FROM pgml_tune.traffic AS t
        JOIN pgml_tune.model_versions AS v ON v.model = t.model AND v.version IN (t.serving_version, t.candidate_version)
        WHERE v.source #>> '{made_by,parameters,description}' = 'made by the demo';
        EXIT WHEN NOT FOUND;
        PERFORM rollback_model(v_model, 'a new demo begins');
    END LOOP;
END
$$;
CALL rollout_tick();
DROP SCHEMA IF EXISTS demo CASCADE;
CALL maintain();
DO $$
BEGIN
    -- What an earlier demo has trained; those made from others go first.
    PERFORM drop_model_version(v.model, v.version)
    FROM (SELECT * FROM pgml_tune.model_versions WHERE source #>> '{made_by,parameters,description}' = 'made by the demo'
          ORDER BY created_at DESC) AS v;
END
$$;
CALL maintain();
CREATE SCHEMA demo;
SET search_path = demo, public;
RESET client_min_messages;

\echo
\echo '1. A table of what this server says about itself, from pg_description'
\set ECHO queries
CREATE TABLE manual (
    manual_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object text NOT NULL,
    kind text NOT NULL,
    description text NOT NULL
);
\set ECHO none
INSERT INTO manual (object, kind, description)
SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid), (pg_identify_object(d.classoid, d.objoid, d.objsubid)).type,
       pg_describe_object(d.classoid, d.objoid, d.objsubid) || ': ' || d.description
FROM pg_description AS d
-- Not the 800 names of languages: so many texts that are nearly the same.
WHERE d.classoid <> 'pg_collation'::regclass;
SELECT count(*) AS rows, pg_size_pretty(sum(octet_length(description))) AS text FROM manual;

\echo '2. One statement makes a column searchable, and keeps it so'
\set ECHO queries
\timing on
CALL auto_embed('manual', 'description', options => '{"index": "hnsw"}');
\timing off
\set ECHO none

\echo
\echo '3. Questions in plain words'
\set ECHO queries
SELECT q.question, left(s.document ->> 'object', 38) AS object, round(s.distance::numeric, 2) AS distance
FROM (VALUES
    (1, 'remove spaces from both ends of a string'),
    (2, 'read one field of a JSON document'),
    (3, 'which sessions are waiting for a lock'),
    (4, 'turn a list into rows'),
    (5, 'kill a running query')
) AS q(number, question)
CROSS JOIN LATERAL semantic_search('demo.manual.description', q.question, 3) AS s
ORDER BY q.number, s.distance;

SELECT document ->> 'object' AS operator FROM semantic_search('demo.manual.description', 'is inside of', 3, '{"kind": "operator"}');
\set ECHO none

\echo '4. What is written is searchable at once, whoever writes it'
\set ECHO queries
INSERT INTO manual (object, kind, description) VALUES
    ('INC-48213', 'ticket', 'INC-48213: the lift is stuck on the third floor'),
    ('INC-48231', 'ticket', 'INC-48231: the coffee machine is out of order'),
    ('INC-41823', 'ticket', 'INC-41823: the invoice of March was paid twice');
UPDATE manual SET description = 'INC-48231: the coffee machine works again' WHERE object = 'INC-48231';
SELECT document ->> 'description' AS found FROM semantic_search('demo.manual.description', 'refund for a double payment', 1);

SELECT rows, embedded, is_complete, index_state, pg_size_pretty(bytes) AS size, version
FROM pgml_tune.embedding_collections WHERE collection = 'demo.manual.description';
\set ECHO none

\echo '5. Words beside the meaning: names, numbers and rare words count as well'
\set ECHO queries
SELECT round(score::numeric, 4) AS score, left(document ->> 'description', 60) AS found
FROM hybrid_search('demo.manual.description', 'INC-48231', 3);
\set ECHO none

\echo '6. Queries of your own, with a view and a query function beside the table'
\set ECHO queries
SELECT m.kind, left(e.description, 60) AS description
FROM manual_description_embedding AS e JOIN manual AS m USING (manual_id)
WHERE m.kind <> 'function'
ORDER BY e.embedding <=> manual_description_query('compare two texts') LIMIT 3;
\set ECHO none

\echo '7. Any text, anywhere: embed() is a function, and the same text again comes out of the cache'
SELECT 'a text that was never seen before: ' || gen_random_uuid() AS new_text \gset
\set ECHO queries
\timing on
SELECT vector_dims(embed(:'new_text'));
SELECT vector_dims(embed(:'new_text'));
\timing off
\set ECHO none

\echo
\echo '8. A model of your own: trained on descriptions of functions and their names, measured on names it has not seen'
\set ECHO queries
CREATE VIEW lesson AS
SELECT DISTINCT ON (d.description)
       d.description AS question, p.proname::text AS answer, hashtext(p.proname) % 4 = 0 AS is_test
FROM pg_proc AS p
JOIN pg_description AS d ON d.classoid = 'pg_proc'::regclass AND d.objoid = p.oid
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND d.description !~ '^(implementation of|I/O|internal)'
ORDER BY d.description, p.proname;

SELECT question, answer FROM lesson WHERE is_test ORDER BY md5(question) LIMIT 3;

CALL finetune_sbert('minilm', 'SELECT question, answer FROM lesson WHERE NOT is_test',
    eval_query => 'SELECT question, answer FROM lesson WHERE is_test',
    options => '{"description": "made by the demo"}') \gset training_
\set ECHO none
SELECT result #>> '{versions,0}' AS trained FROM pgml_tune.jobs WHERE job_id = :training_job_id \gset
\set ECHO queries
CALL quantize_model(:'trained', 'int8_dynamic', options => '{"description": "made by the demo"}') \gset shrinking_

SELECT e.model || '@' || e.version AS version,
       round(max(e.metric_value) FILTER (WHERE e.metric = 'ndcg@10')::numeric, 2) AS "ndcg@10",
       round(max(e.metric_value) FILTER (WHERE e.metric = 'latency_ms')::numeric, 2) AS latency_ms,
       pg_size_pretty(max(e.metric_value) FILTER (WHERE e.metric = 'bytes')::bigint) AS size
FROM pgml_tune.evaluations AS e WHERE e.job_id IN (:training_job_id, :shrinking_job_id)
GROUP BY 1 ORDER BY 1;

SELECT jsonb_pretty(model_card('minilm', split_part(:'trained', '@', 2)) -> 'lineage' #- '{made_by,parameters}') AS "its card says";
\set ECHO none

\echo '9. It takes over: vectors of it beside those in use, then a share of the searches, and a report'
SELECT split_part(:'trained', '@', 2) AS version \gset
\set ECHO queries
CALL prepare_rollout('minilm', :'version');

SELECT r ->> 'from_version' AS serving, r ->> 'to_version' AS candidate, r ->> 'percent' AS percent, r ->> 'state' AS state,
       r ->> 'units_needed' AS "questions to be sure"
FROM rollout_model('minilm', :'version', 20) AS r;

SELECT count(*) AS rows_found
FROM (SELECT question FROM lesson WHERE is_test ORDER BY md5(question) LIMIT 400) AS q
CROSS JOIN LATERAL semantic_search('demo.manual.description', q.question, 3);

CALL rollout_tick();

SELECT metric, round(serving_value::numeric, 2) AS serving, round(candidate_value::numeric, 2) AS candidate, outcome
FROM ab_report('minilm') WHERE phase = 1 AND candidate_value IS NOT NULL;
\set ECHO none

\echo '10. Promoted, all searches are its own; and back again, whatever the size of the table'
\set ECHO queries
SELECT r ->> 'state' AS state, r ->> 'searches_ms' AS searches_ms, r ->> 'embed_ms' AS embed_ms FROM rollout_model('minilm', :'version') AS r;

\timing on
SELECT rollback_model('minilm', 'only a demo');
\timing off

SELECT to_char(changed_at, 'HH24:MI:SS') AS at, kind, from_target, to_target, reason
FROM pgml_tune.rollout_history WHERE pointer = 'minilm' ORDER BY rollout_history_id DESC LIMIT 6;
\set ECHO none

\echo '11. A wrong name is an error that says what to do'
\set ON_ERROR_STOP off
\set ECHO queries
SELECT embed('hello', 'minlim');
\set ECHO none
