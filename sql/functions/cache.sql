CREATE OR REPLACE FUNCTION @extschema@.cache_purge(model text DEFAULT NULL, role regrole DEFAULT NULL)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.cache_purge(model, role)
$python$;
COMMENT ON FUNCTION @extschema@.cache_purge(text, regrole) IS
    'Deletes cached vectors of a model (name or name@version) and a role, NULL meaning all, and returns how many; other sessions keep theirs in memory until they end.';

CREATE OR REPLACE FUNCTION pgml_tune._pending_counts()
RETURNS jsonb
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.pending_counts()
$python$;
COMMENT ON FUNCTION pgml_tune._pending_counts() IS 'What this session has counted and not yet flushed.';

