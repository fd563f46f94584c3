"""A collection survives kill -9 of its session, and of the server, at any moment of a backfill or a bulk load."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, catalog
from commands import program, run, server_environment, server_user
from conditions import fetch_value, wait_until

ROWS = 100
CRASHES = 10  # of a backfill, and as many of a bulk load
PORT = 5434
FILL = "CALL auto_embed('doc', 'body', collection => 'doc', options => '{\"batch_size\": 8}')"


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


@pytest.fixture(scope="module")
def cluster(server_home: Path) -> Iterator[Cluster]:
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
            session.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
            session.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
            session.execute("INSERT INTO doc SELECT g, 'short text ' || g FROM generate_series(1, %s) AS g", (ROWS,))
        yield made
    finally:
        made.control("stop", "--mode", "immediate")
        shutil.rmtree(folder)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def warm(cluster: Cluster) -> psycopg.Connection[Any]:
    """A session whose model is loaded: what is timed from here on is the work itself."""
    session = cluster.connect()
    session.execute("SELECT embed('load'), embed_pinned('load', 'minilm', 'v1')")
    return session


def crash(cluster: Cluster, running: Future[Any], victim: int, seconds: float, whole_server: bool) -> bool:
    """Kills after so many seconds of work, or right after its end; says whether the work was cut off."""
    wait([running], timeout=seconds)
    (cluster.kill_server if whole_server else cluster.kill_session)(victim)
    return isinstance(running.exception(), psycopg.OperationalError)


def copy(session: psycopg.Connection[Any], first: int) -> None:
    with session.cursor().copy("COPY doc FROM STDIN") as rows:
        for number in range(first, first + ROWS):
            rows.write_row((number, f"loaded text {number}"))


def stored(session: psycopg.Connection[Any]) -> set[Any]:
    """The stored vectors as they lie in the side table, by the transaction that wrote them."""
    table = session.execute("SELECT embeddings::text FROM pgml_tune.collection WHERE name = 'doc'").fetchone()
    if table is None or table[0] is None:
        return set()
    return set(session.execute(f"SELECT key_1, chunk_no, xmin::text, text_sha256 FROM {table[0]}").fetchall())


def seconds_of(action: Callable[[], Any]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


@pytest.mark.slow
def test_backfill_goes_on_after_a_crash_at_any_moment(cluster: Cluster, background: ThreadPoolExecutor) -> None:
    chance = random.Random(7)
    with warm(cluster) as session:
        empty = catalog(session)
        whole = seconds_of(lambda: session.execute(FILL))
        session.execute("SELECT drop_auto_embed('doc')")
    cut, kept = 0, 0
    for number in range(CRASHES):
        with closing(warm(cluster)) as victim:
            running = background.submit(victim.execute, FILL)
            # One in each tenth of the time that it takes.
            seconds = whole * (number + chance.random()) / CRASHES
            cut += crash(cluster, running, victim.info.backend_pid, seconds, number % 2 == 1)
        with cluster.connect() as session:
            before = stored(session)
            session.execute(FILL)
            assert_exact(session, "doc")
            assert before <= stored(session)
            kept += 0 < len(before) < ROWS
            assert len(catalog(session)["collections"]) == 1
            session.execute("SELECT drop_auto_embed('doc')")
            assert catalog(session) == empty, number
    assert cut >= CRASHES / 2 and kept >= 2


@pytest.mark.slow
def test_bulk_load_is_whole_or_nothing_after_a_crash_at_any_moment(
    cluster: Cluster, background: ThreadPoolExecutor
) -> None:
    chance = random.Random(8)
    with warm(cluster) as session:
        session.execute(FILL)
        objects = catalog(session)
        whole = seconds_of(lambda: copy(session, 1000))
    cut = 0
    for number in range(CRASHES):
        with closing(warm(cluster)) as victim:
            running = background.submit(copy, victim, 10_000 * (number + 1))
            seconds = whole * (number + chance.random()) / CRASHES
            cut += crash(cluster, running, victim.info.backend_pid, seconds, number % 2 == 1)
        with cluster.connect() as session:
            assert fetch_value(session, "SELECT count(*) FROM doc WHERE id >= 10000") in (0, ROWS)
            session.execute(FILL)
            assert_exact(session, "doc")
            assert catalog(session) == objects
            session.execute("DELETE FROM doc WHERE id >= 10000")
    assert cut >= CRASHES / 2
