-- Search over text that every server has, the descriptions of its own functions, operators, types and tables; training on it;
-- and questions about a small shop that become SQL.
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
        WHERE v.source #>> '{made_by,parameters,description}' = 'made by the demo' AND t.model <> 'demo_shop';
        EXIT WHEN NOT FOUND;
        PERFORM rollback_model(v_model, 'a new demo begins');
    END LOOP;
END
$$;
CALL rollout_tick();
SELECT drop_sql_example(sql_example_id) FROM pgml_tune.sql_examples WHERE search_path = 'demo_shop, public' \g /dev/null
DROP SCHEMA IF EXISTS demo, demo_shop CASCADE;
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

\echo '11. Questions become SQL. A small shop, and what can be asked about it, in English and in Chinese, in five ways each'
CREATE SCHEMA demo_shop;
SET search_path = demo_shop, public;
\set ECHO queries
CREATE TABLE customer (customer_id integer PRIMARY KEY, name text NOT NULL, city text NOT NULL, joined_on date NOT NULL);
CREATE TABLE product (product_id integer PRIMARY KEY, name text NOT NULL, category text NOT NULL, price numeric(8, 2) NOT NULL);
CREATE TABLE purchase (
    purchase_id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customer, product_id integer NOT NULL REFERENCES product,
    quantity integer NOT NULL, bought_on date NOT NULL
);
CREATE TABLE employee (employee_id integer PRIMARY KEY, name text NOT NULL, salary numeric(8, 2) NOT NULL);
\set ECHO none
-- Names as the data has them, and as they are called in Chinese.
CREATE TABLE demo.word (slot text, value text, chinese text);
INSERT INTO demo.word VALUES
    ('city', 'Berlin', '柏林'), ('city', 'Hamburg', '汉堡'), ('city', 'Vienna', '维也纳'), ('city', 'Lisbon', '里斯本'),
    ('city', 'Oslo', '奥斯陆'), ('city', 'Madrid', '马德里'), ('city', 'Prague', '布拉格'), ('city', 'Athens', '雅典'),
    ('category', 'books', '图书'), ('category', 'garden', '园艺'), ('category', 'kitchen', '厨房'), ('category', 'toys', '玩具'),
    ('category', 'music', '音乐'),
    ('product', 'atlas', '地图册'), ('product', 'cookbook', '食谱'), ('product', 'novel', '小说'), ('product', 'rake', '耙子'),
    ('product', 'hose', '软管'), ('product', 'spade', '铲子'), ('product', 'kettle', '水壶'), ('product', 'frying pan', '平底锅'),
    ('product', 'teapot', '茶壶'), ('product', 'kite', '风筝'), ('product', 'puzzle', '拼图'), ('product', 'marbles', '弹珠'),
    ('product', 'guitar', '吉他'), ('product', 'flute', '长笛'), ('product', 'violin', '小提琴'),
    ('year', '2023', '2023'), ('year', '2024', '2024'), ('year', '2025', '2025'),
    ('number', '10', '10'), ('number', '25', '25'), ('number', '40', '40'), ('number', '60', '60'), ('number', '99', '99'),
    ('few', '3', '3'), ('few', '5', '5'), ('few', '7', '7');
INSERT INTO customer
SELECT g, (ARRAY['Ann', 'Bruno', 'Clara', 'David', 'Elif', 'Farid', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kaya', 'Lena', 'Mateo', 'Nora',
                 'Oscar', 'Petra', 'Quinn', 'Rosa', 'Sven', 'Tara', 'Umar', 'Vera', 'Wanda', 'Xenia'])[g],
       w.value, date '2022-01-10' + g * 53
FROM generate_series(1, 24) AS g
JOIN (SELECT value, row_number() OVER (ORDER BY value) AS place FROM demo.word WHERE slot = 'city') AS w ON w.place = 1 + (g * 3 + g / 8) % 8;
INSERT INTO demo.word SELECT 'name', name, name FROM customer WHERE customer_id % 2 = 0;
INSERT INTO product
SELECT row_number() OVER (), w.value, c.value, 4.5 + (row_number() OVER ()) * 37 % 90
FROM (SELECT value, row_number() OVER () - 1 AS place FROM demo.word WHERE slot = 'product') AS w
JOIN (SELECT value, row_number() OVER () - 1 AS place FROM demo.word WHERE slot = 'category') AS c ON c.place = w.place / 3;
INSERT INTO purchase
SELECT g, 1 + g * 5 % 21, 1 + g * 7 % 15, 1 + g % 3, date '2023-01-05' + g * 3 FROM generate_series(1, 340) AS g;
INSERT INTO employee
SELECT g, (ARRAY['Yusuf', 'Zoe', 'Arne', 'Bela', 'Cem', 'Dora'])[g], 2900 + g * 350 FROM generate_series(1, 6) AS g;
-- What can be asked, in several ways, and its SQL.
CREATE TABLE demo.template (questions text[], sql text);
INSERT INTO demo.template VALUES
(ARRAY['how many customers are there', 'how many customers do we have', 'count the customers', '有多少客户', '客户总数是多少'],
 'SELECT count(*) FROM customer'),
(ARRAY['how many customers live in {city}', 'how many customers come from {city}', 'number of customers in {city}', '{city}有多少客户', '来自{city}的客户有多少'],
 'SELECT count(*) FROM customer WHERE city = ''{city}'''),
(ARRAY['which customers live in {city}', 'who lives in {city}', 'names of the customers in {city}', '{city}有哪些客户', '列出{city}的客户'],
 'SELECT name FROM customer WHERE city = ''{city}'' ORDER BY name'),
(ARRAY['how many customers are there in each city', 'customers per city', 'number of customers by city', '每个城市有多少客户', '各城市的客户数量'],
 'SELECT city, count(*) FROM customer GROUP BY city ORDER BY city'),
(ARRAY['where does {name} live', 'in which city does {name} live', 'city of {name}', '{name}住在哪里', '{name}住在哪个城市'],
 'SELECT city FROM customer WHERE name = ''{name}'''),
(ARRAY['which customers joined after {year}', 'customers who joined after {year}', 'who has joined since the end of {year}', '{year}年之后注册的客户', '哪些客户在{year}年以后注册'],
 'SELECT name FROM customer WHERE extract(year FROM joined_on) > {year} ORDER BY name'),
(ARRAY['which customers joined before {year}', 'customers who joined before {year}', 'who had joined by the beginning of {year}', '{year}年之前注册的客户', '哪些客户在{year}年以前注册'],
 'SELECT name FROM customer WHERE extract(year FROM joined_on) < {year} ORDER BY name'),
(ARRAY['how many products do we sell', 'how many products are there', 'number of products', '有多少产品', '产品总数是多少'],
 'SELECT count(*) FROM product'),
(ARRAY['which products are in {category}', 'which {category} products do we sell', 'list the products of category {category}', '{category}类有哪些产品', '列出{category}类的产品'],
 'SELECT name FROM product WHERE category = ''{category}'' ORDER BY name'),
(ARRAY['how many products are in {category}', 'how many {category} products do we sell', 'number of products of category {category}', '{category}类有多少产品', '{category}类产品的数量'],
 'SELECT count(*) FROM product WHERE category = ''{category}'''),
(ARRAY['what is the average price in {category}', 'average price of {category} products', 'what do {category} products cost on average', '{category}类的平均价格', '{category}类产品平均多少钱'],
 'SELECT avg(price) FROM product WHERE category = ''{category}'''),
(ARRAY['what is the cheapest product in {category}', 'cheapest {category} product', 'which {category} product costs least', '{category}类最便宜的产品', '{category}类里哪个产品最便宜'],
 'SELECT name FROM product WHERE category = ''{category}'' ORDER BY price LIMIT 1'),
(ARRAY['what is the most expensive product in {category}', 'most expensive {category} product', 'which {category} product costs most', '{category}类最贵的产品', '{category}类里哪个产品最贵'],
 'SELECT name FROM product WHERE category = ''{category}'' ORDER BY price DESC LIMIT 1'),
(ARRAY['what does the {product} cost', 'price of the {product}', 'how much is the {product}', '{product}多少钱', '{product}的价格是多少'],
 'SELECT price FROM product WHERE name = ''{product}'''),
(ARRAY['which products cost less than {number} euros', 'products cheaper than {number} euros', 'products under {number} euros', '价格低于{number}的产品', '哪些产品不到{number}欧元'],
 'SELECT name FROM product WHERE price < {number} ORDER BY price'),
(ARRAY['which products cost more than {number} euros', 'products more expensive than {number} euros', 'products over {number} euros', '价格高于{number}的产品', '哪些产品超过{number}欧元'],
 'SELECT name FROM product WHERE price > {number} ORDER BY price'),
(ARRAY['how often was the {product} bought', 'how many pieces of the {product} were sold', 'number of sales of the {product}', '{product}卖出了多少件', '{product}的销量是多少'],
 'SELECT sum(u.quantity) FROM purchase AS u JOIN product AS p USING (product_id) WHERE p.name = ''{product}'''),
(ARRAY['who has bought the {product}', 'which customers bought the {product}', 'customers who have bought the {product}', '谁买过{product}', '哪些客户买过{product}'],
 'SELECT DISTINCT c.name FROM customer AS c JOIN purchase AS u USING (customer_id) JOIN product AS p USING (product_id) WHERE p.name = ''{product}'' ORDER BY c.name'),
(ARRAY['what has {name} bought', 'which products did {name} buy', 'products bought by {name}', '{name}买过什么', '{name}买了哪些产品'],
 'SELECT DISTINCT p.name FROM customer AS c JOIN purchase AS u USING (customer_id) JOIN product AS p USING (product_id) WHERE c.name = ''{name}'' ORDER BY p.name'),
(ARRAY['what is our revenue', 'total revenue', 'how much did we sell in all', '总销售额是多少', '我们一共卖了多少钱'],
 'SELECT sum(u.quantity * p.price) FROM purchase AS u JOIN product AS p USING (product_id)'),
(ARRAY['what is our revenue in {category}', 'revenue of {category} products', 'how much did we sell in {category}', '{category}类的销售额', '{category}类卖了多少钱'],
 'SELECT sum(u.quantity * p.price) FROM purchase AS u JOIN product AS p USING (product_id) WHERE p.category = ''{category}'''),
(ARRAY['revenue from customers in {city}', 'how much do customers from {city} spend', 'what is our revenue in {city}', '{city}客户的消费总额', '{city}的销售额是多少'],
 'SELECT sum(u.quantity * p.price) FROM purchase AS u JOIN product AS p USING (product_id) JOIN customer AS c USING (customer_id) WHERE c.city = ''{city}'''),
(ARRAY['what was our revenue in {year}', 'revenue of {year}', 'how much did we sell in {year}', '{year}年的销售额', '{year}年卖了多少钱'],
 'SELECT sum(u.quantity * p.price) FROM purchase AS u JOIN product AS p USING (product_id) WHERE extract(year FROM u.bought_on) = {year}'),
(ARRAY['revenue by category', 'what is our revenue in each category', 'revenue per category', '各类别的销售额', '每个类别卖了多少钱'],
 'SELECT p.category, sum(u.quantity * p.price) FROM purchase AS u JOIN product AS p USING (product_id) GROUP BY p.category ORDER BY p.category'),
(ARRAY['how many purchases were made in {year}', 'number of purchases in {year}', 'purchases of {year}', '{year}年有多少次购买', '{year}年的购买次数'],
 'SELECT count(*) FROM purchase WHERE extract(year FROM bought_on) = {year}'),
(ARRAY['which {few} customers spend most', 'top {few} customers by revenue', 'the {few} best customers', '消费最多的{few}位客户', '消费总额前{few}名的客户'],
 'SELECT c.name FROM customer AS c JOIN purchase AS u USING (customer_id) JOIN product AS p USING (product_id) GROUP BY c.name ORDER BY sum(u.quantity * p.price) DESC LIMIT {few}'),
(ARRAY['which {few} products sell best', 'top {few} products', 'the {few} products sold most', '销量最高的{few}个产品', '卖得最好的{few}个产品'],
 'SELECT p.name FROM purchase AS u JOIN product AS p USING (product_id) GROUP BY p.name ORDER BY sum(u.quantity) DESC LIMIT {few}'),
(ARRAY['which customers have never bought anything', 'customers without a purchase', 'who has bought nothing so far', '哪些客户从未购买', '没有购买记录的客户'],
 'SELECT name FROM customer AS c WHERE NOT EXISTS (SELECT FROM purchase AS u WHERE u.customer_id = c.customer_id) ORDER BY name'),
(ARRAY['how many employees do we have', 'number of employees', 'how many people work here', '有多少员工', '员工总数是多少'],
 'SELECT count(*) FROM employee'),
(ARRAY['what do we pay our employees', 'sum of all salaries', 'what do salaries cost us', '员工工资总额是多少', '工资一共多少钱'],
 'SELECT sum(salary) FROM employee'),
(ARRAY['what is the average salary', 'average salary of our employees', 'how much does an employee earn on average', '平均工资是多少', '员工平均挣多少钱'],
 'SELECT avg(salary) FROM employee'),
(ARRAY['who earns most', 'which employee has the highest salary', 'best paid employee', '谁的工资最高', '工资最高的员工'],
 'SELECT name FROM employee ORDER BY salary DESC LIMIT 1');
CREATE VIEW demo.pair AS
SELECT q.question, p.sql, hashtext(q.question) % 6 = 0 AS is_test
FROM demo.template AS t
LEFT JOIN demo.word AS w ON strpos(t.sql, '{' || w.slot || '}') > 0
CROSS JOIN unnest(t.questions) AS x (question)
CROSS JOIN LATERAL (SELECT replace(x.question, '{' || coalesce(w.slot, '') || '}',
                                   CASE WHEN x.question ~ '[一-龥]' THEN w.chinese ELSE w.value END)) AS s (question)
CROSS JOIN LATERAL (SELECT coalesce(s.question, x.question)) AS q (question)
CROSS JOIN LATERAL (SELECT coalesce(replace(t.sql, '{' || w.slot || '}', w.value), t.sql)) AS p (sql);
ANALYZE customer, product, purchase, employee;
\set ECHO queries
SELECT count(*) AS pairs, count(*) FILTER (WHERE is_test) AS held_out FROM demo.pair;

SELECT question, left(sql, 80) AS sql FROM demo.pair WHERE sql LIKE '%garden%' ORDER BY md5(question) LIMIT 4;

CALL finetune_text_to_sql('demo_shop', 'SELECT question, sql FROM demo.pair WHERE NOT is_test',
    eval_query => 'SELECT question, sql FROM demo.pair WHERE is_test',
    options => '{"base": "scratch:tiny", "learning_rate": 0.002, "max_seconds": 120, "description": "made by the demo"}') \gset sql_training_
\set ECHO none

\echo
\echo '12. A clerk asks, who may read all tables but one. The server checks what the model writes, and runs it as him, read-only; Hamburg is misspelt'
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'demo_clerk') THEN
        CREATE ROLE demo_clerk LOGIN;
    END IF;
END
$$;
SELECT current_user AS owner \gset
\set ECHO queries
SELECT grant_ask('demo_clerk');
GRANT USAGE ON SCHEMA demo_shop TO demo_clerk;
GRANT SELECT ON customer, product, purchase TO demo_clerk;
\set ECHO none
\connect - demo_clerk
SET search_path = demo_shop, public;
\set ON_ERROR_STOP off
\pset tuples_only on
\set ECHO queries
SELECT text_to_sql('How many customers live in Lisbon?', 'demo_shop');
SELECT * FROM ask('How many customers live in Lisbon?', 'demo_shop');
SELECT text_to_sql('What is the cheapest garden product?', 'demo_shop');
SELECT * FROM ask('What is the cheapest garden product?', 'demo_shop');
SELECT text_to_sql('维也纳有多少客户？', 'demo_shop');
SELECT * FROM ask('维也纳有多少客户？', 'demo_shop');
SELECT text_to_sql('How many customers live in Hambrug?', 'demo_shop');
SELECT * FROM ask('How many customers live in Hambrug?', 'demo_shop');
SELECT text_to_sql('音乐类的销售额', 'demo_shop');
SELECT * FROM ask('音乐类的销售额', 'demo_shop');
\pset tuples_only off
\set ECHO none

\echo 'And one that cannot be answered: what he may not read is as if it were not there'
\set ECHO queries
SELECT text_to_sql('What do we pay our employees?', 'demo_shop');
\set ECHO none
\set ON_ERROR_STOP on
\connect - :owner
SET search_path = demo_shop, public;

\echo
\echo '13. An answer that somebody has verified is given at once, however the question is put, and is a row for the next training'
\set ECHO queries
SELECT add_sql_example('Our best customers',
    'SELECT c.name, sum(u.quantity * p.price) AS spent FROM customer AS c JOIN purchase AS u USING (customer_id)
     JOIN product AS p USING (product_id) GROUP BY c.name ORDER BY spent DESC LIMIT 3') IS NOT NULL AS added;

\timing on
SELECT text_to_sql('Please show me our best customers!', 'demo_shop');
\timing off
SELECT question, schema, origin, given_by FROM pgml_tune.sql_training_rows;
\set ECHO none

\echo '14. A wrong name is an error that says what to do'
\set ON_ERROR_STOP off
\set ECHO queries
SELECT embed('hello', 'minlim');
\set ECHO none
