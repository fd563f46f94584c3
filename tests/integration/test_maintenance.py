"""The table cache stays within its size, and maintain() waits for nobody."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
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


def test_maintain_holds_no_lock_on_what_it_emptied(full: psycopg.Connection[Any], connect: Connect) -> None:
    full.execute("BEGIN")
    with refused("2D000"):
        full.execute("CALL maintain()")
    other = connect("olga")
    other.execute("SET lock_timeout = '1ms'")
    assert fetch_value(other, "SELECT vector_dims(embed('not yet cached'))") == 384
    full.execute("ROLLBACK")
    other.execute("CALL maintain()")
    assert fetch_value(full, "SELECT oldest FROM pgml_tune.cache_ring") == 1


def test_counters_that_a_role_made_up_do_no_harm(db: psycopg.Connection[Any], connect: Connect) -> None:
    alice = connect("alice")
    alice.execute("SELECT embed('a')")
    for number in ("9223372036854775807", "-5"):
        row = f'{{"model_version_id": 1, "calls": {number}, "texts": {number}, "session_hits": {number},'
        row += f' "table_hits": {number}, "truncated": {number}, "tokens": {number}, "compute_ms": 1e308}}'
        alice.execute("SELECT pgml_tune._write_counts(%s)", (f"[{row}, {row}]",))
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.stat_inference WHERE calls >= 0") >= 1
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.stat_cache") >= 1


def test_a_role_cannot_write_more_than_a_flush_or_anything_but_entries(connect: Connect) -> None:
    alice = connect("alice")
    write = (
        "SELECT pgml_tune._write_cache(%s::bytea[], array_fill(1::bigint, ARRAY[%s]),"
        " array_fill(0::bigint, ARRAY[%s]), %s::bytea[])"
    )
    for keys, vectors in [([b"k" * 32] * 1025, [b"v"] * 1025), ([b"short"], [b"v"]), ([b"k" * 32], [b"v" * 65537])]:
        assert fetch_value(alice, write, (keys, len(keys), len(keys), vectors)) == 0
