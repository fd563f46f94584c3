"""kill -9 of workers and of jobs at random moments: no job is lost, no version is half or twice there."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, wait_until
from job_workers import Installation, Worker, Workers, job_processes, queue, workers_of

from pgml_tune.engine.artifact import Artifact, bound_digest
from pgml_tune.records import ModelReference

KILLS = int(os.environ.get("PGML_TUNE_JOB_KILLS", "6"))
LONGEST_PAUSE = 6.0  # between two kills: about what an undisturbed job takes
WORKERS = 2
JOBS = 6
UNENDED = "SELECT count(*) FROM pgml_tune.job WHERE ended_at IS NULL"

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def workers(server_home: Path, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    db.execute("SELECT configure('auto_start_worker', 'off'), configure('job_threads', '1')")
    db.execute("SELECT configure('jobs_running', %s)", (str(WORKERS),))
    with workers_of(Installation(server_home), db) as started:
        yield started


class Queue:
    """Jobs that each make a version of a model of its own, from files that were never seen before."""

    def __init__(self, db: psycopg.Connection[Any], workers: Workers) -> None:
        self._db = db
        self._installation = workers.installation
        self._tiny = self._installation.build_tiny()
        self.models: dict[str, int] = {}  # of each model the job that works on it

    def fill(self) -> None:
        """Queue some jobs."""
        label = f"kills-{time.time_ns()}"
        for number, digest in enumerate(self._installation.variants(self._tiny, label, JOBS)):
            model = f"{label}-{number}"
            self._db.execute("SELECT register_model(%s, %s, 'embedding', 'v1')", (model, digest))
            self.models[model] = queue(self._db, "CALL quantize_model(%s, 'fp16', wait => false)", (model,))

    def is_empty(self) -> bool:
        return fetch_value(self._db, UNENDED) == 0


def kill_something(workers: list[Worker], chance: random.Random) -> str:
    """kill -9 of a worker or of a job's process."""
    worker = chance.choice(workers)
    victims = [worker.pid] if chance.random() < 0.5 else worker.jobs() or [worker.pid]
    with suppress(ProcessLookupError):
        os.kill(victims[0], signal.SIGKILL)
    if victims[0] != worker.pid:
        return "job"
    worker.process.wait()
    return "worker"


def test_kills_lose_no_job_and_leave_no_half_or_double_version(
    workers: Workers, db: psycopg.Connection[Any], server_home: Path
) -> None:
    seed = int(os.environ.get("PGML_TUNE_SEED", random.randrange(1 << 31)))
    chance = random.Random(seed)
    print(f"PGML_TUNE_SEED={seed}")
    jobs = Queue(db, workers)
    alive = [workers.serve() for _ in range(WORKERS)]
    killed = {"worker": 0, "job": 0}
    while sum(killed.values()) < KILLS:
        if jobs.is_empty():
            jobs.fill()
        time.sleep(chance.uniform(0, LONGEST_PAUSE))
        killed[kill_something(alive, chance)] += 1
        alive = [worker if worker.process.poll() is None else workers.serve() for worker in alive]
    print(killed)
    wait_until(jobs.is_empty, 600)
    for worker in alive:
        assert worker.end() == 0

    for model, job_id in jobs.models.items():
        check(db, server_home / "models", model, job_id)
    # Whatever the killed ones have left, the next worker removes.
    workers.run_once()
    installation_id = fetch_value(db, "SELECT oid::bigint FROM pg_extension WHERE extname = 'pgml_tune'")
    assert job_processes(installation_id) == []
    assert not list((server_home / "spool" / "jobs").glob(f"{installation_id}-*"))
    assert not list((server_home / "models").glob(f".building-{installation_id}-*"))
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_rows") == 0


def check(db: psycopg.Connection[Any], model_root: Path, model: str, job_id: int) -> None:
    """A job has made one whole version, or has failed with a reason and made none."""
    row = db.execute(
        "SELECT state::text, sqlstate, result -> 'versions' FROM pgml_tune.job WHERE job_id = %s", (job_id,)
    ).fetchone()
    assert row is not None
    state, sqlstate, made = row
    versions = "SELECT version, artifact_sha256 FROM pgml_tune.model_versions WHERE model = %s"
    found = dict(db.execute(versions, (model,)).fetchall())
    figures = db.execute(
        "SELECT version, metric, count(*) FROM pgml_tune.evaluations WHERE job_id = %s GROUP BY 1, 2", (job_id,)
    ).fetchall()
    if state == "failed":
        # Killed twice, or lost with its worker three times.
        assert sqlstate in ("53200", "58000")
        assert set(found) == {"v1"} and figures == []
        return
    assert state == "succeeded"
    assert made == [f"{model}@v1-fp16"]
    assert set(found) == {"v1", "v1-fp16"}
    assert {count for _, _, count in figures} == {1}
    for version, digest in found.items():
        Artifact(model_root, digest).verify(force=True)
        assert bound_digest(model_root, ModelReference(model, version)) == digest
