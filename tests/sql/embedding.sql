-- embed() and its kin, with the model that tests/sql/registry.sql registered.
SELECT vector_dims(embed('a cat sits on the mat')) AS dimensions,
       round(vector_norm(embed('a cat sits on the mat'))::numeric, 4) AS norm;
SELECT round(semantic_similarity('cheap flights', 'low cost airfare')::numeric, 2) AS near,
       round(semantic_similarity('cheap flights', 'tax law')::numeric, 2) AS far,
       round(semantic_similarity('same', 'same')::numeric, 4) AS same;

-- One text, one vector: whichever function, whichever way the version is named, alone or in an array.
SELECT embed('text') = embed('text', 'minilm') AS by_name,
       embed('text') = embed('text', 'minilm@v1') AS by_version,
       embed('text') = embed_pinned('text', 'minilm', 'v1') AS pinned,
       embed('text') = embed('text', kind => 'query') AS query,
       embed('text') <=> (embed(ARRAY['other', 'text']))[2] < 1e-6 AS in_array;
SELECT embed('text', 'minilm@v1-int8') <=> embed('text') < 0.05 AS int8_is_near;

-- NULL in, NULL out; the empty text is a text.
SELECT embed(NULL::text) IS NULL AS text, embed(NULL::text[]) IS NULL AS array, embed_pinned(NULL, 'minilm', 'v1') IS NULL AS pinned,
       semantic_similarity(NULL, 'a') IS NULL AS similarity, token_count(NULL) IS NULL AS tokens;
SELECT vector_dims(embed('')) AS empty, vector_dims(embed(E' \n\t')) AS blank;
SELECT v IS NULL AS is_null FROM unnest(embed(ARRAY['a', NULL, 'b', ''])) AS v;
SELECT embed('{}'::text[]) = '{}' AS empty_array;
SELECT cardinality(embed('[0:1]={a,b}'::text[])) AS other_bounds;

SELECT token_count('hello world') AS tokens, token_count(repeat('word ', 1000)) AS long;
-- Beyond 256 tokens the text is cut, and counted.
SELECT embed(repeat('word ', 1000)) = embed(repeat('word ', 2000)) AS is_cut;
SELECT cardinality(embed(ARRAY[repeat('long ', 1000), 'short'])) AS texts;
SELECT configure('long_input', 'error');
\set VERBOSITY sqlstate
SELECT embed(repeat('word ', 1000));
\set VERBOSITY default
SELECT configure('long_input', NULL);

SELECT last_call_id() IS NOT NULL AS has_id;
SELECT last_call_id() AS before \gset
SELECT embed('another call') IS NOT NULL AS called;
SELECT last_call_id() = :before + 1 AS next_id;

\set VERBOSITY sqlstate
-- missing
SELECT embed('text', 'nomodel');
SELECT embed('text', 'minilm@v9');
SELECT embed_pinned('text', 'minilm', 'v9');
-- invalid
SELECT embed('text', '');
SELECT embed('text', 'minilm@../v1');
SELECT embed('text', kind => 'poem');
SELECT embed('text', kind => NULL);
SELECT embed_pinned('text', 'minilm@v1', 'v1');
SELECT embed(ARRAY[ARRAY['a', 'b'], ARRAY['c', 'd']]);
SET pgml_tune.cache = 'sometimes';
SELECT embed('text');
RESET pgml_tune.cache;
-- too large
SELECT embed(repeat('x', 1048577));
SELECT embed(array_fill('x'::text, ARRAY[50001]));
-- PostgreSQL refuses what would go stale when the model changes.
CREATE TABLE document (body text, embedding vector(384) GENERATED ALWAYS AS (embed(body)) STORED);
\set VERBOSITY default

-- The pinned form is immutable: generated columns, indexes and CHECKs may use it.
CREATE TABLE document (
    document_id integer PRIMARY KEY,
    body text,
    embedding vector(384) GENERATED ALWAYS AS (embed_pinned(body, 'minilm', 'v1')) STORED,
    CONSTRAINT document_body_check CHECK (vector_dims(embed_pinned(body, 'minilm', 'v1')) = 384)
);
INSERT INTO document VALUES
    (1, 'The train leaves at noon.'), (2, 'Cats sleep most of the day.'), (3, 'Interest rates were raised again.'), (4, NULL);
CREATE INDEX document_embedding_idx ON document USING hnsw (embedding vector_cosine_ops);
SELECT document_id, body FROM document
WHERE embedding IS NOT NULL ORDER BY embedding <=> embed('a nap of a pet', kind => 'query') LIMIT 1;

-- The index serves a query whose vector comes from embed(), because embed() is stable.
SET enable_seqscan = off;
EXPLAIN (COSTS off)
SELECT document_id FROM document ORDER BY embedding <=> embed('q', kind => 'query') LIMIT 10;
RESET enable_seqscan;
DROP TABLE document;
