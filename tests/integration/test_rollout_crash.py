"""A candidate that takes its backend down is seen, and the others are answered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, wait_until
from crashing import Cluster, crashing_cluster

SHARE = 50
TEXTS = 20_000  # seconds of work
UNITS = (
    "SELECT min(u) FILTER (WHERE is_candidate), min(u) FILTER (WHERE NOT is_candidate)"
    " FROM (SELECT u, pgml_tune._unit(salt, u) % 10000 < share AS is_candidate"
    "       FROM pgml_tune.rollout, (SELECT 'unit ' || g FROM generate_series(1, 100) AS g) AS s (u)) AS a"
)


@pytest.fixture
def cluster(server_home: Path) -> Iterator[Cluster]:
    """A server on which half of the units go to the 8-bit form of a model."""
    with crashing_cluster(server_home) as made:
        with made.connect() as session:
            for version in ("v1", "v1-int8"):
                session.execute("SELECT register_model('minilm', 'minilm@' || %s, 'embedding', %s)", (version, version))
            session.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
            session.execute("INSERT INTO doc SELECT g, 'short text ' || g FROM generate_series(1, 20) AS g")
            session.execute("CALL auto_embed('doc', 'body')")
            session.execute("SELECT rollout_model('minilm', 'v1-int8', %s)", (SHARE,))
        yield made


def session_of(cluster: Cluster, unit: str) -> psycopg.Connection[Any]:
    session = cluster.connect()
    session.execute("SELECT set_config('pgml_tune.unit', %s, false)", (unit,))
    return session


def has_begun(cluster: Cluster, log: bytes) -> bool:
    """Whether a backend has told that it begins, which it does before the model runs."""
    return any(log in path.read_bytes() for path in (cluster.folder / "spool" / "calls").rglob("*.log"))


def test_exposure_of_a_killed_backend_counts_against_the_candidate(cluster: Cluster) -> None:
    with cluster.connect() as session:
        candidate, serving = session.execute(UNITS).fetchone() or ("", "")
    embed = "SELECT cardinality(embed(array_agg('text number ' || g))) FROM generate_series(1, %s) AS g"
    with ThreadPoolExecutor(1) as background, closing(session_of(cluster, candidate)) as victim:
        running = background.submit(victim.execute, embed, (TEXTS,))
        wait_until(lambda: has_begun(cluster, b"v1-int8"))
        assert not running.done()
        cluster.kill_session(victim.info.backend_pid)
        assert isinstance(running.exception(), psycopg.OperationalError)

    search = "SELECT count(*) FROM semantic_search('public.doc.body', 'short text 7', 5)"
    for unit in (serving, candidate):  # one killed backend has not yet opened the breaker of another
        with session_of(cluster, unit) as other:
            assert fetch_value(other, search) == 5
            assert fetch_value(other, "SELECT vector_dims(embed('an answer'))") == 384
    with cluster.connect() as session:
        session.execute("CALL rollout_tick()")
        lost = "SELECT variant, version, sqlstate, texts FROM pgml_tune.inference_logs WHERE outcome = 'lost'"
        assert session.execute(lost).fetchall() == [("candidate", "v1-int8", "58000", TEXTS)]
        errors = (
            "SELECT candidate_value > 0, serving_value FROM ab_report('minilm')"
            " WHERE metric = 'error_rate' AND phase IS NOT NULL"
        )
        assert session.execute(errors).fetchone() == (True, 0.0)
        answered = "SELECT DISTINCT version, variant, outcome FROM pgml_tune.inference_logs WHERE task = 'search'"
        assert set(session.execute(answered).fetchall()) == {
            ("v1", "serving", "ok"), ("v1-int8", "candidate", "ok")
        }  # fmt: skip
        # Once more changes nothing: a loss is counted once.
        session.execute("CALL rollout_tick()")
        assert len(session.execute(lost).fetchall()) == 1
