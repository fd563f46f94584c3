-- Questions to SQL where no model writes any: what is kept, checked, queued and refused.
SET client_min_messages = warning;
SELECT configure('auto_start_worker', 'off');
CREATE SCHEMA shop;
SET search_path = shop, public;
CREATE TABLE customer (customer_id integer PRIMARY KEY, name text, city text);
INSERT INTO customer VALUES (1, 'Ann', 'Berlin'), (2, 'Bruno', 'Oslo'), (3, 'Clara', 'Oslo');

-- Verified examples, by the path by which they are right; one's own answer to the same question is replaced.
SELECT add_sql_example('How many customers live in Oslo?', 'SELECT count(*) FROM customer') > 0 AS added;
SELECT add_sql_example('how many  CUSTOMERS live in oslo', $$SELECT count(*) FROM customer WHERE city = 'Oslo';$$) > 0 AS added;
SELECT add_sql_example('奥斯陆有多少客户？', $$SELECT count(*) FROM customer WHERE city = 'Oslo'$$) > 0 AS added;
SELECT question, sql, search_path, model, is_readable, is_embedded FROM pgml_tune.sql_examples ORDER BY sql_example_id;
SELECT question, sql, schema, origin, model FROM pgml_tune.sql_training_rows ORDER BY question COLLATE "C";

-- What text_to_sql() could not give is not kept.
\set VERBOSITY sqlstate
SELECT add_sql_example('how many customers', 'DELETE FROM customer');
SELECT add_sql_example('how many customers', 'SELECT count(*) FROM customer; SELECT 1');
SELECT add_sql_example('how many customers', 'SELECT count(*) FROM client');
SELECT add_sql_example('how many customers', 'SELECT pg_sleep(1)');
SELECT add_sql_example('how many customers', NULL);
SELECT add_sql_example('?', 'SELECT 1');
SELECT add_sql_example('one', 'SELECT 1', 'nothere');
SELECT add_sql_example('one', 'SELECT 1', 'minilm');
SELECT drop_sql_example(0);
\set VERBOSITY default

ALTER TABLE customer RENAME TO client;
SELECT question, sql, is_readable FROM pgml_tune.sql_examples;
SELECT count(*) FROM pgml_tune.sql_training_rows;
SELECT drop_sql_example(sql_example_id) FROM pgml_tune.sql_examples;
SELECT count(*) FROM pgml_tune.sql_examples;

-- Without a model there is no answer.
\set VERBOSITY sqlstate
SELECT text_to_sql('how many clients');
SELECT text_to_sql('how many clients', 'nothere');
SELECT text_to_sql('how many clients', 'minilm');
SELECT * FROM text_to_sql_candidates('how many clients');
SELECT text_to_sql('');
SELECT text_to_sql('how many clients', tables => '{}');
SELECT ask('how many clients');
BEGIN READ ONLY;
SELECT text_to_sql('how many clients');
ROLLBACK;
\set VERBOSITY default
SELECT text_to_sql(NULL) IS NULL AS is_null;

-- One is trained on rows of questions and SQL.
CALL finetune_text_to_sql('asker', $$SELECT 'who has number ' || g AS question, 'SELECT name FROM client WHERE customer_id = ' || g AS sql
    FROM generate_series(1, 20) AS g$$, options => '{"base": "scratch:tiny"}') \gset
SELECT kind, model, state FROM pgml_tune.jobs WHERE job_id = :job_id;
SELECT part, shape FROM pgml_tune.job_part WHERE job_id = :job_id ORDER BY part;
SELECT cancel_job(:job_id);
\set VERBOSITY sqlstate
CALL finetune_text_to_sql('asker', 'SELECT 1 AS question, 2 AS sql');
CALL finetune_text_to_sql('asker', $$SELECT 'a' || g AS question, 'SELECT 1' AS sql FROM generate_series(1, 20) AS g$$, options => '{"base": "scratch:huge"}');
CALL finetune_text_to_sql('minilm', $$SELECT 'a' || g AS question, 'SELECT 1' AS sql FROM generate_series(1, 20) AS g$$);
\set VERBOSITY default

DROP SCHEMA shop CASCADE;
RESET search_path;
SELECT configure('auto_start_worker', NULL);
