"""Many sessions, few texts: nobody waits for anybody."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from conftest import Connect

SESSIONS = 16
CALLS = 1000
TRANSACTIONS = 4
TEXTS = [f"text number {number}" for number in range(8)]
LONGEST_WAIT_MS = 10
MODEL = "minilm@v1-int8"


def call_in_long_transactions(session: psycopg.Connection[Any], number: int) -> int:
    """Embeds the same texts over and over, every second session in the opposite order; returns the errors."""
    texts = TEXTS if number % 2 else TEXTS[::-1]
    errors = 0
    for part in range(TRANSACTIONS):
        with session.transaction():
            for call in range(CALLS // TRANSACTIONS):
                text = f"{texts[call % len(texts)]} {part}"
                errors += fetch_value(session, "SELECT embed(%s, %s) IS NULL", (text, MODEL))
    return errors


def longest_wait_ms(session: psycopg.Connection[Any], stop: Event) -> float:
    """Watches for sessions that wait for a lock until told to stop; returns the longest wait seen.

    The lock for growing a file is left out: it is held for microseconds, so a wait for it measures the system's
    scheduler, which may put its holder to sleep when there are more sessions than cores.
    """
    longest = 0.0
    while not stop.wait(0.003):
        waited = fetch_value(
            session,
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0) FROM pg_locks AS l"
            " WHERE NOT l.granted AND l.locktype <> 'extend'",
        )
        longest = max(longest, float(waited) * 1000)
    return longest


def is_wait(line: str) -> bool:
    """Whether a line of the server's log tells of a wait that `longest_wait_ms` counts too."""
    return "still waiting for" in line and "on extension of relation" not in line


@pytest.mark.slow
@pytest.mark.parametrize("session_cache_bytes", ["0", "16777216"], ids=["table_cache_only", "both_caches"])
def test_sessions_in_opposite_orders_never_wait_or_deadlock(
    connect: Connect, db: psycopg.Connection[Any], server_log: Callable[[int], str], session_cache_bytes: str
) -> None:
    db.execute("SELECT configure('session_cache_bytes', %s)", (session_cache_bytes,))
    position = len(server_log(0).encode())
    # A wait beyond deadlock_timeout is written to the log, however short the moments between two looks.
    options = f"-c deadlock_timeout={LONGEST_WAIT_MS}ms -c log_lock_waits=on"
    sessions = [connect(options=options) for _ in range(SESSIONS)]
    for session in sessions:
        session.execute("SELECT embed('load the model', %s)", (MODEL,))
    watcher, stop = connect(), Event()
    with ThreadPoolExecutor(SESSIONS + 1) as threads:
        watching = threads.submit(longest_wait_ms, watcher, stop)
        errors = list(threads.map(call_in_long_transactions, sessions, range(SESSIONS)))
        stop.set()
    assert errors == [0] * SESSIONS
    assert watching.result() <= LONGEST_WAIT_MS
    assert not list(filter(is_wait, server_log(position).splitlines()))
    assert fetch_value(db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


@pytest.mark.slow
def test_one_statement_over_10000_rows_uses_at_most_60_transaction_ids(db: psycopg.Connection[Any]) -> None:
    words = "lake stone paper cloud river music garden engine window winter".split()
    rows = [" ".join(random.Random(number).choices(words, k=3)) + f" {number}" for number in range(10_000)]
    db.execute("CREATE TABLE document (content text) WITH (autovacuum_enabled = off)")
    db.execute("INSERT INTO document SELECT unnest(%s::text[])", (rows,))
    newest = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    before = fetch_value(db, newest)
    assert fetch_value(db, "SELECT count(embed(content, %s)) FROM document", (MODEL,)) == len(rows)
    assert fetch_value(db, newest) - before <= 60


def test_parallel_serializable_transactions_that_embed_never_conflict(connect: Connect) -> None:
    sessions = [connect() for _ in range(4)]

    def embed_twice(session: psycopg.Connection[Any]) -> int:
        done = 0
        for number in range(10):
            session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            for text in (f"serial {number}", f"serial {number + 1}"):
                done += fetch_value(session, "SELECT embed(%s) IS NOT NULL", (text,))
            session.execute("COMMIT")
        return done

    with ThreadPoolExecutor(len(sessions)) as threads:
        assert list(threads.map(embed_twice, sessions)) == [20] * len(sessions)
