"""What a worker does for a database from time to time."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, wait_until
from conftest import Connect

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.worker.link import Place
from pgml_tune.worker.upkeep import Upkeep


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> Iterator[ConnectionDatabase]:
    info = db.info
    opened = ConnectionDatabase.connect(f"host={info.host} port={info.port} user=postgres", "test", info.dbname)
    yield opened
    opened.close()


def keep_up(clock: Clock, session: ConnectionDatabase, seconds: list[float]) -> None:
    upkeep = Upkeep(Place(""), "this worker", threading.Event(), clock)
    for passed in seconds:
        clock.now += passed
        upkeep.turn(session)


def logged(db: psycopg.Connection[Any]) -> int:
    """Calls in the log itself, not in the spool."""
    return int(fetch_value(db, "SELECT count(*) FROM pgml_tune.call_log"))


def test_logged_calls_are_taken_in_each_minute(
    db: psycopg.Connection[Any], session: ConnectionDatabase, clock: Clock
) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    db.execute("SELECT embed('a text')")
    keep_up(clock, session, [1, 30])
    assert logged(db) == 0
    keep_up(clock, session, [61])
    assert logged(db) == 1


def test_maintain_is_called_every_few_minutes_unless_told_otherwise(
    db: psycopg.Connection[Any], session: ConnectionDatabase, clock: Clock
) -> None:
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text); CALL auto_embed('doc', 'body')")
    count = "SELECT count(*) FROM pgml_tune.collection"
    db.execute("DROP TABLE doc CASCADE")
    db.execute("SELECT configure('maintain_minutes', '0')")
    keep_up(clock, session, [100, 10_000])
    assert fetch_value(db, count) == 1
    db.execute("SELECT configure('maintain_minutes', '2')")
    keep_up(clock, session, [61])
    assert fetch_value(db, count) == 1
    keep_up(clock, session, [61, 61])
    assert fetch_value(db, count) == 0


def test_one_of_several_workers_does_it(
    db: psycopg.Connection[Any], connect: Connect, session: ConnectionDatabase, clock: Clock
) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    db.execute("SELECT embed('a text')")
    other = connect()
    gone = other.info.backend_pid
    begun = "INSERT INTO pgml_tune.worker (name, backend_pid, is_one_shot) VALUES (%s, pg_backend_pid(), false)"
    other.execute(begun, ("other",))
    db.execute(begun, ("this worker",))
    keep_up(clock, session, [61])
    assert logged(db) == 0
    other.close()
    wait_until(lambda: fetch_value(db, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (gone,)) == 0)
    keep_up(clock, session, [61])
    assert logged(db) == 1


def test_nobody_who_may_not_maintain_can_keep_workers_from_it(
    db: psycopg.Connection[Any], connect: Connect, session: ConnectionDatabase, clock: Clock
) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    db.execute("SELECT embed('a text')")
    connect("stranger").execute("SELECT pg_advisory_lock(1886350708, number) FROM generate_series(1, 20) AS number")
    keep_up(clock, session, [61])
    assert logged(db) == 1
