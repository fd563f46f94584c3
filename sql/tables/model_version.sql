CREATE TABLE pgml_tune.model_version (
    model_version_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id           bigint NOT NULL,
    version            text NOT NULL,
    state              pgml_tune.version_state NOT NULL DEFAULT 'registered',
    artifact_sha256    text NOT NULL,
    space_id           text NOT NULL,
    dimensions         integer NOT NULL,
    max_tokens         integer NOT NULL,
    storage            text NOT NULL,
    bytes              bigint NOT NULL,
    is_batch_invariant boolean NOT NULL,
    base_version       text,  -- NULL: not derived from another version; stays when that one is dropped
    metrics            jsonb NOT NULL DEFAULT '{}',
    source             jsonb NOT NULL DEFAULT '{}',
    created_by         text NOT NULL DEFAULT session_user,
    created_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_version_model_id_version_key UNIQUE (model_id, version),
    CONSTRAINT model_version_version_check CHECK (version ~ '^[a-z0-9][a-z0-9_.-]{0,62}$' AND version !~ '\.\.'),
    CONSTRAINT model_version_artifact_sha256_check CHECK (artifact_sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT model_version_dimensions_check CHECK (dimensions BETWEEN 1 AND 16000)
);
COMMENT ON TABLE pgml_tune.model_version IS 'An immutable version of a model: which artifact it is and which vectors it makes.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_version', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.model_version_model_version_id_seq', '');

CREATE FUNCTION pgml_tune._freeze_model_version()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.state = 'ready' AND to_jsonb(OLD) - 'state' IS DISTINCT FROM to_jsonb(NEW) - 'state' THEN
        RAISE EXCEPTION 'version "%" is ready and cannot be changed', OLD.version
            USING ERRCODE = '55000', HINT = 'Register the changed model as a new version.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER model_version_freeze BEFORE UPDATE ON pgml_tune.model_version
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._freeze_model_version();

