-- One row answers a call: what it copies from model and model_version never changes there.
CREATE TABLE pgml_tune.serving (
    model_id         bigint PRIMARY KEY,
    model            text NOT NULL,
    task             text NOT NULL,
    model_version_id bigint NOT NULL,
    version          text NOT NULL,
    artifact_sha256  text NOT NULL,
    dimensions       integer NOT NULL,
    default_of       text,  -- the task whose calls without a model come here; NULL: none
    wanted_version_id bigint,  -- the collections search with it already; NULL: plain embed() does, too
    rollout_id       bigint,  -- the one that runs, in this space or into another; NULL: none
    phase            integer,  -- counts the shares that it has had; NULL: none runs
    share            integer,  -- units of 10,000 that go to the candidate; NULL: none runs
    salt             text,  -- which units those are; NULL: none runs
    candidate_version_id bigint,  -- of the same space, so that calls can go to it; NULL: none
    candidate_version    text,
    candidate_sha256     text,
    changed_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT serving_share_check CHECK (share BETWEEN 0 AND 10000),
    CONSTRAINT serving_model_key UNIQUE (model),
    CONSTRAINT serving_default_of_key UNIQUE (default_of),
    CONSTRAINT serving_default_of_check CHECK (default_of = task)
);
COMMENT ON TABLE pgml_tune.serving IS 'Which version a model name without a version means, and which model a call without a model.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving', '');

