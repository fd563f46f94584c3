-- Text columns kept embedded, and searched, with the model that tests/sql/registry.sql registered.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET default_text_search_config = 'english';

CREATE TABLE note (id integer PRIMARY KEY, topic text, body text);
INSERT INTO note VALUES
    (1, 'money', 'The invoice is due on Friday.'),
    (2, 'home', 'Our cat sleeps all day.'),
    (3, 'money', 'Interest rates rose again.');
CALL auto_embed('note', 'body');
\d note
SELECT key, round(distance::numeric, 3) AS distance, document FROM semantic_search('public.note.body', 'when must I pay?', 2);

-- What is written is followed, in the same transaction.
INSERT INTO note VALUES (4, 'home', 'The dog chases the postman.');
UPDATE note SET body = 'The kitten naps in the sun.' WHERE id = 2;
UPDATE note SET id = 30 WHERE id = 3;
DELETE FROM note WHERE id = 4;
SELECT key FROM semantic_search('public.note.body', 'a pet that is tired', 1);
SELECT key FROM semantic_search('public.note.body', 'central bank', 1);
SELECT count(*) FROM pgml_tune.embedding_1_1;
BEGIN;
TRUNCATE note;
SELECT count(*) FROM semantic_search('public.note.body', 'central bank');
ROLLBACK;
SELECT count(*) FROM semantic_search('public.note.body', 'central bank');

-- Filters, words, and queries of one's own.
SELECT key FROM semantic_search('public.note.body', 'a pet that is tired', 5, '{"topic": "money"}');
SELECT key, round(score::numeric, 5) AS score FROM hybrid_search('public.note.body', 'Friday', 2);
SELECT id, body FROM note_body_embedding ORDER BY embedding <=> note_body_query('a pet that is tired') LIMIT 1;

-- Chunks: the best one counts.
CREATE TABLE book (isbn text, part integer, content varchar NOT NULL, PRIMARY KEY (isbn, part));
INSERT INTO book VALUES
    ('a', 1, 'A cat sleeps on the sofa. ' || repeat('The stock exchange opened higher today. ', 20)),
    ('b', 1, repeat('Rain is expected in the north. ', 20));
CALL auto_embed('book', 'content', 'minilm@v1', 'books', options => '{"chunk_tokens": 16, "chunk_overlap": 4, "storage": "halfvec"}');
SELECT key FROM semantic_search('books', 'sleeping cat');
SELECT count(*) > 10 AS has_chunks FROM book_content_embedding WHERE isbn = 'a';

SELECT collection, source, source_column, model, version, storage, chunk_tokens, text_search, state, index_state, rows, embedded,
       stale, is_complete, embeddings, view_name, query_function
FROM pgml_tune.embedding_collections ORDER BY collection;

-- A column of one's own.
CREATE TABLE plain (body text);
INSERT INTO plain VALUES ('one'), ('two'), (NULL);
CALL embed_table('plain', 'body', 'embedding');
SELECT count(*), count(embedding), min(vector_dims(embedding)) FROM plain;
SELECT source, target_column, model, version, filled_by FROM pgml_tune.tracked_columns;

-- What is refused.
\set VERBOSITY sqlstate
CALL auto_embed('plain', 'body');
CALL auto_embed('note', 'id');
CALL auto_embed('note', 'text');
CALL auto_embed('pg_class', 'relname');
CALL auto_embed('note', 'topic', options => '{"chunks": 5}');
CALL auto_embed('note', 'topic', options => '{"chunk_tokens": 500}');
CALL auto_embed('note', 'topic', mode => 'later');
CALL auto_embed('note', 'topic', 'nobody');
CALL auto_embed('note', 'topic', collection => 'public.other.body');
CALL auto_embed('note', 'body', options => '{"storage": "halfvec"}');
SELECT * FROM semantic_search('nothing', 'x');
SELECT * FROM semantic_search('books', 'x', 0);
SELECT * FROM semantic_search('books', 'x', 10, '{"page": 1}');
SELECT * FROM semantic_search('books', 'x', 10, '[]');
SELECT * FROM hybrid_search('books', 'x', weight => 1.5);
SELECT drop_model_version('minilm', 'v1');
SELECT drop_auto_embed('nothing');
\set VERBOSITY terse

-- The end: the tables stay.
SELECT drop_auto_embed('public.note.body');
SELECT drop_auto_embed('books');
SELECT count(*) FROM pgml_tune.embedding_collections;
\d note
INSERT INTO note VALUES (5, 'home', 'nobody embeds this');
