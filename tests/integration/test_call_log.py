"""Calls written to the spool reach the log exactly once, whatever happens to those who write, ingest and read."""

import os
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from call_lines import make_writer
from conditions import fetch_value, refused, wait_until
from conftest import Connect

INGEST = "SELECT pgml_tune._ingest_logs()"
SEEN = "SELECT count(*) FROM pgml_tune._calls"
DISTINCT = "SELECT count(DISTINCT call_id) FROM pgml_tune._calls"
STORED = "SELECT count(*) FROM pgml_tune.call_log"


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection[Any]:
    """A superuser's session in a database that has function write_calls()."""
    session = connect()
    make_writer(session)
    return session


@pytest.fixture
def writer(db: psycopg.Connection[Any], connect: Connect) -> psycopg.Connection[Any]:
    """A session that calls models."""
    return connect()


@pytest.fixture
def spool(db: psycopg.Connection[Any], server_home: Path) -> Path:
    """The folder of the database's spool files."""
    oid = fetch_value(db, "SELECT oid FROM pg_database WHERE datname = current_database()")
    return server_home / "spool" / "calls" / str(oid)


def end(session: psycopg.Connection[Any]) -> None:
    """Close a session and wait until its process is gone, and with it its hold on its file."""
    process = Path("/proc", str(session.info.backend_pid))
    session.close()
    wait_until(lambda: not process.exists())


def outcomes(db: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(db.execute("SELECT outcome, count(*) FROM pgml_tune.inference_logs GROUP BY outcome").fetchall())


def test_calls_of_a_transaction_that_is_rolled_back_stay(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    writer.execute("BEGIN")
    writer.execute("SELECT write_calls(1, 100)")
    writer.execute("ROLLBACK")
    assert fetch_value(db, SEEN) == 100
    assert fetch_value(db, INGEST) == 100
    assert fetch_value(db, STORED) == fetch_value(db, SEEN) == fetch_value(db, DISTINCT) == 100


def test_an_ingest_that_is_killed_midway_leaves_all_for_the_next(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], connect: Connect
) -> None:
    writer.execute("BEGIN")
    writer.execute("SELECT write_calls(1, 100)")
    writer.execute("ROLLBACK")
    killed = connect()
    killed.execute("BEGIN")
    assert fetch_value(killed, INGEST) == 100
    assert fetch_value(killed, SEEN) == fetch_value(db, SEEN) == 100
    db.execute("SELECT pg_terminate_backend(%s)", (killed.info.backend_pid,))
    wait_until(lambda: fetch_value(db, INGEST) == 100)
    assert fetch_value(db, STORED) == fetch_value(db, SEEN) == fetch_value(db, DISTINCT) == 100
    assert fetch_value(db, INGEST) == 0


def test_a_reader_sees_each_call_once_while_and_after_it_is_ingested(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], connect: Connect
) -> None:
    writer.execute("SELECT write_calls(1, 50)")
    reader = connect()
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert fetch_value(reader, SEEN) == 50
    with db.transaction():
        db.execute(INGEST)
        assert fetch_value(reader, SEEN) == 50
    writer.execute("SELECT write_calls(51, 50)")
    end(writer)
    db.execute(INGEST)
    assert fetch_value(reader, STORED) == 0
    assert (fetch_value(reader, SEEN), fetch_value(reader, DISTINCT)) == (100, 100)
    assert (fetch_value(db, SEEN), fetch_value(db, STORED)) == (100, 100)


def test_only_one_session_ingests_at_a_time_and_the_other_does_not_wait(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], connect: Connect
) -> None:
    writer.execute("SELECT write_calls(1, 10)")
    with db.transaction():
        assert fetch_value(db, INGEST) == 10
        assert fetch_value(connect(), INGEST) == 0
        assert fetch_value(connect(), "SELECT pgml_tune._rotate_logs()") == 0
    assert fetch_value(connect(), STORED) == 10


def test_nobody_without_rights_can_hold_up_the_ingest(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], connect: Connect
) -> None:
    writer.execute("SELECT write_calls(1, 10)")
    for role in ("mallory", "alice", "olga"):
        with refused("42501"):
            connect(role).execute("SELECT FROM pgml_tune.log_info FOR UPDATE")
    assert fetch_value(db, INGEST) == 10


def test_a_call_without_end_is_lost_when_its_backend_is_gone(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    writer.execute("SELECT write_calls(1, 5)")
    writer.execute("SELECT write_calls(6, 2, has_ended => false)")
    assert (fetch_value(db, INGEST), outcomes(db)) == (5, {"ok": 5})
    end(writer)
    assert outcomes(db) == {"ok": 5, "lost": 2}  # before they are ingested
    assert (fetch_value(db, INGEST), outcomes(db)) == (2, {"ok": 5, "lost": 2})
    lost = "SELECT sqlstate, variant, rollout_id FROM pgml_tune.call_log WHERE call_id = 7"
    assert db.execute(lost).fetchone() == ("58000", "candidate", 1)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.open_call") == 0


def test_a_call_that_ends_after_its_beginning_was_ingested_is_not_lost(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    writer.execute("SELECT write_calls(1, 3, has_ended => false)")
    assert fetch_value(db, INGEST) == 0
    writer.execute("SELECT write_calls(1, 2)")
    assert fetch_value(db, INGEST) == 2
    end(writer)
    assert (fetch_value(db, INGEST), outcomes(db)) == (1, {"ok": 2, "lost": 1})


def test_calls_in_a_read_only_transaction_are_logged(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    writer.execute("BEGIN READ ONLY")
    writer.execute("SELECT write_calls(1, 10)")
    assert fetch_value(writer, SEEN) == 10
    with refused("25006"):
        writer.execute(INGEST)
    writer.execute("ROLLBACK")
    assert fetch_value(db, INGEST) == 10


def test_torn_and_forged_lines_are_counted_and_stop_nobody(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], spool: Path
) -> None:
    writer.execute("SELECT write_calls(1, 3)")
    [file] = spool.glob("*.log")
    whole = file.read_bytes().split(b"\n")[0]
    node = file.name.split("-")[0]
    garbage = [
        b"", b"E", whole[:-5] + b"\xff\xfe", whole.replace(b"\t1.0000\t", b"\t0.0000\t"), b"\0" * 300,
        whole.replace(b"minilm", b"'); DROP TABLE x; --"), whole + whole, whole.replace(b"\tt", b"\tmaybe"),
        b"D\tnone\t" + b"9" * 18, b"D\tnone\t" + b"9" * 18, b"E\t" + b"9" * 16 + b"\t" + b"9" * 19,
        b"x" * 100_000, whole[:40],
    ]  # fmt: skip
    forged = spool / f"{node}-1-a-0.log"
    forged.write_bytes(b"\n".join(garbage))
    os.mkfifo(spool / f"{node}-1-b-0.log")
    (spool / f"{node}-1-c-0.log").mkdir()
    (spool / f"{node}-1-d-0.log").symlink_to("/etc/passwd")
    os.chmod(forged, 0o644)
    assert fetch_value(db, SEEN) == 4  # a text may hold what is no Unicode: it is replaced
    assert fetch_value(db, INGEST) == 4
    assert fetch_value(db, INGEST) == 0
    lost = "SELECT dropped_bytes, refused_lines FROM pgml_tune.stat_log"
    assert db.execute(lost).fetchone() == (1 << 50, len(garbage) - 3)


def test_a_character_that_the_database_has_not_refuses_one_line_only(connect: Connect, server_home: Path) -> None:
    first = connect()
    first.execute("DROP DATABASE IF EXISTS latin")
    first.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        latin = connect(dbname="latin")
        latin.execute("SET client_min_messages = warning")
        latin.execute("CREATE EXTENSION pgml_tune CASCADE")
        make_writer(latin)
        latin.execute("SELECT write_calls(1, 3, true, 'café')")
        oid = fetch_value(latin, "SELECT oid FROM pg_database WHERE datname = 'latin'")
        [file] = (server_home / "spool" / "calls" / str(oid)).glob("*.log")
        with file.open("ab") as lines:
            lines.write(file.read_bytes().split(b"\n")[0].replace("é".encode(), "猫".encode()) + b"\n")
        assert (fetch_value(latin, SEEN), fetch_value(latin, INGEST)) == (3, 3)
        assert fetch_value(latin, "SELECT DISTINCT input_text FROM pgml_tune.call_log") == "café"
        assert fetch_value(latin, "SELECT refused_lines FROM pgml_tune.stat_log") == 1
        latin.close()
    finally:
        first.execute("DROP DATABASE latin WITH (FORCE)")


def test_a_file_stays_an_hour_and_until_no_statement_can_need_it(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], connect: Connect, spool: Path
) -> None:
    writer.execute("SELECT write_calls(1, 10)")
    end(writer)
    reader = connect()
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert fetch_value(reader, SEEN) == 10
    db.execute(INGEST)
    db.execute(INGEST)
    assert len(list(spool.glob("*.log"))) == 1
    db.execute("UPDATE pgml_tune.log_file SET done_at = now() - interval '61 minutes'")
    db.execute(INGEST)
    assert fetch_value(reader, SEEN) == 10
    reader.execute("COMMIT")
    db.execute(INGEST)
    assert list(spool.glob("*.log")) == []
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.log_file") == 0
    assert (fetch_value(db, SEEN), fetch_value(reader, SEEN)) == (10, 10)


def test_what_another_node_left_is_neither_ingested_nor_kept_for_ever(
    db: psycopg.Connection[Any], writer: psycopg.Connection[Any], spool: Path
) -> None:
    writer.execute("SELECT write_calls(1, 1)")
    [file] = spool.glob("*.log")
    stranger = spool / f"{'0' * 12}-1-a-0.log"
    stranger.write_bytes(file.read_bytes())
    dropped = spool.parent / "1" / file.name
    dropped.parent.mkdir(exist_ok=True)
    dropped.write_bytes(file.read_bytes())
    shutil.chown(dropped.parent, spool.stat().st_uid)
    assert (fetch_value(db, INGEST), fetch_value(db, SEEN)) == (1, 1)
    assert stranger.exists() and dropped.exists()
    (spool.parent / "note").write_text("in the way")
    for left in (stranger, dropped):
        os.utime(left, (0, 0))
    db.execute(INGEST)
    assert not stranger.exists() and not dropped.exists()
    assert file.exists()
    os.utime(dropped.parent, (0, 0))
    db.execute(INGEST)
    (spool.parent / "note").unlink()
    assert not dropped.parent.exists()


def test_texts_are_shown_only_to_those_who_belong_to_the_role(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    db.execute("GRANT EXECUTE ON FUNCTION write_calls TO alice, olga")
    connect("alice").execute("SELECT write_calls(1, 1, true, 'secret of alice')")
    olga = connect("olga")
    olga.execute("SELECT write_calls(2, 1, true, 'text of olga')")
    texts = "SELECT call_id, input_text FROM pgml_tune.inference_logs ORDER BY call_id"
    assert olga.execute(texts).fetchall() == db.execute(texts).fetchall() == [(1, None), (2, None)]
    assert fetch_value(olga, INGEST) == 2
    assert olga.execute(texts).fetchall() == [(1, None), (2, "text of olga")]
    assert db.execute(texts).fetchall() == [(1, "secret of alice"), (2, "text of olga")]
    for hidden in ("pgml_tune._calls", "pgml_tune.call_log", "pgml_tune.open_call", "pgml_tune.log_file"):
        with refused("42501"):
            olga.execute(f"SELECT count(*) FROM {hidden}")
    for view in ("inference_logs", "performance_logs", "stat_log"):
        with refused("42501"):
            connect("alice").execute(f"SELECT count(*) FROM pgml_tune.{view}")
