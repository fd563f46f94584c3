"""Writers, workers that are killed and a server that crashes: whatever was committed has its vector in the end."""

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from collection_state import assert_exact
from conditions import wait_until
from crashing import Cluster, crashing_cluster
from job_workers import Installation, Workers, workers_of
from queue_parts import wait_until_fed

KILLS = int(os.environ.get("PGML_TUNE_QUEUE_CRASH_KILLS", "3"))
RESTARTS = int(os.environ.get("PGML_TUNE_QUEUE_CRASH_RESTARTS", "1"))
WRITERS = 4
KEYS = 60  # of each writer
LONGEST_PAUSE = 3.0  # between two kills
INSERT = "INSERT INTO doc VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"


@dataclass(frozen=True)
class OnCluster(Installation):
    """What the workers of a cluster find, of which nothing but the models is shared."""

    cluster: Cluster

    @property
    def environment(self) -> dict[str, str]:
        return self.cluster.environment | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def cluster(server_home: Path) -> Iterator[Cluster]:
    with crashing_cluster(server_home) as made:
        with made.connect() as session:
            session.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
            session.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
            session.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 300) AS g")
            session.execute("CALL auto_embed('doc', 'body', mode => 'queue', options => '{\"batch_size\": 50}')")
        yield made


@pytest.fixture
def workers(cluster: Cluster, server_home: Path) -> Iterator[Workers]:
    with cluster.connect() as session, workers_of(OnCluster(server_home, cluster), session) as started:
        yield started


class Writer(threading.Thread):
    """Changes rows of its own, and rows that all change; goes on when the server has gone away beneath it."""

    def __init__(self, cluster: Cluster, number: int, stop: threading.Event) -> None:
        super().__init__()
        self._cluster, self._number, self._stop_asked = cluster, number, stop
        self.writes = self.losses = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                try:
                    with self._cluster.connect() as session:
                        self._write(session)
                except psycopg.OperationalError:  # whether it has come to its end nobody knows; the table does
                    self.losses += 1
        except BaseException as error:
            self.error = error

    def _write(self, session: psycopg.Connection[object]) -> None:
        first = 1000 * self._number
        while not self._stop_asked.wait(0.005):
            self.writes += 1
            turn = self.writes
            key = first + turn % KEYS
            session.execute(INSERT, (key, f"writer {self._number} turn {turn}"))
            session.execute("UPDATE doc SET body = %s WHERE id = %s", (f"shared {self._number} {turn}", turn % 5 + 1))
            if turn % 7 == 0:
                session.execute("DELETE FROM doc WHERE id = %s", (key,))
            if turn % 11 == 0:
                session.execute("UPDATE doc SET id = -id WHERE id = %s AND NOT EXISTS (SELECT FROM doc WHERE id = %s)",
                                (key, -key))  # fmt: skip
            if turn % 13 == 0:
                with session.transaction(force_rollback=True):
                    session.execute("UPDATE doc SET body = 'never' WHERE id BETWEEN %s AND %s", (first, first + KEYS))
            if turn % 17 == 0:
                with session.transaction():
                    session.execute("UPDATE doc SET body = body || '.' WHERE id BETWEEN %s AND %s", (first, first + 5))
                    session.execute("UPDATE doc SET body = 'one more' WHERE id = %s", (first + 1,))


def test_writers_kills_of_workers_and_crashes_of_the_server_leave_no_row_without_its_vector(
    cluster: Cluster, workers: Workers
) -> None:
    seed = int(os.environ.get("PGML_TUNE_SEED", random.randrange(1 << 31)))
    chance = random.Random(seed)
    faults = ["worker"] * KILLS + ["server"] * RESTARTS
    chance.shuffle(faults)
    stop = threading.Event()
    writers = [Writer(cluster, number, stop) for number in range(1, WRITERS + 1)]
    for writer in writers:
        writer.start()
    alive = workers.start("--database", workers.database, "--serve")
    try:
        for fault in faults:
            wait_until(lambda log=alive.log: " loaded " in log.read_text(), 60)
            stop.wait(chance.uniform(0.0, LONGEST_PAUSE))
            if fault == "server":
                cluster.kill_server(0)
            else:
                alive.process.kill()
                alive.process.wait()
                alive = workers.start("--database", workers.database, "--serve")
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    print(f"PGML_TUNE_SEED={seed}, {faults}, {sum(writer.writes for writer in writers)} turns of writers")
    assert [writer.error for writer in writers] == [None] * WRITERS
    assert sum(writer.losses for writer in writers) >= RESTARTS
    with cluster.connect() as session:
        wait_until_fed(session, seconds=180)
        assert assert_exact(session)["rows"] >= 300
