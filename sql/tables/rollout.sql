-- What is routed stands in serving and collection_route; this is why, and how it goes on.
CREATE TABLE pgml_tune.rollout (
    rollout_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id        bigint NOT NULL,
    model           text NOT NULL,
    from_version_id bigint NOT NULL,
    from_version    text NOT NULL,
    to_version_id   bigint NOT NULL,
    to_version      text NOT NULL,
    is_same_space   boolean NOT NULL,
    state           pgml_tune.rollout_state NOT NULL DEFAULT 'running',
    share           integer NOT NULL,  -- units of 10,000
    phase           integer NOT NULL DEFAULT 1,  -- counts the shares; figures of two phases are never pooled
    plan            integer[],  -- shares of the steps, ascending, ending in 10,000; NULL: the share changes by hand only
    salt            text NOT NULL,
    guardrails      jsonb NOT NULL,  -- complete: alpha, margins, expected_units, ...
    expires_at      timestamptz NOT NULL,
    on_expiry       text NOT NULL,
    verdict         jsonb,  -- every number of the last look; NULL: nobody has looked yet
    created_by      text NOT NULL DEFAULT session_user,
    created_at      timestamptz NOT NULL DEFAULT now(),
    phase_began_at  timestamptz NOT NULL DEFAULT now(),
    looked_at       timestamptz,  -- NULL: not yet
    ended_at        timestamptz,  -- NULL: it runs
    reason          text,  -- of its end; NULL: none was given
    CONSTRAINT rollout_share_check CHECK (share BETWEEN 0 AND 10000),
    CONSTRAINT rollout_on_expiry_check CHECK (on_expiry IN ('rollback', 'hold', 'promote')),
    CONSTRAINT rollout_ended_at_check CHECK ((ended_at IS NULL) = (state IN ('running', 'paused')))
);
-- One at a time for each model.
CREATE UNIQUE INDEX rollout_model_id_key ON pgml_tune.rollout (model_id) WHERE ended_at IS NULL;
COMMENT ON TABLE pgml_tune.rollout IS 'Rollouts: from which version to which, the share now, the plan, the guardrails and the last verdict.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.rollout', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.rollout_rollout_id_seq', '');

-- How far a prepare_rollout() that runs has come; its session writes here with each batch that it commits.
CREATE UNLOGGED TABLE pgml_tune.preparation (
    pid        integer NOT NULL,
    role_id    oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    model      text NOT NULL,
    version    text NOT NULL,
    object     text NOT NULL,  -- a collection, or table.column
    phase      text NOT NULL,
    steps      bigint NOT NULL,
    step       bigint NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT now(),
    phase_began_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT preparation_pkey PRIMARY KEY (pid)
);
COMMENT ON TABLE pgml_tune.preparation IS 'Progress of the prepare_rollout() calls that run.';
