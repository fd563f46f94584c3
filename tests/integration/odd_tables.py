"""Tables that can be embedded, and all that is no such table; some of them have collections."""

ODD_TABLES = """
CREATE SCHEMA odd;
GRANT USAGE ON SCHEMA odd TO alice;
CREATE TYPE odd.mood AS ENUM ('good', 'bad');
CREATE DOMAIN odd.label AS text CHECK (length(VALUE) < 100);
CREATE TYPE odd.pair AS (a text, b integer);
CREATE TABLE odd.plain (
    id integer PRIMARY KEY, body text, note text, amount numeric, mood odd.mood, facts jsonb, labels text[],
    label odd.label, derived text GENERATED ALWAYS AS (lower(body)) STORED, embedding vector(384), three vector(3),
    loose vector, half halfvec(384)
);
INSERT INTO odd.plain (id, body, note, amount, mood, facts, labels, label)
SELECT g, 'text ' || g, 'n', 1.5, 'good', '{"a": 1}', '{a}', 'label ' || g FROM generate_series(1, 5) AS g;
INSERT INTO odd.plain (id, body) VALUES (6, NULL), (7, '');
GRANT SELECT ON odd.plain TO alice;
CREATE TABLE odd.composite (
    a uuid DEFAULT md5(random()::text)::uuid, "B" text, body text, note text, embedding vector(384),
    PRIMARY KEY (a, "B")
);
INSERT INTO odd.composite ("B", body) VALUES ('x', 'first'), ('y', 'second');
CREATE TABLE odd.parts (id bigint PRIMARY KEY, body text, note text, embedding vector(384)) PARTITION BY RANGE (id);
CREATE TABLE odd.parts_1 PARTITION OF odd.parts FOR VALUES FROM (0) TO (100);
CREATE TABLE odd.parts_2 PARTITION OF odd.parts FOR VALUES FROM (100) TO (200);
INSERT INTO odd.parts VALUES (1, 'left'), (101, 'right');
CREATE UNLOGGED TABLE odd.unlogged (LIKE odd.plain INCLUDING ALL);
INSERT INTO odd.unlogged (id, body) SELECT id, body FROM odd.plain;
CREATE TABLE odd.secured (LIKE odd.plain INCLUDING ALL);
INSERT INTO odd.secured (id, body) SELECT id, body FROM odd.plain;
ALTER TABLE odd.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON odd.secured USING (id < 3);
GRANT SELECT ON odd.secured TO alice;
CREATE TABLE odd."We""ird" ("i d" integer PRIMARY KEY, body text, note text, embedding vector(384));
INSERT INTO odd."We""ird" VALUES (1, 'weird');
CREATE TABLE odd.empty (LIKE odd.plain INCLUDING ALL);
CREATE TABLE odd.all_null (id integer PRIMARY KEY, body text, embedding vector(384));
INSERT INTO odd.all_null VALUES (1), (2);
CREATE VIEW odd.seen AS SELECT * FROM odd.plain;
CREATE MATERIALIZED VIEW odd.kept AS SELECT * FROM odd.plain;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE odd.abroad (id integer, body text, embedding vector(384)) SERVER nowhere;
CREATE SEQUENCE odd.numbers;
CREATE TABLE odd.no_key (body text, embedding vector(384));
INSERT INTO odd.no_key VALUES ('no key');
CREATE TABLE odd.mother (id integer PRIMARY KEY, body text, embedding vector(384));
CREATE TABLE odd.daughter () INHERITS (odd.mother);
CREATE TABLE odd.forced (LIKE odd.plain INCLUDING ALL);
ALTER TABLE odd.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE odd.partial_key (id integer NOT NULL, body text, embedding vector(384));
CREATE UNIQUE INDEX ON odd.partial_key (id) WHERE id > 0;
CREATE TABLE odd.expression_key (id integer NOT NULL, body text, embedding vector(384));
CREATE UNIQUE INDEX ON odd.expression_key ((id + 1));
CREATE TABLE odd.late_key (id integer PRIMARY KEY DEFERRABLE, body text, embedding vector(384));
CREATE TEMPORARY TABLE passing (id integer PRIMARY KEY, body text, embedding vector(384));
"""
COLLECTIONS = [
    "CALL auto_embed('odd.plain', 'body', collection => 'plain')",
    "CALL auto_embed('odd.unlogged', 'body', collection => 'chunked', options => '{\"chunk_tokens\": 8}')",
    "CALL auto_embed('odd.plain', 'note', collection => 'wordless', options => '{\"text_search\": \"none\"}')",
    "CALL auto_embed('odd.secured', 'body', collection => 'secured', options => '{\"storage\": \"halfvec\"}')",
    "CALL auto_embed('odd.composite', 'body', collection => 'composite', options => '{\"index\": \"none\"}')",
]
