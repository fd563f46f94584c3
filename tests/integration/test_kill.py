"""A collection survives kill -9 of its session, and of the server, at any moment of a backfill or a bulk load."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, catalog
from conditions import fetch_value
from crashing import Cluster, crashing_cluster

ROWS = 100
CRASHES = 10  # of a backfill, and as many of a bulk load
FILL = "CALL auto_embed('doc', 'body', collection => 'doc', options => '{\"batch_size\": 8}')"


@pytest.fixture(scope="module")
def cluster(server_home: Path) -> Iterator[Cluster]:
    with crashing_cluster(server_home) as made:
        with made.connect() as session:
            session.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
            session.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
            session.execute("INSERT INTO doc SELECT g, 'short text ' || g FROM generate_series(1, %s) AS g", (ROWS,))
        yield made


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
