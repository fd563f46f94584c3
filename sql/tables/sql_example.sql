-- One row for each question whose SQL somebody has verified. It names no object by number: neither survives a dump, nor
-- has to exist when the row comes back.
CREATE TABLE pgml_tune.sql_example (
    sql_example_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    question        text NOT NULL,
    normal_question text NOT NULL,  -- as equal questions read the same: see service/questions.py
    sql             text NOT NULL,
    search_path     text NOT NULL,  -- where its names were found, as SET takes it
    relations       jsonb NOT NULL,  -- what it reads: [{"schema": "shop", "name": "customer", "columns": ["city"]}]
    model           text,  -- NULL: for every model
    embedding       vector,  -- of the question; NULL, as what follows: no model has embedded it yet
    space_id        text,
    created_by      text NOT NULL DEFAULT current_user,  -- by name, as it is dumped
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sql_example_question_check CHECK (length(question) BETWEEN 1 AND 10000 AND length(normal_question) BETWEEN 1 AND 40000),
    CONSTRAINT sql_example_sql_check CHECK (octet_length(sql) BETWEEN 1 AND 65536 AND octet_length(search_path) <= 1048576),
    CONSTRAINT sql_example_relations_check CHECK (jsonb_typeof(relations) = 'array' AND jsonb_array_length(relations) <= 100),
    CONSTRAINT sql_example_embedding_check CHECK ((embedding IS NULL) = (space_id IS NULL))
);
-- text_to_sql() asks for the same question; a tree takes no text as long as one may be.
CREATE INDEX sql_example_normal_question_idx ON pgml_tune.sql_example USING hash (normal_question);
COMMENT ON TABLE pgml_tune.sql_example IS 'Questions with SQL that was verified: text_to_sql() answers with it, and models train on it.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.sql_example', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.sql_example_sql_example_id_seq', '');
