"""Properties that every object of the extension must have."""

from typing import Any

import psycopg

DEFINERS = {
    "_add_log_partition",
    "_align_model",
    "_begin_rollout",
    "_bring_along",
    "_build_collection",
    "_cancel",
    "_count_waiting",
    "_change_rollout",
    "_check_feedback",
    "_check_job",
    "_check_job_rows",
    "_compact_counts",
    "_drift_calls",
    "_drop_collection_row",
    "_drop_version",
    "_embed_sql_examples",
    "_end_preparation",
    "_end_rollout",
    "_expire_jobs",
    "_file_users",
    "_fill_collection",
    "_fill_queue",
    "_finish_collection",
    "_forget_columns",
    "_forget_job_rows",
    "_forget_route",
    "_index_twin",
    "_hold_relations",
    "_ingest_logs",
    "_keep_sql_example",
    "_lost_collections",
    "_mend_collection",
    "_mend_shadows",
    "_preparations",
    "_purge_cache",
    "_read_cache",
    "_refill_collection",
    "_register_version",
    "_requeue",
    "_reset_counts",
    "_retire_shadows",
    "_retire_vectors",
    "_rollout_calls",
    "_rollout_facts",
    "_rollout_units",
    "_rotate_cache",
    "_rotate_logs",
    "_served_calls",
    "_server_address",
    "_set_verdict",
    "_spooled_calls",
    "_step_back",
    "_write_cache",
    "_write_counts",
    "_write_hits",
    "_write_preparation",
    "_write_setting",
}
# The procedures that start jobs: they commit, and run queries of their callers.
JOBS = {
    "distill_model",
    "evaluate_model",
    "export_onnx",
    "export_tensorrt",
    "finetune_classifier",
    "finetune_sbert",
    "finetune_text_to_sql",
    "import_model",
    "quantize_model",
    "tune_engine",
}
WITHOUT_SEARCH_PATH = {
    # A procedure with a SET clause could not commit.
    "_fill",
    "_maintain",
    "_mend",
    "_retire",
    "_tick",
    "auto_embed",
    "embed_table",
    "maintain",
    "prepare_rollout",
    "rollout_tick",
    # Triggers and policies of users' tables find their names as the caller does; all of ours are qualified.
    "_add_shadow",
    "_add_vector_column",
    "_clear_part",
    "_count_unfilled",
    "_drop_shadow",
    "_finish_shadow",
    "_has_vectors",
    "_read_part",
    "_store_part",
    # They judge and run SQL whose names are found as its caller finds them.
    "_analyse_sql",
    "_check_sql",
    "ask",
    "_try_sql",
    "_try_sql_as",
    # A SET clause would keep what is set within from being taken back in the end.
    "_begin_restricted",
    "_end_restricted",
    # It runs the query of its caller, who finds his tables as usual.
    "_golden_rows",
    "_next_rows",
    "_take_rows",
    # What a question is about is found as its asker finds it.
    "_readable_schema",
    "_readable_values",
    "text_to_sql",
    "text_to_sql_candidates",
    # So is what SQL names that is kept with a question, or expected by who corrects an answer.
    "add_sql_example",
    "record_feedback",
    *JOBS,
}
FUNCTIONS = """
SELECT p.oid, p.proname, p.prosecdef, p.proconfig, p.provolatile, p.proparallel, p.proacl::text,
       n.nspname, obj_description(p.oid, 'pg_proc')
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
WHERE e.extname = 'pgml_tune'
"""


def functions(db: psycopg.Connection[Any]) -> list[Any]:
    rows = db.execute(FUNCTIONS).fetchall()
    assert len(rows) > 20
    return rows


def test_only_named_functions_are_security_definer(db: psycopg.Connection[Any]) -> None:
    assert {row[1] for row in functions(db) if row[2]} == DEFINERS


def test_every_function_fixes_its_search_path(db: psycopg.Connection[Any]) -> None:
    loose = {row[1] for row in functions(db) if "search_path=pg_catalog, pg_temp" not in (row[3] or [])}
    assert loose == WITHOUT_SEARCH_PATH


def test_nothing_is_granted_to_public(db: psycopg.Connection[Any]) -> None:
    # An ACL that is missing means the default, which lets everybody call a function.
    assert not [row[1] for row in functions(db) if row[6] is None or "{=" in row[6] or ",=" in row[6]]
    granted = """
        SELECT c.oid::regclass FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.relnamespace = 'pgml_tune'::regnamespace AND a.grantee = 0
        UNION ALL
        SELECT n.nspname::regclass FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
        WHERE n.nspname = 'pgml_tune' AND a.grantee = 0
    """
    assert db.execute(granted).fetchall() == []


def test_every_object_has_a_comment(db: psycopg.Connection[Any]) -> None:
    # Trigger functions have none: nobody calls them.
    assert not {row[1] for row in functions(db) if not row[8]} - {
        "_check_collection_owner",
        "_check_tracked_column",
        "_freeze_model_version",
        "_refuse_change",
    }
    bare = """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relnamespace = 'pgml_tune'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p')
          AND obj_description(c.oid, 'pg_class') IS NULL
    """
    assert db.execute(bare).fetchall() == []


def test_only_embed_pinned_is_immutable_or_parallel_safe(db: psycopg.Connection[Any]) -> None:
    own = [row for row in functions(db) if row[7] == "public"]
    assert {row[1] for row in own if row[4] == "i"} == {"embed_pinned"}
    assert {row[1] for row in own if row[5] != "u"} - {"grant_usage", "grant_operate",
    "grant_admin", "grant_ask"} == {"embed_pinned"}


def test_functions_that_only_read_are_stable(db: psycopg.Connection[Any]) -> None:
    own = {row[1]: row[4] for row in functions(db) if row[7] == "public"}
    assert {name for name, volatility in own.items() if volatility == "s"} == {
        "ab_report",
        "ab_selftest",
        "classify",
        "drift_report",
        "embed",
        "hybrid_search",
        "job_log",
        "model_card",
        "quality_report",
        "rollout_explain",
        "semantic_search",
        "semantic_similarity",
        "token_count",
    }
