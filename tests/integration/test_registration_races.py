"""Two sessions change the registry at once: one waits for the other, and both end by the book."""

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect

REGISTER = "SELECT register_model(%s, %s, 'embedding', %s::text)"


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def names() -> tuple[str, str]:
    return f"one-{uuid.uuid4().hex[:12]}", f"two-{uuid.uuid4().hex[:12]}"


def is_waiting(observer: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    sql = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    return bool(fetch_value(observer, sql, (other.info.backend_pid,)))


def commit_when_other_waits_or_ends(
    one: psycopg.Connection[Any], other: psycopg.Connection[Any], ending: Future[Any], observer: psycopg.Connection[Any]
) -> None:
    wait_until(lambda: ending.done() or is_waiting(observer, other))
    one.execute("COMMIT")


def empty_registry(db: psycopg.Connection[Any]) -> None:
    for version in ("v1-int8", "v1-int8-block"):
        db.execute("SELECT drop_model_version('minilm', %s)", (version,))
    db.execute("SELECT drop_model_version('minilm', 'v1')")


def test_two_first_models_leave_one_default(
    connect: Connect, db: psycopg.Connection[Any], background: ThreadPoolExecutor, names: tuple[str, str]
) -> None:
    empty_registry(db)
    one, other = connect(), connect()
    one.execute("BEGIN")
    one.execute(REGISTER, (names[0], "minilm@v1", "v1"))
    ending = background.submit(other.execute, REGISTER, (names[1], "minilm@v1", "v1"))
    commit_when_other_waits_or_ends(one, other, ending, db)
    assert ending.result().fetchone() == ("v1",)
    assert fetch_value(db, "SELECT model FROM pgml_tune.models WHERE is_default") == names[0]
    assert fetch_value(db, "SELECT vector_dims(embed('a', %s))", (names[1],)) == 384


def test_same_version_registered_twice_at_once_is_taken(
    connect: Connect, db: psycopg.Connection[Any], background: ThreadPoolExecutor, names: tuple[str, str]
) -> None:
    one, other = connect(), connect()
    one.execute("BEGIN")
    one.execute(REGISTER, (names[0], "minilm@v1", "v1"))
    ending = background.submit(other.execute, REGISTER, (names[0], "minilm@v1", "v1"))
    commit_when_other_waits_or_ends(one, other, ending, db)
    with refused("42710"):
        ending.result()
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.model_versions WHERE model = %s", (names[0],)) == 1


def test_version_dropped_by_two_sessions_is_missing_for_one(
    connect: Connect, db: psycopg.Connection[Any], background: ThreadPoolExecutor, names: tuple[str, str]
) -> None:
    db.execute(REGISTER, (names[0], "minilm@v1", "v1"))
    one, other = connect(), connect()
    one.execute("BEGIN")
    one.execute("SELECT drop_model_version(%s, 'v1')", (names[0],))
    ending = background.submit(other.execute, "SELECT drop_model_version(%s, 'v1')", (names[0],))
    commit_when_other_waits_or_ends(one, other, ending, db)
    with refused("42704"):
        ending.result()
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.models WHERE model = %s", (names[0],)) == 0


def test_registration_while_the_last_version_is_dropped_ends_by_the_book(
    connect: Connect, db: psycopg.Connection[Any], background: ThreadPoolExecutor, names: tuple[str, str]
) -> None:
    db.execute(REGISTER, (names[0], "minilm@v1", "v1"))
    one, other = connect(), connect()
    one.execute("BEGIN")
    one.execute("SELECT drop_model_version(%s, 'v1')", (names[0],))
    ending = background.submit(other.execute, REGISTER, (names[0], "minilm@v1-int8", "v2"))
    commit_when_other_waits_or_ends(one, other, ending, db)
    assert ending.result().fetchone() == ("v2",)
    assert fetch_value(db, "SELECT vector_dims(embed('a', %s))", (names[0],)) == 384


def test_setting_written_by_two_sessions_at_once_has_the_later_value(
    connect: Connect, db: psycopg.Connection[Any], background: ThreadPoolExecutor
) -> None:
    one, other = connect(), connect()
    one.execute("BEGIN")
    one.execute("SELECT configure('threads', '2')")
    ending = background.submit(other.execute, "SELECT configure('threads', '3')")
    commit_when_other_waits_or_ends(one, other, ending, db)
    assert ending.result().fetchone() == ("3",)
    assert fetch_value(db, "SELECT value FROM pgml_tune.settings WHERE name = 'threads'") == "3"
