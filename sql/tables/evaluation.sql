CREATE TABLE pgml_tune.evaluation (
    evaluation_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model          text NOT NULL,
    version        text NOT NULL,
    artifact_sha256 text NOT NULL,
    metric         text NOT NULL,
    metric_value   double precision NOT NULL,
    dataset_query  text,  -- NULL, as the next two: the texts that come with the package
    dataset_rows   bigint,
    dataset_sha256 text,
    job_id         bigint NOT NULL,
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgml_tune.evaluation IS 'Figures of model versions: what was measured, on which rows, by which job.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.evaluation', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.evaluation_evaluation_id_seq', '');
-- evaluations and model_card() look for one version.
CREATE INDEX evaluation_model_version_idx ON pgml_tune.evaluation (model, version);
