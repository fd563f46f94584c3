"""The table cache stays within its size, and maintain() waits for nobody."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from conftest import Connect

GENERATIONS = 8
ROWS = " UNION ALL ".join(f"SELECT count(*) AS n FROM pgml_tune.cache_entry_{number}" for number in range(GENERATIONS))
ENTRIES = f"SELECT sum(n)::bigint FROM ({ROWS}) AS r"


@pytest.fixture
def full(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database whose table cache is as small as it may be, and full."""
    db.execute("SELECT configure('table_cache_bytes', '8388608')")
    for number in range(GENERATIONS):
        db.execute(
            f"INSERT INTO pgml_tune.cache_entry_{number}"
            " SELECT sha256(int4send(g)), 1, 10, convert_to(repeat('x', 1536),"
            " 'UTF8') FROM generate_series(1, 700) AS g"
        )
    return db


def test_full_cache_takes_no_entry_until_maintain_empties_the_oldest(
    full: psycopg.Connection[Any], connect: Connect
) -> None:
    before = fetch_value(full, ENTRIES)
    assert fetch_value(full, "SELECT vector_dims(embed('no room'))") == 384
    assert fetch_value(full, ENTRIES) == before
    full.execute("CALL maintain()")
    assert fetch_value(full, "SELECT count(*) FROM pgml_tune.cache_entry_0") == 0
    assert fetch_value(full, ENTRIES) == before - 700
    connect().execute("SELECT embed('room again')")
    assert fetch_value(full, "SELECT count(*) FROM pgml_tune.cache_entry_0") == 1


def test_maintain_leaves_a_generation_that_a_session_reads(full: psycopg.Connection[Any], connect: Connect) -> None:
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT embed('reads every generation')")
    before = fetch_value(full, ENTRIES)
    full.execute("SET lock_timeout = '1ms'")
    full.execute("CALL maintain()")
    assert fetch_value(full, ENTRIES) == before
    reader.execute("COMMIT")
    full.execute("CALL maintain()")
    assert fetch_value(full, ENTRIES) == before - 700


def test_maintain_keeps_the_sums_of_the_counters(db: psycopg.Connection[Any], connect: Connect) -> None:
    for _ in range(3):
        session = connect()
        session.execute("SELECT embed('counted')")
        session.close()
    sums = "SELECT sum(calls), sum(texts), sum(session_hits), sum(table_hits), sum(tokens) FROM pgml_tune.call_count"
    before = db.execute(sums).fetchone()
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.call_count") == 3
    db.execute("CALL maintain()")
    assert db.execute(sums).fetchone() == before
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.call_count") == 1


def test_maintain_runs_within_a_transaction_and_beside_others(connect: Connect) -> None:
    one, other = connect(), connect("olga")
    one.execute("BEGIN")
    one.execute("CALL maintain()")
    other.execute("SET lock_timeout = '1ms'")
    other.execute("CALL maintain()")
    one.execute("ROLLBACK")
    assert fetch_value(one, "SELECT oldest FROM pgml_tune.cache_ring") == 0
