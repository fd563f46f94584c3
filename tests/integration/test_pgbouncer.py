"""Transaction pooling: many clients share few sessions, and each gets its own rights and cache."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import server_user
from conditions import fetch_value, refused, wait_until

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PORT = 6433
SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_port = {pooler_port}
listen_addr =
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 2
max_client_conn = 50
ignore_startup_parameters = extra_float_digits
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


@pytest.fixture
def pooled(db: psycopg.Connection[Any], server_home: Path) -> Iterator[str]:
    """The connection string of a pooler in front of the test's database."""
    if PROGRAM is None:
        pytest.skip("pgbouncer is not installed")
    owner = server_user(server_home / "data")
    folder = server_home / "pgbouncer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(host=db.info.host, port=db.info.port, folder=folder, pooler_port=PORT))
    (folder / "users.txt").write_text('"postgres" ""\n"alice" ""\n"stranger" ""\n')
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, owner.pw_uid, owner.pw_gid)
    user = owner.pw_name if os.getuid() == 0 else None
    process = subprocess.Popen([PROGRAM, "--quiet", str(settings)], cwd="/", user=user)
    try:
        wait_until(lambda: (folder / f".s.PGSQL.{PORT}").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "pgbouncer.log").read_text()
        yield f"host={folder} port={PORT} dbname={db.info.dbname}"
    finally:
        process.terminate()
        process.wait(10)


def open_client(pooled: str, user: str) -> psycopg.Connection[Any]:
    return psycopg.connect(f"{pooled} user={user}", autocommit=True, prepare_threshold=None)


def test_clients_of_a_transaction_pool_embed(pooled: str, db: psycopg.Connection[Any]) -> None:
    expected = [fetch_value(db, "SELECT embed(%s)", (f"pooled {number}",)) for number in range(10)]

    def embed_all(number: int) -> list[str]:
        with open_client(pooled, "alice") as client:
            return [fetch_value(client, "SELECT embed(%s)", (f"pooled {text}",)) for text in range(10)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(embed_all, range(8))) == [expected] * 8


def test_rights_follow_the_client_through_the_pool(pooled: str) -> None:
    with open_client(pooled, "alice") as client:
        assert fetch_value(client, "SELECT vector_dims(embed('pooled'))") == 384
    with open_client(pooled, "stranger") as client, refused("42501"):
        client.execute("SELECT embed('pooled')")
