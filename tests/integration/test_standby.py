"""A hot standby embeds like its primary, and writes nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from commands import program, run, server_environment, server_user
from conditions import fetch_value, refused, wait_until
from conftest import Connect

from pgml_tune import cli


@pytest.fixture
def standby(db: psycopg.Connection[Any], connect: Connect, server_home: Path) -> Iterator[psycopg.Connection[Any]]:
    """A session on a standby that follows the server under test."""
    owner = server_user(server_home / "data")
    folder = server_home / "standby"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shutil.chown(folder, owner.pw_uid, owner.pw_gid)
    host = str(db.info.host)
    run(program("pg_basebackup"), "--host", host, "--username", "postgres", "--pgdata", str(folder),
        "--write-recovery-conf", "--checkpoint=fast", "--no-sync", user=owner.pw_name)  # fmt: skip
    environment = server_environment(server_home / "data")
    control = [program("pg_ctl"), "--pgdata", str(folder), "--silent"]
    options = f"-c port=5433 -c unix_socket_directories={host} -c shared_buffers=32MB"
    run(*control, "start", "--wait", "--log", str(server_home / "log" / "standby.log"), "--options", options,
        user=owner.pw_name, environment=environment)  # fmt: skip
    try:
        session = connect(port=5433)
        yield session
        session.close()
    finally:
        run(*control, "stop", "--mode", "immediate", user=owner.pw_name)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_standby_answers_hundreds_of_calls_like_the_primary(
    db: psycopg.Connection[Any], standby: psycopg.Connection[Any]
) -> None:
    assert fetch_value(standby, "SELECT pg_is_in_recovery()")
    db.execute("SELECT configure('log_sample', '1')")
    for number in range(300):
        vector = fetch_value(standby, "SELECT embed(%s)", (f"standby {number % 150}",))
        if number < 20:
            assert fetch_value(db, "SELECT embed(%s)", (f"standby {number}",)) == vector
    same = "SELECT embed(ARRAY['a', 'b'])::text, embed_pinned('a', 'minilm', 'v1')::text, token_count('a b c')"
    assert standby.execute(same).fetchone() == db.execute(same).fetchone()
    assert fetch_value(standby, "SELECT semantic_similarity('a cat', 'a cat')") > 0.999
    assert fetch_value(standby, "SELECT count(*) FROM pgml_tune.models") == 1
    for writing in ("SELECT configure('threads', '1')", "SELECT register_model('x', 'minilm@v1', 'embedding')",
                    "SELECT pgml_tune._check_sql('SELECT 1')"):  # fmt: skip
        with refused("25006"):
            standby.execute(writing)
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO note SELECT g, 'note number ' || g FROM generate_series(1, 30) AS g")
    db.execute("CALL auto_embed('note', 'body', collection => 'note', options => '{\"index\": \"hnsw\"}')")
    db.execute("INSERT INTO note VALUES (31, 'two parrots in a lighthouse')")
    wait_until(lambda: fetch_value(standby, "SELECT to_regclass('note') IS NOT NULL"))
    wait_until(lambda: fetch_value(standby, "SELECT count(*) FROM note") == 31)
    for search in ("semantic_search('note', 'birds near the sea', 5)", "hybrid_search('note', 'parrots', 5)"):
        found = standby.execute(f"SELECT * FROM {search}").fetchall()
        assert found == db.execute(f"SELECT * FROM {search}").fetchall() and found[0][0] == {"id": 31}
    assert fetch_value(standby, "SELECT is_complete FROM pgml_tune.embedding_collections")
    logged = dict(standby.execute("SELECT task, count(*) FROM pgml_tune.inference_logs GROUP BY task").fetchall())
    assert logged["search"] == 2 and logged["embed"] > 250
    for writing in ("CALL auto_embed('note', 'body', collection => 'note')", "SELECT drop_auto_embed('note')"):
        with refused("25006"):
            standby.execute(writing)
    register = "SELECT register_model('standby', 'minilm@v1', 'embedding', 'v1')"
    assert fetch_value(db, register) == "v1"
    known = "SELECT count(*) FROM pgml_tune.models WHERE model = 'standby'"
    wait_until(lambda: fetch_value(standby, known) == 1)
    assert fetch_value(standby, "SELECT vector_dims(embed('replicated', 'standby'))") == 384


@pytest.mark.slow
def test_calls_on_a_standby_show_there_and_are_ingested_when_it_is_promoted(
    db: psycopg.Connection[Any], standby: psycopg.Connection[Any]
) -> None:
    seen, ingest = "SELECT count(*) FROM pgml_tune._calls", "SELECT pgml_tune._ingest_logs()"
    db.execute("SELECT configure('log_sample', '1')")
    wait_until(lambda: fetch_value(standby, "SELECT value FROM pgml_tune.settings WHERE name = 'log_sample'") == "1")
    for number in range(20):
        standby.execute("SELECT embed(%s)", (f"on a standby {number}",))
    assert (fetch_value(standby, seen), fetch_value(db, seen)) == (20, 0)
    with refused("25006"):
        standby.execute(ingest)
    db.execute("SELECT count(embed('on the primary ' || g)) FROM generate_series(1, 5) AS g")
    assert fetch_value(db, ingest) == 5
    wait_until(lambda: fetch_value(standby, seen) == 25)
    assert fetch_value(db, seen) == 5
    assert fetch_value(standby, "SELECT pg_promote()")
    assert fetch_value(standby, ingest) == 20
    assert fetch_value(standby, "SELECT count(*) FROM pgml_tune.call_log") == fetch_value(standby, seen) == 25
    assert fetch_value(db, seen) == 5


@pytest.mark.slow
def test_the_report_of_a_standby_lacks_only_the_counters(standby: psycopg.Connection[Any]) -> None:
    place = f"host={standby.info.host} port={standby.info.port} dbname={standby.info.dbname} user=olga"
    result = CliRunner().invoke(cli.main, ["report", "--dsn", place, "--output", "-"])
    assert result.exit_code == 0, result.output
    assert "A standby has no counters: ask the primary." in result.output
