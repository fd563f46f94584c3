CREATE OR REPLACE FUNCTION pgml_tune._loaded_models()
RETURNS TABLE (
    place text, artifact_sha256 text, bytes bigint, is_pinned boolean, is_quarantined boolean, calls bigint,
    last_used_at timestamptz, engine text, provider text, inference_precision text
)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import serving
return serving.loaded_models()
$python$;
COMMENT ON FUNCTION pgml_tune._loaded_models() IS
    'The models that the worker holds or has stopped running, and those of this session.';
