"""A dump takes rollouts along: restored, the same units meet the same version, and the way back is still there."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import model_does
from conditions import fetch_value
from conftest import Connect
from dumping import restored_copy
from job_workers import Installation
from rollout_traffic import MODEL, QUESTIONS, add_versions

KEPT = {
    "model": "*",
    "model_version": "*",
    "serving": "*",
    "serving_history": "*",
    "rollout": "*",
    "collection_route": "*",
    # The numbers of tables are others after a restore.
    "collection": "collection_id, name, source::text, model_reference, is_twin, is_ready, is_filled, embeddings::text,"
    " view_name::text, query_function, validation, query_reference",
    "call_log": "call_id, model, version, variant, rollout_id, phase, share, unit, sqlstate, latency_ms, logged_at",
    "feedback": "call_id, score, variant, rollout_id",
}
SEARCH = "SELECT key, round(distance::numeric, 5) FROM semantic_search('public.doc.body', %s, 3)"


@pytest.fixture
def source(db: psycopg.Connection[Any], server_home: Path) -> psycopg.Connection[Any]:
    """A database with a rollout that was taken back, and one that runs and has been searched and judged."""
    add_versions(db, Installation(server_home))
    for statement in (
        "CREATE TABLE doc (id integer PRIMARY KEY, body text)",
        "INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 50) AS g",
        f"CALL auto_embed('doc', 'body', '{MODEL}')",
        f"CALL prepare_rollout('{MODEL}', 'v2')",
        f"SELECT rollout_model('{MODEL}', 'v2', 30, '{{\"reason\": \"a first try\"}}')",
        f"SELECT rollout_model('{MODEL}', 'v2')",
        f"SELECT rollback_model('{MODEL}', 'it was slow')",
        f"SELECT rollout_model('{MODEL}', 'v2', 40)",
    ):
        db.execute(statement)
    for question in QUESTIONS[:10]:
        db.execute(SEARCH, (question,))
        db.execute("SELECT record_feedback(last_call_id(), 0.5)")
    db.execute("CALL rollout_tick()")
    return db


@pytest.mark.parametrize("dump_format", ["plain", "directory"])
def test_restored_rollout_goes_on_and_back(
    source: psycopg.Connection[Any], connect: Connect, tmp_path: Path, dump_format: str
) -> None:
    with restored_copy(source, connect, tmp_path, dump_format) as copy:
        for table, columns in KEPT.items():
            statement = f"SELECT t::text FROM (SELECT {columns} FROM pgml_tune.{table}) AS t ORDER BY 1"
            rows = source.execute(statement).fetchall()
            assert rows and copy.execute(statement).fetchall() == rows, table
        for view in ("traffic", "rollouts", "rollout_history"):
            statement = f"SELECT t::text FROM pgml_tune.{view} AS t ORDER BY 1"
            assert copy.execute(statement).fetchall() == source.execute(statement).fetchall(), view
        for question in QUESTIONS[:10]:
            assert copy.execute(SEARCH, (question,)).fetchall() == source.execute(SEARCH, (question,)).fetchall()
        # Writes reach both sides; so each is there to be gone to, and back to, without a text being embedded again.
        copy.execute("INSERT INTO doc VALUES (51, 'a new text'); DELETE FROM doc WHERE id = 1")
        with model_does(copy, 0):
            assert fetch_value(copy, f"SELECT rollout_model('{MODEL}', 'v2')")["state"] == "promoted"
            assert fetch_value(copy, f"SELECT rollback_model('{MODEL}')")["to"] == "v1"
            assert fetch_value(copy, f"SELECT rollout_model('{MODEL}', 'v2', 10)")["rollout_id"] > 2
        counted = "SELECT array_agg(ROW(rows, embedded, stale, is_complete)::text) FROM pgml_tune.embedding_collections"
        assert fetch_value(copy, counted) == ["(50,50,0,t)"] * 2
