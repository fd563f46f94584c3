CREATE SCHEMA pgml_tune;
COMMENT ON SCHEMA pgml_tune IS 'State and views of the extension pgml_tune.';

CREATE SCHEMA pgml_tune_scratch;
COMMENT ON SCHEMA pgml_tune_scratch IS
    'Where views are made to learn what a query means, by whoever asks; always empty, since they are rolled back.';

CREATE TYPE pgml_tune.version_state AS ENUM (
    'registered',  -- known, not yet to be served
    'ready'        -- servable; the row is frozen from here on
);
COMMENT ON TYPE pgml_tune.version_state IS 'Where a model version stands in its life.';


CREATE TYPE pgml_tune.rollout_state AS ENUM ('running', 'paused', 'promoted', 'rolled_back');
COMMENT ON TYPE pgml_tune.rollout_state IS
    'Life of a rollout: a share of the units goes to the candidate (running, or held until somebody looks: paused) until it serves all or none.';
