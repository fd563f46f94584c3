-- One row answers a call: what it copies from model and model_version never changes there.
CREATE TABLE pgml_tune.serving (
    model_id         bigint PRIMARY KEY,
    model            text NOT NULL,
    task             text NOT NULL,
    model_version_id bigint NOT NULL,
    artifact_sha256  text NOT NULL,
    dimensions       integer NOT NULL,
    default_of       text,  -- the task whose calls without a model come here; NULL: none
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT serving_model_key UNIQUE (model),
    CONSTRAINT serving_default_of_key UNIQUE (default_of),
    CONSTRAINT serving_default_of_check CHECK (default_of = task)
);
COMMENT ON TABLE pgml_tune.serving IS 'Which version a model name without a version means, and which model a call without a model.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving', '');

