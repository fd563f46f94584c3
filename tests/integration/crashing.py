"""A server that tests let crash."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from commands import program, run, server_environment, server_user
from conditions import wait_until

PORT = 5434


@dataclass(frozen=True)
class Cluster:
    """A server that may crash: nobody else uses it, and its log is its own."""

    folder: Path
    host: str
    user: str
    environment: dict[str, str]

    def control(self, *command: str) -> None:
        run(program("pg_ctl"), "--pgdata", str(self.folder / "data"), "--silent", *command, user=self.user,
            environment=self.environment)  # fmt: skip

    def start(self) -> None:
        # What was written survives the death of processes without fsync.
        options = f"-c port={PORT} -c unix_socket_directories={self.host} -c fsync=off -c shared_buffers=32MB"
        self.control("start", "--wait", "--log", str(self.folder / "log"), "--options",
                     f"{options} -c listen_addresses='' -c restart_after_crash=on")  # fmt: skip

    def connect(self) -> psycopg.Connection[Any]:
        """A session as soon as the server lets one in."""

        def attempt() -> psycopg.Connection[Any] | None:
            try:
                return psycopg.connect(host=self.host, port=PORT, user="postgres", dbname="postgres", autocommit=True)
            except psycopg.OperationalError:
                return None

        session: psycopg.Connection[Any] = wait_until(attempt)
        return session

    def kill_session(self, victim: int) -> None:
        """kill -9: the server then ends all sessions, recovers and starts anew."""
        with self.connect() as witness:
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not answers(witness))

    def kill_server(self, victim: int) -> None:
        self.control("stop", "--mode", "immediate")
        self.start()


def answers(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def crashing_cluster(server_home: Path) -> Iterator[Cluster]:
    """A cluster of its own beside that of all other tests, with the extension."""
    owner = server_user(server_home / "data")
    folder = server_home / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / "spool").mkdir(mode=0o700)
    (folder / "pgml_tune.toml").write_text(
        f'model_root = "{server_home}/models"\nspool_dir = "{folder}/spool"\nimport_dirs = []\n'
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, owner.pw_uid, owner.pw_gid)
    run(program("initdb"), "--pgdata", str(folder / "data"), "--username=postgres", "--auth=trust", "--encoding=UTF8",
        "--locale=C.UTF-8", "--no-instructions", "--no-sync", user=owner.pw_name)  # fmt: skip
    environment = server_environment(server_home / "data") | {"PGML_TUNE_CONFIG": str(folder / "pgml_tune.toml")}
    made = Cluster(folder, os.environ["PGHOST"], owner.pw_name, environment)
    made.start()
    try:
        with made.connect() as session:
            session.execute("SET client_min_messages = warning")
            session.execute("CREATE EXTENSION pgml_tune CASCADE")
        yield made
    finally:
        made.control("stop", "--mode", "immediate")
        shutil.rmtree(folder)
