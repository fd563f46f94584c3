-- A version that has no row is run by the engine that it was made for, as sessions run all of them.
CREATE TABLE pgml_tune.engine_choice (
    model_version_id    bigint PRIMARY KEY,
    machine             text NOT NULL,  -- in words: on another one the choice does not count
    engine              text NOT NULL,
    provider            text NOT NULL,
    inference_precision text NOT NULL,
    threads             integer NOT NULL,  -- that compute a batch
    lanes               integer NOT NULL,  -- batches at once
    batch_size          integer NOT NULL,
    texts_per_second    double precision NOT NULL,
    gain_percent        double precision NOT NULL,  -- over the version's own engine, measured in turns with it
    latency_ms          double precision NOT NULL,
    agreement           double precision NOT NULL,
    job_id              bigint NOT NULL,
    created_by          text NOT NULL,
    measured_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT engine_choice_engine_check CHECK (engine IN ('onnxruntime', 'openvino')),
    CONSTRAINT engine_choice_provider_check CHECK (provider IN ('cpu', 'cuda', 'tensorrt')),
    CONSTRAINT engine_choice_inference_precision_check CHECK (inference_precision IN ('fp32', 'bf16')),
    CONSTRAINT engine_choice_threads_check CHECK (threads > 0 AND lanes > 0 AND batch_size > 0)
);
COMMENT ON TABLE pgml_tune.engine_choice IS 'In which way the worker runs a version, as tune_engine() has found it best; see pgml_tune.engine_choices.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.engine_choice', '');

