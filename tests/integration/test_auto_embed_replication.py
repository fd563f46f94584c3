"""Logical replication writes past the triggers of a subscriber; its collection catches up when it is asked to."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, collection_row, model_does
from commands import program, run, server_environment, server_user
from conditions import fetch_value, wait_until
from conftest import Connect

PORT = 5434


@pytest.fixture
def publisher(db: psycopg.Connection[Any], connect: Connect, server_home: Path) -> Iterator[psycopg.Connection[Any]]:
    """A session on a copy of the server under test that decodes its log."""
    owner = server_user(server_home / "data")
    folder = server_home / "publisher"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shutil.chown(folder, owner.pw_uid, owner.pw_gid)
    host = str(db.info.host)
    run(program("pg_basebackup"), "--host", host, "--username", "postgres", "--pgdata", str(folder),
        "--checkpoint=fast", "--no-sync", user=owner.pw_name)  # fmt: skip
    control = [program("pg_ctl"), "--pgdata", str(folder), "--silent"]
    options = f"-c port={PORT} -c unix_socket_directories={host} -c shared_buffers=32MB -c wal_level=logical"
    run(*control, "start", "--wait", "--log", str(server_home / "log" / "publisher.log"), "--options", options,
        user=owner.pw_name, environment=server_environment(server_home / "data"))  # fmt: skip
    try:
        session = connect(port=PORT)
        yield session
        session.close()
    finally:
        run(*control, "stop", "--mode", "immediate", user=owner.pw_name)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_subscriber_takes_rows_without_the_model_and_catches_up_when_asked(
    publisher: psycopg.Connection[Any], connect: Connect
) -> None:
    place = f"host={publisher.info.host} port={PORT} user=postgres"
    origin = publisher.info.dbname
    publisher.close()
    connect(port=PORT, dbname="postgres").execute(f'CREATE DATABASE subscriber TEMPLATE "{origin}"')
    publisher, subscriber = connect(port=PORT), connect(port=PORT, dbname="subscriber")
    for session in (publisher, subscriber):
        session.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
    publisher.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 30) AS g")
    for session in (publisher, subscriber):
        session.execute("CALL auto_embed('doc', 'body')")
    publisher.execute("CREATE PUBLICATION docs FOR TABLE doc")
    # Both are databases of one server: a subscription that made its slot would wait for itself.
    publisher.execute("SELECT pg_create_logical_replication_slot('docs', 'pgoutput')")
    subscriber.execute(
        f"CREATE SUBSCRIPTION docs CONNECTION '{place} dbname={origin}' PUBLICATION docs WITH (create_slot = false)"
    )

    def replicated() -> bool:
        content = "SELECT coalesce(md5(string_agg(id || body, ',' ORDER BY id)), '') FROM doc"
        return bool(fetch_value(publisher, content) == fetch_value(subscriber, content))

    wait_until(replicated)
    row = collection_row(subscriber)
    assert (row["rows"], row["embedded"], row["is_complete"]) == (30, 0, False)
    with model_does(subscriber, 1, 30):
        subscriber.execute("CALL auto_embed('doc', 'body')")
    assert_exact(subscriber)
    publisher.execute("INSERT INTO doc VALUES (100, 'streamed')")
    publisher.execute("UPDATE doc SET body = body || ' changed' WHERE id <= 5")
    publisher.execute("UPDATE doc SET id = id + 1000 WHERE id BETWEEN 6 AND 8")
    publisher.execute("DELETE FROM doc WHERE id BETWEEN 20 AND 25")
    assert_exact(publisher)
    wait_until(replicated)
    assert collection_row(subscriber)["stale"] == 5
    # A write of the subscriber's own is taken as ever.
    with model_does(subscriber, 1, 1):
        subscriber.execute("INSERT INTO doc VALUES (-1, 'local')")
    subscriber.execute("CALL auto_embed('doc', 'body')")
    assert_exact(subscriber)
    subscriber.execute("DELETE FROM doc WHERE id = -1")
    publisher.execute("TRUNCATE doc")
    publisher.execute("INSERT INTO doc VALUES (1, 'after the truncation')")
    wait_until(replicated)
    subscriber.execute("CALL auto_embed('doc', 'body')")
    for session in (publisher, subscriber):
        assert assert_exact(session)["rows"] == 1
    subscriber.execute("DROP SUBSCRIPTION docs")


@pytest.mark.slow
def test_subscriber_that_takes_the_vectors_too_needs_no_model(
    publisher: psycopg.Connection[Any], connect: Connect
) -> None:
    origin = publisher.info.dbname
    publisher.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
    publisher.execute("CALL auto_embed('doc', 'body')")
    publisher.close()
    # The collection has the same number on both sides, and so its side table has one name.
    connect(port=PORT, dbname="postgres").execute(f'CREATE DATABASE subscriber TEMPLATE "{origin}"')
    publisher, subscriber = connect(port=PORT), connect(port=PORT, dbname="subscriber")
    publisher.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 30) AS g")
    side = collection_row(publisher)["embeddings_name"]
    publisher.execute(f"CREATE PUBLICATION docs FOR TABLE doc, {side}")
    publisher.execute("SELECT pg_create_logical_replication_slot('docs', 'pgoutput')")
    subscriber.execute(
        f"CREATE SUBSCRIPTION docs CONNECTION 'host={publisher.info.host} port={PORT} user=postgres dbname={origin}'"
        " PUBLICATION docs WITH (create_slot = false)"
    )
    wait_until(lambda: collection_row(subscriber)["embedded"] == 30)
    with model_does(subscriber, 0):
        publisher.execute("INSERT INTO doc VALUES (100, 'streamed')")
        publisher.execute("UPDATE doc SET body = body || ' changed', id = id + 1000 WHERE id <= 5")
        publisher.execute("DELETE FROM doc WHERE id BETWEEN 20 AND 25")
        publisher.execute("INSERT INTO doc VALUES (101, 'the last')")
        wait_until(lambda: fetch_value(subscriber, f"SELECT count(*) FROM {side} WHERE key_1 = 101"))
    for session in (publisher, subscriber):
        assert assert_exact(session)["rows"] == 26
    publisher.execute("TRUNCATE doc")
    wait_until(lambda: fetch_value(subscriber, f"SELECT count(*) = 0 FROM {side}"))
    assert assert_exact(subscriber)["rows"] == 0
    subscriber.execute("DROP SUBSCRIPTION docs")
