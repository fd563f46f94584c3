-- Models, versions and pointers. The model root of the server holds minilm@v1, @v1-int8 and @v1-int8-block.
SELECT register_model('minilm', 'minilm@v1', 'embedding', options => '{"description": "English sentences"}');
SELECT register_model('minilm', 'minilm@v1-int8', 'embedding', 'v1-int8', '{"base": "v1"}');

SELECT model, task, description, serving_version, is_default, dimensions, version_count FROM pgml_tune.models;
SELECT model, version, state, is_default, is_serving, dimensions, max_tokens, storage, is_batch_invariant, base_version
FROM pgml_tune.model_versions ORDER BY version;
-- A quantized version makes vectors of the same space, which was measured.
SELECT count(DISTINCT space_id) AS spaces, bool_and(metrics -> 'batch_invariance' IS NOT NULL) AS measured
FROM pgml_tune.model_versions;
SELECT kind, pointer, from_target, to_target, reason FROM pgml_tune.rollout_history ORDER BY rollout_history_id;

\set VERBOSITY sqlstate
-- taken
SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1');
SELECT register_model('minilm', 'minilm@v1', 'embedding');
-- another artifact under a name that is bound
SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1-int8-block');
-- missing
SELECT register_model('minilm', 'minilm@v9', 'embedding');
SELECT register_model('minilm', 'minilm@v1-int8-block', 'embedding', 'v1-int8-block', '{"base": "v9"}');
SELECT drop_model_version('minilm', 'v9');
SELECT drop_model_version('nomodel', 'v1');
-- invalid
SELECT register_model('Mini LM', 'minilm@v1', 'embedding');
SELECT register_model('minilm', 'minilm@v1', 'telepathy');
SELECT register_model('minilm', 'minilm@v1', 'embedding', '../v1');
SELECT register_model('minilm', '/etc/passwd', 'embedding');
SELECT register_model('minilm', 'minilm@v1', 'embedding', options => '{"colour": "red"}');
SELECT register_model('minilm', 'minilm@v1', 'embedding', options => '[]');
SELECT register_model(NULL, 'minilm@v1', 'embedding');
-- no files of that digest
SELECT register_model('minilm', repeat('0', 64), 'embedding');
-- serving
SELECT drop_model_version('minilm', 'v1');
-- frozen, and append-only
UPDATE pgml_tune.model_version SET dimensions = 3 WHERE version = 'v1';
DELETE FROM pgml_tune.serving_history;
TRUNCATE pgml_tune.serving_history;
\set VERBOSITY default

-- A version that is not served can go and come back; a rolled-back registration leaves nothing.
SELECT drop_model_version('minilm', 'v1-int8');
SELECT version FROM pgml_tune.model_versions;
BEGIN;
SELECT register_model('minilm', 'minilm@v1-int8', 'embedding', 'v1-int8', '{"base": "v1"}');
ROLLBACK;
SELECT version FROM pgml_tune.model_versions;
SELECT register_model('minilm', 'minilm@v1-int8', 'embedding', 'v1-int8', '{"base": "v1"}');
