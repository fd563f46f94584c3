-- From a table to a search in five statements: psql --no-align --tuples-only --file psql.sql

CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text, body text);

CALL auto_embed('note', 'body');

INSERT INTO note (topic, body) VALUES
    ('storage', 'VACUUM reclaims the space of dead rows.'),
    ('transactions', 'A savepoint lets part of a transaction be undone.'),
    ('replication', 'Streaming replication keeps a second server up to date.');

SELECT round(distance::numeric, 2), document ->> 'topic', document ->> 'body'
FROM semantic_search('public.note.body', 'how do I free disk space after deleting rows', 1);

SELECT id, body
FROM note_body_embedding
ORDER BY embedding <=> note_body_query('how do I free disk space after deleting rows')
LIMIT 1;

-- It prints:
-- 0.50|storage|VACUUM reclaims the space of dead rows.
-- 1|VACUUM reclaims the space of dead rows.
