"""The log of calls is kept by day, made ahead, dropped when it is old, and taken along by a dump."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from call_lines import make_writer
from conditions import fetch_value
from conftest import Connect
from dumping import restored_copy

ROTATE = "SELECT pgml_tune._rotate_logs()"
PARTITIONS = """
SELECT array_agg(substr(c.relname, 10)::date - current_date ORDER BY c.relname)
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'pgml_tune.call_log'::regclass AND c.relname <> 'call_log_default'
"""
DEFAULT = "SELECT count(*) FROM pgml_tune.call_log_default"
ALL = "SELECT count(*) FROM pgml_tune.call_log"
# Copies the calls there are to another day.
MOVE = """
INSERT INTO pgml_tune.call_log
SELECT (jsonb_populate_record(c, jsonb_build_object('logged_at', now() + %s::interval))).*
FROM pgml_tune.call_log AS c WHERE c.logged_at BETWEEN now() - interval '1 hour' AND now()
"""


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection[Any]:
    """A superuser's session in a database with ten calls in its log, whose partitions are not yet made."""
    session = connect()
    session.execute("SET TimeZone = 'UTC'")
    make_writer(session)
    session.execute("SELECT write_calls(1, 10), pgml_tune._ingest_logs()")
    assert fetch_value(session, DEFAULT) == 10
    return session


def test_partitions_are_made_ahead_and_get_what_lay_in_the_default_one(db: psycopg.Connection[Any]) -> None:
    assert fetch_value(db, ROTATE) == 0
    assert fetch_value(db, PARTITIONS) == [0, 1, 2, 3, 4]
    assert (fetch_value(db, DEFAULT), fetch_value(db, ALL)) == (0, 10)
    db.execute("SELECT write_calls(11, 5), pgml_tune._ingest_logs()")
    assert (fetch_value(db, DEFAULT), fetch_value(db, ALL)) == (0, 15)
    assert fetch_value(db, ROTATE) == 0
    assert fetch_value(db, PARTITIONS) == [0, 1, 2, 3, 4]


def test_days_without_a_partition_get_one_when_maintain_comes_late(db: psycopg.Connection[Any]) -> None:
    db.execute(MOVE, ("-3 days",))
    db.execute(MOVE, ("20 days",))
    db.execute(ROTATE)
    assert fetch_value(db, PARTITIONS) == [-3, 0, 1, 2, 3, 4]
    assert (fetch_value(db, DEFAULT), fetch_value(db, ALL)) == (10, 30)  # those of the future wait for their day


def test_what_is_older_than_log_keep_days_is_dropped(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_keep_days', '7')")
    for age in ("-7 days", "-8 days", "-900 days"):
        db.execute(MOVE, (age,))
    db.execute("SELECT pgml_tune._add_log_partition(current_date - 8)")
    assert (fetch_value(db, DEFAULT), fetch_value(db, ALL)) == (30, 40)
    assert fetch_value(db, ROTATE) == 1
    assert (fetch_value(db, DEFAULT), fetch_value(db, ALL)) == (0, 20)
    assert fetch_value(db, PARTITIONS) == [-7, 0, 1, 2, 3, 4]


def test_each_partition_has_the_indexes_of_the_default_one_and_its_owner_alone(db: psycopg.Connection[Any]) -> None:
    db.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO mallory, PUBLIC")
    db.execute(ROTATE)
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = i.inhrelid"
    facts = f"SELECT DISTINCT ({indexes}), c.relacl::text, pg_get_userbyid(c.relowner) FROM pg_inherits AS i"
    rows = db.execute(
        f"{facts} JOIN pg_class AS c ON c.oid = i.inhrelid WHERE inhparent = 'pgml_tune.call_log'::regclass"
    ).fetchall()
    assert {(count, owner) for count, _, owner in rows} == {(3, "postgres")}
    assert not [acl for _, acl, _ in rows if acl and ("mallory" in acl or "{=" in acl or ",=" in acl)]


def test_maintain_does_not_wait_for_a_reader_of_the_log(db: psycopg.Connection[Any], connect: Connect) -> None:
    reader = connect()
    reader.execute("BEGIN")
    assert fetch_value(reader, ALL) == 10
    db.execute("SELECT write_calls(11, 5)")
    db.execute("CALL maintain()")
    assert fetch_value(db, PARTITIONS) is None
    assert (fetch_value(db, ALL), fetch_value(reader, ALL)) == (15, 15)
    reader.execute("COMMIT")
    db.execute("CALL maintain()")
    assert fetch_value(db, PARTITIONS) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_dump_takes_the_log_along(
    db: psycopg.Connection[Any], connect: Connect, tmp_path: Path, form: str
) -> None:
    db.execute(ROTATE)
    db.execute(MOVE, ("20 days",))
    with restored_copy(db, connect, tmp_path, form) as copy:
        rows = "SELECT tableoid::regclass::text, l::text FROM pgml_tune.call_log AS l ORDER BY 1, 2"
        assert copy.execute(rows).fetchall() == db.execute(rows).fetchall()
        assert fetch_value(copy, ALL) == 20
        copy.execute("SET TimeZone = 'UTC'")
        assert fetch_value(copy, ROTATE) == 0
        assert fetch_value(copy, PARTITIONS) == [0, 1, 2, 3, 4]
        copy.execute(MOVE, ("-1 day",))
        copy.execute(ROTATE)
        assert fetch_value(copy, PARTITIONS) == [-1, 0, 1, 2, 3, 4]


def test_the_extension_takes_its_log_with_it(db: psycopg.Connection[Any]) -> None:
    db.execute(ROTATE)
    db.execute("DROP EXTENSION pgml_tune")
    assert fetch_value(db, "SELECT count(*) FROM pg_class WHERE relname LIKE 'call_log%'") == 0
