"""Parallel plans: allowed for embed_pinned(), refused without harm for what runs SQL."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused

FORCED = [
    "SET parallel_setup_cost = 0",
    "SET parallel_tuple_cost = 0",
    "SET min_parallel_table_scan_size = 0",
    "SET max_parallel_workers_per_gather = 2",
]
WRAPPERS = {
    "embed": "embed(t)::text",
    "embed_many": "(embed(ARRAY[t]))[1]::text",
    "semantic_similarity": "semantic_similarity(t, 'b')::text",
    "token_count": "token_count(t)::text",
}


@pytest.fixture
def parallel(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session that plans everything it may in parallel."""
    for statement in FORCED:
        db.execute(statement)
    name = "debug_parallel_query" if db.info.server_version >= 160000 else "force_parallel_mode"
    db.execute(f"SET {name} = on")
    db.execute("CREATE TABLE note AS SELECT 'note ' || g AS content FROM generate_series(1, 60) AS g")
    db.execute("ANALYZE note")
    return db


def plan_of(session: psycopg.Connection[Any], sql: str) -> str:
    return "\n".join(row[0] for row in session.execute(f"EXPLAIN {sql}").fetchall())


@pytest.mark.parametrize("call", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("label", ["SAFE", "RESTRICTED"])
def test_mislabelled_wrapper_is_refused_and_the_server_lives(
    parallel: psycopg.Connection[Any], call: str, label: str
) -> None:
    backend = parallel.info.backend_pid
    parallel.execute(
        f"CREATE FUNCTION wrapped(t text) RETURNS text LANGUAGE plpgsql STABLE PARALLEL {label} COST 100000"
        f" AS $$ BEGIN RETURN {call}; END $$"
    )
    query = "SELECT count(wrapped(content)) FROM note"
    assert "Gather" in plan_of(parallel, query)
    with refused("25000"):
        parallel.execute(query)
    parallel.execute("SET max_parallel_workers_per_gather = 0")
    parallel.execute("RESET ALL")
    assert fetch_value(parallel, query) == 60
    assert fetch_value(parallel, "SELECT pg_backend_pid()") == backend


def test_embed_pinned_runs_in_parallel_workers_with_the_same_result(parallel: psycopg.Connection[Any]) -> None:
    vectors = "SELECT string_agg(embed_pinned(content, 'minilm', 'v1')::text, ' ' ORDER BY content) FROM note"
    assert "Gather" in plan_of(parallel, vectors)
    in_parallel = fetch_value(parallel, vectors)
    parallel.execute("RESET ALL")
    parallel.execute("SET max_parallel_workers_per_gather = 0")
    assert fetch_value(parallel, vectors) == in_parallel


def test_embed_keeps_a_plan_serial(parallel: psycopg.Connection[Any]) -> None:
    query = "SELECT count(embed(content)) FROM note"
    assert "Gather" not in plan_of(parallel, query)
    assert fetch_value(parallel, query) == 60
