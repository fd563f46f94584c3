CREATE TABLE pgml_tune.model (
    model_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    task        text NOT NULL,
    description text,  -- NULL: nobody gave one
    created_by  text NOT NULL DEFAULT session_user,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_name_key UNIQUE (name),
    CONSTRAINT model_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$' AND name !~ '\.\.'),
    CONSTRAINT model_task_check CHECK (task IN ('embedding', 'classification', 'text_to_sql'))
);
-- No foreign key leads from one of these tables to another: a parallel restore fills them in any order. The functions that
-- write them hold the locks that keep them together.
COMMENT ON TABLE pgml_tune.model IS 'A named model; its versions are in pgml_tune.model_version.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_model_id_seq', '');

