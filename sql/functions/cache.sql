CREATE OR REPLACE FUNCTION @extschema@.cache_purge(
    model text DEFAULT NULL,
    role regrole DEFAULT NULL,
    older_than interval DEFAULT NULL,
    min_hits bigint DEFAULT NULL,
    max_bytes bigint DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.cache_purge(model, role, older_than, min_hits, max_bytes)
$python$;
COMMENT ON FUNCTION @extschema@.cache_purge(text, regrole, interval, bigint, bigint) IS
    'Deletes cached vectors and returns how many: of a model (name or name@version), of a role, older than an interval, found fewer than min_hits times by later sessions; with max_bytes the oldest of them, until all that stay take no more. NULL sets no condition. Other sessions keep theirs in memory until they end.';

CREATE OR REPLACE FUNCTION pgml_tune._pending_counts()
RETURNS jsonb
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import cache
return cache.pending_counts()
$python$;
COMMENT ON FUNCTION pgml_tune._pending_counts() IS 'What this session has counted and not yet flushed.';

