-- None of these has a SET clause: a procedure that has one cannot commit, and the queries are the caller's own.
CREATE OR REPLACE PROCEDURE @extschema@.import_model(
    name text, source text, task text DEFAULT 'embedding', version text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.import_model(name, source, task, version, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.import_model(text, text, text, text, jsonb, boolean, bigint) IS
    'Brings a model in: exports a folder below import_dirs, or org/model of a hub, to ONNX or CTranslate2, compares it with the original and registers it; endpoint:NAME is a model of the server that sql_endpoint names; options: quantize, threads, description.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_sbert(
    model text, train_query text, new_version text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_sbert(model, train_query, new_version, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_sbert(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains an embedding model on rows (text, text, score), (anchor, positive), (anchor, positive, negative) or (text, text, label 0/1) into a new version with vectors of its own space; prints the metric before and after.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_classifier(
    model text, train_query text, new_model text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_classifier(model, train_query, new_model, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_classifier(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains a classifier for classify() on rows (text, label): a head on an embedding model, as model new_model, or a classifier further, as its next version.';

CREATE OR REPLACE PROCEDURE @extschema@.finetune_text_to_sql(
    model text, train_query text, new_version text DEFAULT NULL, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.finetune_text_to_sql(model, train_query, new_version, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.finetune_text_to_sql(text, text, text, text, jsonb, boolean, bigint) IS
    'Trains a model for text_to_sql() on rows (question, sql) or (question, sql, search path), which it runs with the rights of the caller: from scratch, or a version further; prints the execution accuracy.';

CREATE OR REPLACE PROCEDURE @extschema@.distill_model(
    teacher text, student text, train_query text, eval_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.distill_model(teacher, student, train_query, eval_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.distill_model(text, text, text, text, jsonb, boolean, bigint) IS
    'Teaches a smaller model to answer as the teacher does, on rows (text, label) for a classifier and (text) for an embedding model; student is a model or layers:N, so many of the teacher''s own.';

CREATE OR REPLACE PROCEDURE @extschema@.quantize_model(
    model text, method text DEFAULT 'int8_dynamic', calibration_query text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.quantize_model(model, method, calibration_query, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.quantize_model(text, text, text, jsonb, boolean, bigint) IS
    'Adds a smaller version of a model: int8_dynamic, int8_static (calibrated on rows (text)), int8_block or fp16; refused, with the figures, if its vectors or answers differ too much.';

CREATE OR REPLACE PROCEDURE @extschema@.export_onnx(
    model text, options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.export_onnx(model, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.export_onnx(text, jsonb, boolean, bigint) IS
    'Exports a version again, with another opset or its graph optimised, as a version of the same space; options: opset, optimize, new_version, threads, description.';

CREATE OR REPLACE PROCEDURE @extschema@.export_tensorrt(
    model text, dtype text DEFAULT 'fp16',
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.export_tensorrt(model, dtype, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.export_tensorrt(text, text, jsonb, boolean, bigint) IS
    'Builds a TensorRT engine (fp16 or fp32) of a version for the GPU of this machine; options: shapes, workspace_bytes, builder, timing_cache, new_version, description.';

CREATE OR REPLACE PROCEDURE @extschema@.evaluate_model(
    model text, eval_query text, metrics text[] DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.evaluate_model(model, eval_query, metrics, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.evaluate_model(text, text, text[], jsonb, boolean, bigint) IS
    'Measures a version on rows (text, text, score), (query, document, grade), (text, label) or (question, sql) and keeps the figures in pgml_tune.evaluations; scores times 100, latency in ms.';

CREATE OR REPLACE PROCEDURE @extschema@.tune_engine(
    model text, version text DEFAULT NULL,
    options jsonb DEFAULT '{}', wait boolean DEFAULT true, INOUT job_id bigint DEFAULT NULL
)
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import training
return training.tune_engine(model, version, options, wait)
$python$;
COMMENT ON PROCEDURE @extschema@.tune_engine(text, text, jsonb, boolean, bigint) IS
    'Measures on this machine with which engine, precision, threads and batches the worker runs a version fastest, and has it run so if its vectors stay the same; options: min_cosine, engines, seconds, texts.';

CREATE OR REPLACE FUNCTION @extschema@.reset_engine(model text, version text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- As callers write it elsewhere: name@version.
    v_name text := split_part(reset_engine.model, '@', 1);
    v_version text := coalesce(reset_engine.version, nullif(split_part(reset_engine.model, '@', 2), ''));
    v_version_id bigint;
BEGIN
    SELECT v.model_version_id INTO v_version_id
    FROM pgml_tune.model AS m
    JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
    WHERE m.name = v_name AND v.version = coalesce(
        v_version, (SELECT s.version FROM pgml_tune.serving AS s WHERE s.model_id = m.model_id)
    );
    IF NOT FOUND THEN
        RAISE EXCEPTION 'version "%" does not exist', concat_ws('@', coalesce(v_name, 'NULL'), v_version)
            USING ERRCODE = '42704', HINT = 'SELECT model, version FROM pgml_tune.engine_choices';
    END IF;
    DELETE FROM pgml_tune.engine_choice AS c WHERE c.model_version_id = v_version_id;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION @extschema@.reset_engine(text, text) IS
    'Has the worker run a version by its own engine again, whatever tune_engine() has chosen; false if nothing was.';

CREATE OR REPLACE FUNCTION @extschema@.model_card(name text, version text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_card jsonb;
    v_name text := split_part(model_card.name, '@', 1);
    -- As callers write it elsewhere: name@version.
    v_version text := coalesce(model_card.version, nullif(split_part(model_card.name, '@', 2), ''));
BEGIN
    SELECT jsonb_build_object(
        'model', v.model,
        'version', v.version,
        'task', v.task,
        'description', coalesce(v.source #>> '{made_by,parameters,description}', m.description),
        'state', v.state,
        'is_serving', v.is_serving,
        'created_by', v.created_by,
        'created_at', v.created_at,
        'artifact', jsonb_build_object(
            'sha256', v.artifact_sha256, 'storage', v.storage, 'bytes', v.bytes, 'max_tokens', v.max_tokens,
            'dimensions', v.dimensions, 'space_id', v.space_id, 'is_batch_invariant', v.is_batch_invariant
        ),
        'lineage', jsonb_strip_nulls(jsonb_build_object(
            'source', v.source ->> 'name', 'base_version', v.base_version, 'made_by', v.source -> 'made_by',
            'weights_sha256', v.source ->> 'weights_sha256'
        )),
        'derived_versions', (
            SELECT coalesce(jsonb_agg(d.version ORDER BY d.created_at), '[]')
            FROM pgml_tune.model_versions AS d WHERE d.model = v.model AND d.base_version = v.version
        ),
        'checks', v.metrics,
        'evaluations', (
            SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'metric', e.metric, 'value', e.metric_value, 'rows', e.dataset_rows, 'query', e.dataset_query,
                'rows_sha256', e.dataset_sha256, 'measured_at', e.created_at, 'job_id', e.job_id
            )) ORDER BY e.evaluation_id), '[]')
            FROM pgml_tune.evaluations AS e WHERE e.model = v.model AND e.version = v.version
        )
    ) INTO v_card
    FROM pgml_tune.model_versions AS v JOIN pgml_tune.models AS m ON m.model = v.model
    WHERE v.model = v_name AND v.version = coalesce(v_version, m.serving_version);
    IF v_card IS NULL THEN
        RAISE EXCEPTION 'version "%" does not exist', concat_ws('@', coalesce(v_name, 'NULL'), v_version)
            USING ERRCODE = '42704', HINT = 'SELECT model, version, state FROM pgml_tune.model_versions';
    END IF;
    RETURN v_card;
END
$$;
COMMENT ON FUNCTION @extschema@.model_card(text, text) IS
    'What is known of a version, model_card(''name'') meaning the one that serves and model_card(''name@version'') that one: where it comes from, what it was trained on, how it was checked and measured.';
