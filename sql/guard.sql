-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pgml_tune" to load this file. \quit

-- Whoever may create objects in the target schema could put his own embed() in front of ours, and so could its owner.
DO $guard$
DECLARE
    v_owner oid;
    v_acl aclitem[];
    v_others text;
BEGIN
    SELECT n.nspowner, n.nspacl INTO STRICT v_owner, v_acl
    FROM pg_catalog.pg_namespace AS n
    WHERE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.=) '@extschema@';

    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.oid OPERATOR(pg_catalog.=) v_owner
          AND (
              r.rolsuper
              OR r.rolname OPERATOR(pg_catalog.=) current_user
              OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
              OR r.oid OPERATOR(pg_catalog.=) (
                  SELECT d.datdba FROM pg_catalog.pg_database AS d
                  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
              )
          )
    ) THEN
        RAISE EXCEPTION 'schema % is owned by a role that could replace functions of pgml_tune', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = pg_catalog.format('Its owner is %s.', pg_catalog.pg_get_userbyid(v_owner)),
                  HINT = pg_catalog.format('ALTER SCHEMA %s OWNER TO %I', '@extschema@', current_user);
    END IF;

    SELECT pg_catalog.string_agg(
        DISTINCT CASE
            WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
        END, ', '
    ) INTO v_others
    FROM pg_catalog.aclexplode(v_acl) AS a
    WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
      AND a.grantee OPERATOR(pg_catalog.<>) v_owner
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_roles AS r
          WHERE r.oid OPERATOR(pg_catalog.=) a.grantee AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user)
      );
    IF v_others IS NOT NULL THEN
        RAISE EXCEPTION 'others may create objects in schema %', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = 'They could put functions of their own in front of those of pgml_tune.',
                  HINT = pg_catalog.format('REVOKE CREATE ON SCHEMA %s FROM %s', '@extschema@', v_others);
    END IF;

    -- What somebody left there may win against our function of the same name: a closer match of the argument types does.
    SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ') INTO v_others
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.=) '@extschema@'
      AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[
          'embed', 'embed_pinned', 'semantic_similarity', 'token_count', 'last_call_id', 'classify',
          'text_to_sql', 'text_to_sql_candidates', 'add_sql_example', 'drop_sql_example',
          'register_model', 'drop_model_version', 'cache_purge', 'stat_reset', 'configure', 'doctor',
          'embed_table', 'track_column', 'prepare_rollout', 'maintain', 'grant_usage', 'grant_operate', 'grant_admin', 'grant_ask', 'ask',
          'auto_embed', 'drop_auto_embed', 'requeue_failed', 'semantic_search', 'hybrid_search',
          'import_model', 'finetune_sbert', 'finetune_classifier', 'finetune_text_to_sql', 'distill_model', 'quantize_model',
          'export_onnx', 'export_tensorrt', 'evaluate_model', 'tune_engine', 'reset_engine', 'model_card', 'cancel_job', 'job_log',
          'rollout_model', 'rollback_model', 'rollout_explain', 'rollout_tick',
          'ab_report', 'ab_selftest', 'record_feedback', 'quality_report', 'drift_report'
      ]::pg_catalog.name[])
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
          WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid OPERATOR(pg_catalog.=) p.oid
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND e.extname OPERATOR(pg_catalog.=) 'pgml_tune'
      );
    IF v_others IS NOT NULL THEN
        RAISE EXCEPTION 'schema % holds functions with names of pgml_tune', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = pg_catalog.format('They are: %s.', v_others),
                  HINT = pg_catalog.format('DROP ROUTINE %s', v_others);
    END IF;
END
$guard$;

