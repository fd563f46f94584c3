-- Jobs that wait: what a call queues, what it refuses, who sees and cancels. No worker runs here.
SELECT configure('auto_start_worker', 'off');
CREATE TABLE rated AS
SELECT g AS id, 'text ' || g AS a, 'other ' || g AS b, (g % 5) / 4.0 AS score FROM generate_series(1, 20) AS g;

CALL finetune_sbert('minilm@v1', 'SELECT a, b, score FROM rated ORDER BY id', options => '{"epochs": 2}');
SELECT kind, model, state, phase, started_at IS NULL AS waits FROM pgml_tune.jobs;
SELECT part, row_count, column_names, shape FROM pgml_tune.job_part;
SELECT job_id, kind, phase FROM pgml_tune.stat_progress;

-- The same call is the same job.
CALL finetune_sbert('minilm@v1', 'SELECT a, b, score FROM rated ORDER BY id', options => '{"epochs": 2}');
SELECT count(*) FROM pgml_tune.jobs;

-- In a transaction that is rolled back there was none.
BEGIN;
CALL evaluate_model('minilm@v1', 'SELECT a, b, score FROM rated');
ROLLBACK;
SELECT count(*) FROM pgml_tune.jobs;

SELECT cancel_job(job_id) FROM pgml_tune.jobs;
SELECT cancel_job(job_id) FROM pgml_tune.jobs;
SELECT state, ended_at IS NOT NULL AS has_ended FROM pgml_tune.jobs;
SELECT count(*) FROM pgml_tune.job_rows;
SELECT count(*) FROM job_log((SELECT max(job_id) FROM pgml_tune.jobs));

SELECT model_card('minilm') -> 'artifact' ->> 'storage' AS storage, model_card('minilm', 'v1') -> 'evaluations' AS evaluations;

\set VERBOSITY sqlstate
CALL finetune_sbert('nothere', 'SELECT a, b FROM rated');
CALL finetune_sbert('minilm', 'SELECT a, b FROM rated', 'v1');
CALL finetune_sbert('minilm', 'SELECT a FROM rated');
CALL finetune_sbert('minilm', 'SELECT a, b, id AS score FROM rated');
CALL finetune_sbert('minilm', 'SELECT a, b FROM rated WHERE id < 9');
CALL finetune_sbert('minilm', 'DELETE FROM rated RETURNING a, b');
CALL finetune_sbert('minilm', 'SELECT a, b FROM rated', options => '{"epoch": 1}');
CALL finetune_sbert('minilm', 'SELECT a, b FROM rated', options => '{"loss": "triplet"}');
CALL finetune_classifier('minilm', 'SELECT a, id FROM rated', 'sorter');
CALL distill_model('minilm', 'layers:x', 'SELECT a FROM rated');
CALL quantize_model('minilm', 'int4');
CALL quantize_model('minilm', 'int8_static');
CALL export_onnx('minilm', '{"opset": 1}');
CALL export_tensorrt('minilm', 'int8');
CALL evaluate_model('minilm', 'SELECT a, b FROM rated', '{accuracy}');
CALL import_model('x', '');
SELECT cancel_job(0);
SELECT job_log(0);
SELECT model_card('nothere');
SELECT * FROM classify('a', 'minilm');
\set VERBOSITY default
DROP TABLE rated;
SELECT configure('auto_start_worker', NULL);
