"""What the inference functions write into the log, and what the statistics make of it."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect

INGEST = "SELECT pgml_tune._ingest_logs()"
LOGGED = "SELECT count(*), count(DISTINCT call_id) FROM pgml_tune.inference_logs"
INSERT = """
INSERT INTO pgml_tune.call_log (
    logged_at, call_id, task, model, version, texts, input_bytes, output_count, cache, latency_ms, is_cold, is_fallback,
    sqlstate, sample_rate, role_id
)
SELECT now() - %s::interval, g, 'embed', 'minilm', 'v1', 1, 1, 384, 'miss', g * %s::float, false, false,
       %s, %s::real, 10
FROM generate_series(1, %s) AS g
"""


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection[Any]:
    """A superuser's session in a database where every call is logged."""
    session = connect()
    session.execute("SELECT configure('log_sample', '1')")
    return session


def test_a_hundred_calls_stay_though_rolled_back_and_though_their_ingest_is_killed(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    session = connect()
    session.execute("BEGIN")
    for number in range(100):
        session.execute("SELECT embed(%s)", (f"call {number % 10}",))
    session.execute("ROLLBACK")
    killed = connect()
    killed.execute("BEGIN")
    assert fetch_value(killed, INGEST) == 100
    db.execute("SELECT pg_terminate_backend(%s)", (killed.info.backend_pid,))
    wait_until(lambda: fetch_value(db, INGEST) == 100)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.call_log") == 100
    assert db.execute(LOGGED).fetchone() == (100, 100)
    caches = dict(db.execute("SELECT cache, count(*) FROM pgml_tune.inference_logs GROUP BY cache").fetchall())
    assert caches == {"miss": 10, "session": 90}


def test_a_call_is_logged_with_what_it_was(db: psycopg.Connection[Any], connect: Connect) -> None:
    alice = connect("alice")
    alice.execute("SELECT embed(ARRAY['a cat', 'two black cats'])")
    call_id = fetch_value(alice, "SELECT last_call_id()")
    facts = "call_id, task, model, version, outcome, texts, input_bytes, output_count, cache, is_cold, role, input_text"
    assert db.execute(f"SELECT {facts} FROM pgml_tune.inference_logs").fetchone() == (
        call_id, "batch", "minilm", "v1", "ok", 2, 19, 384, "miss", True, "alice", None,
    )  # fmt: skip
    facts = "tokens, memory_bytes > 2 ^ 24, latency_ms > 0, ms_per_text > 0, error"
    assert db.execute(f"SELECT {facts} FROM pgml_tune.performance_logs").fetchone() == (9, True, True, True, None)


def test_an_empty_array_is_logged_as_no_text(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT embed(ARRAY[]::text[])")
    assert db.execute("SELECT texts, ms_per_text FROM pgml_tune.performance_logs").fetchall() == [(0, None)]


def test_failed_calls_are_always_logged_and_others_by_sample(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '0'), configure('max_input_bytes', '10')")
    db.execute("SELECT embed('short')")
    with refused("54000"):
        db.execute("SELECT embed('longer than that')")
    rows = db.execute("SELECT outcome, sqlstate, sample_rate FROM pgml_tune.inference_logs").fetchall()
    assert rows == [("error", "54000", 1.0)]
    assert db.execute("SELECT calls, errors FROM pgml_tune.stat_inference").fetchall() == [(1, 1)]


def test_a_sample_stands_for_all_calls(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '0.2')")
    db.execute("SELECT count(embed('repeated ' || g % 5)) FROM generate_series(1, 2000) AS g")
    rows, weight = db.execute("SELECT count(*), sum(1 / sample_rate) FROM pgml_tune.inference_logs").fetchone() or ()
    assert 250 < rows < 550
    assert weight == pytest.approx(rows * 5)


def test_texts_are_logged_only_if_an_administrator_wants_them(
    db: psycopg.Connection[Any], connect: Connect, server_home: Path
) -> None:
    db.execute("SELECT embed('kanarienvogel5893')")
    with refused("22023"):
        db.execute("SELECT embed('kanarienvogel5893', kind => 'kanarienvogel5893')")
    oid = fetch_value(db, "SELECT oid FROM pg_database WHERE datname = current_database()")
    [file] = (server_home / "spool" / "calls" / str(oid)).iterdir()
    assert b"minilm" in file.read_bytes() and b"kanarienvogel5893" not in file.read_bytes()
    with refused("42501"):
        connect("olga").execute("SELECT configure('log_text', 'on')")
    connect("adam").execute("SELECT configure('log_text', 'on')")
    db.execute("SELECT embed('kept')")
    db.execute(INGEST)
    assert db.execute("SELECT input_text FROM pgml_tune.inference_logs ORDER BY logged_at").fetchall() == [
        (None,), ("kept",),
    ]  # fmt: skip


def test_the_statistics_have_the_times_of_whole_calls(db: psycopg.Connection[Any]) -> None:
    for text in ("a", "b", "a", "b", "a"):
        db.execute("SELECT embed(%s)", (text,))
    times = db.execute("SELECT latency_ms FROM pgml_tune.inference_logs").fetchall()
    spent = [latency for (latency,) in times]
    mean = sum(spent) / 5
    deviation = (sum((latency - mean) ** 2 for latency in spent) / 5) ** 0.5
    columns = "calls, total_exec_time, min_exec_time, max_exec_time, mean_exec_time, stddev_exec_time, p50_exec_time"
    row = db.execute(f"SELECT {columns} FROM pgml_tune.stat_inference").fetchone()
    expected = (5, sum(spent), min(spent), max(spent), mean, deviation, sorted(spent)[2])
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_quantiles_weigh_each_call_and_leave_out_errors_and_old_ones(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT embed('counted')")
    db.execute(INGEST)
    db.execute("TRUNCATE pgml_tune.call_log")
    db.execute(INSERT, ("1 minute", 1.0, None, 0.25, 90))  # 1 .. 90 ms, each for four calls
    db.execute(INSERT, ("1 minute", 100.0, None, 1.0, 100))  # 100 .. 10,000 ms, each for one
    db.execute(INSERT, ("2 hours", 1e6, None, 1.0, 50))
    db.execute(INSERT, ("1 minute", 1e6, "58000", 1.0, 50))
    quantiles = "SELECT p50_exec_time, p95_exec_time, p99_exec_time FROM pgml_tune.stat_inference"
    assert db.execute(quantiles).fetchone() == (58.0, 7700.0, 9600.0)
