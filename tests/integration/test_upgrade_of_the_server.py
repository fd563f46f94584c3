"""pg_upgrade takes collections along as they are."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, found, model_does
from commands import program, run, server_environment, server_user
from conftest import Connect

PORT = 5435


@pytest.fixture
def upgraded(db: psycopg.Connection[Any], connect: Connect, server_home: Path) -> Iterator[psycopg.Connection[Any]]:
    """A session on a copy of the server under test that went through pg_upgrade, to the same version."""
    db.execute("CREATE TABLE doc (gone integer, id bigint PRIMARY KEY, body text)")
    db.execute("ALTER TABLE doc DROP gone")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 20) AS g")
    db.execute("CALL auto_embed('doc', 'body', options => '{\"index\": \"hnsw\", \"text_search\": \"german\"}')")
    name = db.info.dbname
    owner = server_user(server_home / "data")
    home = server_home / "upgrade"
    shutil.rmtree(home, ignore_errors=True)
    old, new, log = home / "old", home / "new", home / "log"
    for folder in (home, old, new):
        folder.mkdir(mode=0o700)
        shutil.chown(folder, owner.pw_uid, owner.pw_gid)
    host, environment = str(db.info.host), server_environment(server_home / "data")

    def as_owner(command: str, *arguments: str) -> str:
        return run(program(command), *arguments, user=owner.pw_name, environment=environment, folder=home)

    def control(folder: Path, *arguments: str) -> None:
        as_owner("pg_ctl", "--pgdata", str(folder), "--silent", "--log", str(log), *arguments)

    options = f"-c port={PORT} -c unix_socket_directories={host} -c shared_buffers=32MB"
    as_owner("pg_basebackup", "--host", host, "--username", "postgres", "--pgdata", str(old), "--checkpoint=fast",
             "--no-sync")  # fmt: skip
    as_owner("initdb", "--pgdata", str(new), "--username", "postgres", "--auth", "trust", "--encoding", "UTF8",
             "--locale", "C.UTF-8", "--no-sync")  # fmt: skip
    # It has to have been shut down, and the databases of other tests need not be carried along.
    control(old, "start", "--wait", "--options", options)
    maintenance = connect(port=PORT, dbname="postgres")
    others = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1', %s)"
    for (other,) in maintenance.execute(others, (name,)).fetchall():
        maintenance.execute(f'ALTER DATABASE "{other}" IS_TEMPLATE false')
        maintenance.execute(f'DROP DATABASE "{other}"')
    maintenance.close()
    control(old, "stop", "--mode", "fast", "--wait")
    as_owner("pg_upgrade", "--old-bindir", str(Path(program("postgres")).parent), "--old-datadir", str(old),
             "--new-datadir", str(new), "--username", "postgres", "--socketdir", host, "--link",
             "--old-port", str(PORT), "--new-port", str(PORT))  # fmt: skip
    control(new, "start", "--wait", "--options", options)
    try:
        session = connect(port=PORT, dbname=name)
        yield session
        session.close()
    finally:
        control(new, "stop", "--mode", "immediate")
        shutil.rmtree(home)


@pytest.mark.slow
def test_pg_upgrade_keeps_collections(upgraded: psycopg.Connection[Any]) -> None:
    with model_does(upgraded, 0):
        upgraded.execute("CALL maintain()")
        upgraded.execute("CALL auto_embed('doc', 'body')")
    assert assert_exact(upgraded)["rows"] == 20
    with model_does(upgraded, 1, 1):
        upgraded.execute("INSERT INTO doc VALUES (100, 'written after the upgrade')")
    with model_does(upgraded, 0):
        upgraded.execute("UPDATE doc SET id = id + 1000 WHERE id < 5")
        upgraded.execute("DELETE FROM doc WHERE id = 6")
    assert_exact(upgraded)
    assert found(upgraded, "written after the upgrade")[0] == {"id": 100}
    upgraded.execute("SELECT drop_auto_embed('public.doc.body')")
