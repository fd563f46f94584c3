CREATE TABLE pgml_tune.serving (
    model_id         bigint PRIMARY KEY,
    model_version_id bigint NOT NULL,
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT serving_model_id_fkey FOREIGN KEY (model_id) REFERENCES pgml_tune.model,
    CONSTRAINT serving_model_version_id_fkey FOREIGN KEY (model_version_id) REFERENCES pgml_tune.model_version
);
COMMENT ON TABLE pgml_tune.serving IS 'Which version a model name without a version means.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving', '');

CREATE TABLE pgml_tune.task_default (
    task       text PRIMARY KEY,
    model_id   bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT task_default_model_id_fkey FOREIGN KEY (model_id) REFERENCES pgml_tune.model
);
COMMENT ON TABLE pgml_tune.task_default IS 'Which model a call without a model means.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.task_default', '');

