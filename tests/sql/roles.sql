-- What the three levels may do. Roles belong to the whole server, so they go at the end.
CREATE ROLE regress_pgml_none;
CREATE ROLE regress_pgml_usage;
CREATE ROLE regress_pgml_admin;
SELECT grant_usage('regress_pgml_usage');
SELECT grant_admin('regress_pgml_admin');

\set VERBOSITY sqlstate
SET ROLE regress_pgml_none;
SELECT embed('text');
SELECT * FROM pgml_tune.models;
RESET ROLE;

SET ROLE regress_pgml_usage;
SELECT vector_dims(embed('text')) AS dimensions;
SELECT vector_dims(embed_pinned('text', 'minilm', 'v1')) AS dimensions;
SELECT model, serving_version FROM pgml_tune.models;
SELECT configure('threads', '2');
SELECT cache_purge();
SELECT register_model('x', 'minilm@v1', 'embedding');
SELECT drop_model_version('minilm', 'v1-int8');
SELECT count(*) FROM doctor();
SELECT * FROM pgml_tune.stat_cache;
SELECT * FROM pgml_tune.cache_entry_0;
INSERT INTO pgml_tune.setting VALUES ('threads', '2');
CALL maintain();
SELECT grant_usage('regress_pgml_none');
RESET ROLE;

SET ROLE regress_pgml_admin;
SELECT configure('threads', '2');
SELECT configure('threads', NULL);
SELECT register_model('again', 'minilm@v1', 'embedding');
SELECT drop_model_version('again', 'v1');
SELECT count(*) > 0 AS examined FROM doctor();
CALL maintain();
SELECT * FROM pgml_tune.cache_entry_0;
SELECT grant_usage('regress_pgml_none');
RESET ROLE;
SELECT grant_usage(NULL);
SELECT grant_usage(0::regrole);
\set VERBOSITY default

DROP OWNED BY regress_pgml_none, regress_pgml_usage, regress_pgml_admin;
DROP ROLE regress_pgml_none, regress_pgml_usage, regress_pgml_admin;
