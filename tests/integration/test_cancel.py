"""A call that takes long ends when it is told to."""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect

LIMIT_SECONDS = 1.0
MANY = "SELECT array_length(embed(array_agg('text ' || g || repeat(' many words in a row', 60))), 1)" + (
    " FROM generate_series(1, 4000) AS g"
)
CALLS = {
    "array": MANY,
    "rows": "SELECT count(embed('row ' || g || repeat(' and more', 60))) FROM generate_series(1, 100000) AS g",
    "pinned_rows": "SELECT count(embed_pinned('row ' || g || repeat(' and more', 60), 'minilm', 'v1'))"
    " FROM generate_series(1, 100000) AS g",
    "long_texts": "SELECT count(e) FROM unnest(embed(array_fill(repeat('word ', 200000), ARRAY[3])"
    " || (SELECT array_agg(g || repeat(' x', 400000)) FROM generate_series(1, 60) AS g))) AS e",
}


@pytest.fixture
def session(connect: Connect) -> psycopg.Connection[Any]:
    """A session whose model is loaded."""
    opened = connect("alice")
    opened.execute("SELECT embed('load the model'), embed_pinned('load the model', 'minilm', 'v1')")
    return opened


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def is_running(observer: psycopg.Connection[Any], backend: int) -> bool:
    """Whether a session has been at work for a moment."""
    sql = (
        "SELECT state = 'active' AND clock_timestamp() - query_start > interval '0.5 s'"
        " FROM pg_stat_activity WHERE pid = %s"
    )
    return bool(fetch_value(observer, sql, (backend,)))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_cancel_ends_a_call_within_a_second(
    session: psycopg.Connection[Any], db: psycopg.Connection[Any], background: ThreadPoolExecutor, call: str
) -> None:
    backend = session.info.backend_pid
    ending = background.submit(session.execute, call)
    wait_until(lambda: is_running(db, backend))
    started = time.monotonic()
    assert fetch_value(db, "SELECT pg_cancel_backend(%s)", (backend,))
    with refused("57014"):
        ending.result()
    assert time.monotonic() - started <= LIMIT_SECONDS
    assert fetch_value(session, "SELECT vector_dims(embed('healthy afterwards'))") == 384
    assert session.info.backend_pid == backend


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_statement_timeout_ends_a_call_within_a_second(session: psycopg.Connection[Any], call: str) -> None:
    session.execute("SET statement_timeout = 500")
    started = time.monotonic()
    with refused("57014"):
        session.execute(call)
    assert time.monotonic() - started <= 0.5 + LIMIT_SECONDS
    session.execute("RESET statement_timeout")
    assert fetch_value(session, "SELECT vector_dims(embed('healthy afterwards'))") == 384


def test_terminate_ends_a_bulk_call_within_a_second(
    session: psycopg.Connection[Any], db: psycopg.Connection[Any], background: ThreadPoolExecutor
) -> None:
    backend = session.info.backend_pid
    ending = background.submit(session.execute, MANY)
    wait_until(lambda: is_running(db, backend))
    started = time.monotonic()
    assert fetch_value(db, "SELECT pg_terminate_backend(%s)", (backend,))
    with refused("57P01"):
        ending.result()
    assert time.monotonic() - started <= LIMIT_SECONDS
    assert fetch_value(db, "SELECT vector_dims(embed('the others live'))") == 384


def test_oversized_text_is_refused_and_not_kept(session: psycopg.Connection[Any]) -> None:
    before = resident_bytes(session)
    with refused("54000"):
        session.execute("SELECT embed(repeat('x', 200000000))")
    assert fetch_value(session, "SELECT vector_dims(embed('healthy afterwards'))") == 384
    assert resident_bytes(session) - before <= 16 << 20


def resident_bytes(session: psycopg.Connection[Any]) -> int:
    """The memory of a session's backend."""
    return int(Path(f"/proc/{session.info.backend_pid}/statm").read_text().split()[1]) * resource.getpagesize()
