-- Session cache, table cache and their counters.
SELECT embed('warm', 'minilm@v1-int8') IS NOT NULL AS warm;
SELECT texts AS texts, session_hits AS hits, misses AS misses FROM pgml_tune.stat_cache WHERE version = 'v1-int8' \gset
SELECT embed('counted once', 'minilm@v1-int8') IS NOT NULL AS first;
SELECT embed('counted once', 'minilm@v1-int8') IS NOT NULL AS second;
SELECT texts - :texts AS texts, session_hits - :hits AS session_hits, misses - :misses AS misses
FROM pgml_tune.stat_cache WHERE version = 'v1-int8';
SELECT hit_ratio BETWEEN 0 AND 1 AS is_ratio FROM pgml_tune.stat_cache WHERE version = 'v1-int8';

-- Another session finds in the table what this one computed.
SELECT cache_purge() >= 0 AS purged;
\c -
SELECT embed('shared by table') IS NOT NULL AS computed;
\c -
SELECT table_hits AS before FROM pgml_tune.stat_cache WHERE version = 'v1' \gset
SELECT embed('shared by table') IS NOT NULL AS found;
SELECT table_hits - :before AS table_hits FROM pgml_tune.stat_cache WHERE version = 'v1';

-- The preference of a session.
SET pgml_tune.cache = 'off';
SELECT texts AS texts, misses AS misses FROM pgml_tune.stat_cache WHERE version = 'v1' \gset
SELECT count(embed('never remembered')) FROM generate_series(1, 3);
SELECT texts - :texts AS texts, misses - :misses AS misses FROM pgml_tune.stat_cache WHERE version = 'v1';
RESET pgml_tune.cache;

-- In a read-only transaction nothing is written.
BEGIN READ ONLY;
SELECT embed('read only') IS NOT NULL AS embedded;
COMMIT;

SELECT cache_purge('minilm', current_user::regrole) > 0 AS purged;
SELECT cache_purge('minilm@v1') AS purged_again;
CALL maintain();
\set VERBOSITY sqlstate
SELECT cache_purge('nomodel');
SELECT cache_purge('minilm@v9');
\set VERBOSITY default

SELECT model, version, computed >= 1 AS computed, tokens > 0 AS tokens, compute_time > 0 AS compute_time
FROM pgml_tune.stat_inference ORDER BY version;
