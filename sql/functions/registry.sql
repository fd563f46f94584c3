CREATE OR REPLACE FUNCTION @extschema@.register_model(
    name text, artifact text, task text, version text DEFAULT NULL, options jsonb DEFAULT '{}'
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import registry
return registry.register_model(name, artifact, task, version, options)
$python$;
COMMENT ON FUNCTION @extschema@.register_model(text, text, text, text, jsonb) IS
    'Adds a version to a model and returns its name; artifact is a sha256 below the model root or a name@version bound there; options: description, base.';

CREATE OR REPLACE FUNCTION @extschema@.drop_model_version(name text, version text)
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import registry
return registry.drop_model_version(name, version)
$python$;
COMMENT ON FUNCTION @extschema@.drop_model_version(text, text) IS
    'Removes a version that does not serve, and the model with its last version; files stay, for embed_pinned().';

