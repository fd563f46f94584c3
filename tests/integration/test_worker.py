"""The worker: claims, limits, cancels, lost connections, and what it writes in the end."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from job_workers import (
    LEASE_SECONDS,
    Installation,
    Workers,
    error_of,
    job_processes,
    queue,
    session_of,
    sleep_until_running,
    state_of,
    wait_for_end,
    workers_of,
)

from pgml_tune.service.job_options import OPTIONS as JOB_OPTIONS

Connect = Callable[..., psycopg.Connection[Any]]
QUANTIZE = "CALL quantize_model(%s, 'fp16', wait => false)"
EVALUATE = """
CALL evaluate_model(
    %s, 'SELECT md5(i::text) AS a, md5((-i)::text) AS b, i::float8 AS score FROM generate_series(1, ' || %s || ') AS i',
    wait => false
)
"""


@pytest.fixture(scope="module")
def installation(server_home: Path) -> Installation:
    return Installation(server_home)


@pytest.fixture(scope="module")
def tiny(installation: Installation) -> str:
    return installation.build_tiny()


@pytest.fixture
def workers(installation: Installation, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    db.execute("SELECT configure('auto_start_worker', 'off'), configure('job_threads', '1')")
    with workers_of(installation, db) as started:
        yield started


@pytest.fixture
def new_model(installation: Installation, tiny: str, db: psycopg.Connection[Any]) -> str:
    """A model of which no quantized form was ever made: a job on it takes seconds."""
    name = db.info.dbname.replace("_", "-")[-40:] + f"-{time.time_ns()}"
    (digest,) = installation.variants(tiny, name, 1)
    db.execute("SELECT register_model(%s, %s, 'embedding', 'v1')", (name, digest))
    return name


def versions_of(db: psycopg.Connection[Any], model: str) -> list[str]:
    rows = db.execute("SELECT version FROM pgml_tune.model_versions WHERE model = %s ORDER BY 1", (model,)).fetchall()
    return [row[0] for row in rows]


def test_a_job_is_run_and_registered_in_the_name_of_its_owner(
    workers: Workers, new_model: str, db: psycopg.Connection[Any], connect: Connect
) -> None:
    owner = connect("olga")
    job_id = queue(owner, QUANTIZE, (new_model,))
    workers.run_once()
    assert state_of(owner, job_id) == "succeeded"
    row = db.execute(
        "SELECT version, base_version, created_by FROM pgml_tune.model_versions WHERE model = %s AND version <> 'v1'",
        (new_model,),
    ).fetchone()
    assert row == ("v1-fp16", "v1", "olga")
    figures = owner.execute("SELECT version, metric FROM pgml_tune.evaluations WHERE job_id = %s", (job_id,)).fetchall()
    assert {("v1", "latency_ms"), ("v1-fp16", "latency_ms")} <= set(figures)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.worker") == 0
    assert owner.execute("SELECT * FROM job_log(%s)", (job_id,)).fetchall()


def test_a_worker_that_was_started_in_a_transaction_waits_for_its_end(
    workers: Workers, new_model: str, connect: Connect, db: psycopg.Connection[Any]
) -> None:
    session = connect(autocommit=False)
    job_id = queue(session, QUANTIZE, (new_model,))
    xid = fetch_value(session, "SELECT pg_current_xact_id()::text")
    worker = workers.start("--once", "--after-xid", xid)
    wait_until(lambda: fetch_value(db, "SELECT count(*) FROM pgml_tune.worker"))
    # Longer than it would wait for work.
    time.sleep(6)
    assert worker.process.poll() is None
    session.commit()
    assert wait_for_end(db, job_id) == "succeeded"
    assert worker.process.wait(60) == 0


def test_a_cancelled_job_ends_with_all_its_processes(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    leader = workers.serve().one_job()
    assert fetch_value(db, "SELECT cancel_job(%s)", (job_id,)) is True
    wait_until(lambda: not session_of(leader), 10)
    assert wait_for_end(db, job_id, 10) == "cancelled"
    assert versions_of(db, new_model) == ["v1"]
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_rows") == 0


@pytest.mark.parametrize(
    ("setting", "value", "sqlstate"),
    [("job_memory_bytes", "60000000", "53200"), ("job_seconds", "1", "54000")],
)
def test_a_job_that_uses_more_than_it_may_fails_and_the_next_one_passes(
    workers: Workers, installation: Installation, new_model: str, db: psycopg.Connection[Any],
    setting: str, value: str, sqlstate: str,
) -> None:  # fmt: skip
    db.execute("SELECT configure(%s, %s)", (setting, value))
    worker = workers.serve()
    job_id = queue(db, QUANTIZE, (new_model,))
    assert wait_for_end(db, job_id) == "failed"
    assert error_of(db, job_id) == sqlstate
    assert not list((installation.home / "spool" / "jobs").glob(f"{installation_id(db)}-*"))
    db.execute("SELECT configure(%s, NULL)", (setting,))
    job_id = queue(db, QUANTIZE, (new_model,))
    assert wait_for_end(db, job_id) == "succeeded"
    assert worker.process.poll() is None


def installation_id(db: psycopg.Connection[Any]) -> int:
    return int(fetch_value(db, "SELECT oid::bigint FROM pg_extension WHERE extname = 'pgml_tune'"))


def test_a_worker_that_ends_gives_its_job_back(workers: Workers, new_model: str, db: psycopg.Connection[Any]) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    worker = workers.serve()
    leader = worker.one_job()
    assert worker.end(15) == 0
    assert state_of(db, job_id) == "queued"
    assert not session_of(leader)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.worker") == 0
    workers.run_once()
    assert state_of(db, job_id) == "succeeded"


def test_a_worker_outlives_the_loss_of_its_sessions(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    worker = workers.serve()
    worker.one_job()
    ended = 0
    while state_of(db, job_id) == "running":
        ended += db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'pgml-tune worker' AND datname = current_database()"
        ).rowcount
        time.sleep(1)
    assert ended > 1
    assert state_of(db, job_id) == "succeeded"
    assert fetch_value(db, "SELECT fencing_token FROM pgml_tune.job WHERE job_id = %s", (job_id,)) == 1
    assert versions_of(db, new_model) == ["v1", "v1-fp16"]


def test_a_job_whose_process_was_killed_runs_once_more_and_then_fails(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    worker = workers.serve()
    for token in (1, 2):
        sleep_until_running(db, job_id, token)
        os.kill(worker.one_job(), signal.SIGKILL)
        wait_until(lambda: not worker.jobs())
    assert wait_for_end(db, job_id) == "failed"
    assert error_of(db, job_id) == "53200"


def test_a_worker_that_was_stopped_for_two_leases_writes_nothing_stale(
    workers: Workers, installation: Installation, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    stopped = workers.serve()
    leader = stopped.one_job()
    stopped.signal(signal.SIGSTOP)
    time.sleep(2 * LEASE_SECONDS)
    workers.run_once()
    everything = (
        "SELECT to_jsonb(j), to_jsonb(p) FROM pgml_tune.job AS j JOIN pgml_tune.job_progress AS p USING (job_id)"
        " WHERE job_id = %s"
    )
    before = db.execute(everything, (job_id,)).fetchall()
    assert before[0][0]["state"] == "succeeded" and before[0][0]["fencing_token"] == 2
    lines = fetch_value(db, "SELECT count(*) FROM pgml_tune.job_line")
    stopped.signal(signal.SIGCONT)
    wait_until(lambda: b"another worker has it" in stopped.log.read_bytes(), 30)
    wait_until(lambda: not session_of(leader), 10)
    assert stopped.end() == 0
    assert db.execute(everything, (job_id,)).fetchall() == before
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_line") == lines
    assert versions_of(db, new_model) == ["v1", "v1-fp16"]
    assert job_processes(installation_id(db)) == []


def test_a_job_that_was_done_but_not_registered_is_not_run_again(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    workers.run_once()
    # As a worker leaves it that is lost between the last file and the registration.
    db.execute("SELECT drop_model_version(%s, 'v1-fp16')", (new_model,))
    db.execute("UPDATE pgml_tune.job SET state = 'running', ended_at = NULL")
    db.execute("UPDATE pgml_tune.job_progress SET lease_until = now(), phase = 'untouched'")
    lines = fetch_value(db, "SELECT count(*) FROM pgml_tune.job_line")
    workers.run_once()
    assert state_of(db, job_id) == "succeeded"
    assert versions_of(db, new_model) == ["v1", "v1-fp16"]
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_line") == lines


def test_a_version_that_somebody_else_has_made_meanwhile_fails_the_job_and_leaves_nothing(
    workers: Workers, installation: Installation, tiny: str, new_model: str, db: psycopg.Connection[Any]
) -> None:
    call = """CALL quantize_model(%s, 'fp16', options => '{"new_version": "best"}', wait => false)"""
    job_id = queue(db, call, (new_model,))
    workers.serve().one_job()
    (other,) = installation.variants(tiny, f"other {new_model}", 1)
    db.execute("SELECT register_model(%s, %s, 'embedding', 'best')", (new_model, other))
    assert wait_for_end(db, job_id) == "failed"
    assert error_of(db, job_id) == "42710"
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.evaluation") == 0
    assert versions_of(db, new_model) == ["best", "v1"]


def test_a_disk_that_is_full_fails_the_job_and_not_the_worker(
    workers: Workers, installation: Installation, new_model: str, db: psycopg.Connection[Any]
) -> None:
    spool = installation.home / "spool" / "jobs"
    spool.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size=64k,mode=700,uid={spool.stat().st_uid}", "tmpfs", str(spool)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        worker = workers.serve()
        job_id = queue(db, EVALUATE, (new_model, 2000))
        assert wait_for_end(db, job_id) == "failed"
        assert error_of(db, job_id) == "53100"
        subprocess.run(["mount", "-o", "remount,size=64m", str(spool)], check=True)
        job_id = queue(db, EVALUATE, (new_model, 2000))
        assert wait_for_end(db, job_id) == "succeeded"
        assert worker.process.poll() is None
    finally:
        for started in workers.started:
            started.end()
        subprocess.run(["umount", str(spool)], check=True)


def claim(db: psycopg.Connection[Any], most: int = 10) -> tuple[int, int] | None:
    statement = "SELECT job_id, fencing_token FROM pgml_tune._claim_job('test', '1 hour', %s)"
    return db.execute(statement, (most,)).fetchone()


def test_no_more_jobs_run_than_are_allowed(workers: Workers, new_model: str, db: psycopg.Connection[Any]) -> None:
    first = queue(db, QUANTIZE, (new_model,))
    second = queue(db, EVALUATE, (new_model, 3))
    assert claim(db, 1) == (first, 1)
    assert claim(db, 1) is None
    assert claim(db, 2) == (second, 1)


def test_what_an_earlier_holder_writes_is_refused(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    assert claim(db) == (job_id, 1)
    db.execute("UPDATE pgml_tune.job_progress SET lease_until = now()")
    assert claim(db) == (job_id, 2)
    for call in (
        "_progress_job({}, '{{\"phase\": \"x\"}}')", "_log_job({}, '{{x}}')", "_publish_job({}, '[]', '[]', '{{}}')",
        "_fail_job({}, '22023', 'x', 'x', 'x')", "_end_cancelled({})", "_give_back_job({}, true)",
    ):  # fmt: skip
        assert fetch_value(db, f"SELECT pgml_tune.{call.format(f'{job_id}, 1')}") is False, call
    assert fetch_value(db, "SELECT pgml_tune._beat_job(%s, 1, '1 hour', NULL)", (job_id,)) == "lost"
    assert fetch_value(db, "SELECT pgml_tune._beat_job(%s, 2, '1 hour', NULL)", (job_id,)) == "ok"
    assert state_of(db, job_id) == "running"


def test_a_job_that_was_lost_three_times_fails(workers: Workers, new_model: str, db: psycopg.Connection[Any]) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    for token in (1, 2, 3):
        assert claim(db) == (job_id, token)
        db.execute("UPDATE pgml_tune.job_progress SET lease_until = now()")
    assert claim(db) is None
    assert (state_of(db, job_id), error_of(db, job_id)) == ("failed", "58000")


def test_a_lost_job_whose_cancel_was_asked_for_is_cancelled(
    workers: Workers, new_model: str, db: psycopg.Connection[Any]
) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    claim(db)
    db.execute("SELECT cancel_job(%s)", (job_id,))
    db.execute("UPDATE pgml_tune.job_progress SET lease_until = now()")
    assert claim(db) is None
    assert state_of(db, job_id) == "cancelled"


def test_the_log_of_a_job_has_an_end(workers: Workers, new_model: str, db: psycopg.Connection[Any]) -> None:
    job_id = queue(db, QUANTIZE, (new_model,))
    claim(db)
    for _ in range(3):
        db.execute("SELECT pgml_tune._log_job(%s, 1, array_fill('x'::text, '{4000}'))", (job_id,))
    lines = [row[0] for row in db.execute("SELECT line FROM pgml_tune.job_line ORDER BY job_line_id").fetchall()]
    assert len(lines) == 10_000
    assert lines[-1] == "the log is full"


@pytest.mark.parametrize("role", ["alice", "olga", "adam"])
def test_nobody_but_the_worker_may_claim_or_end_jobs(connect: Connect, role: str) -> None:
    session = connect(role)
    with refused("42501"):
        session.execute("SELECT pgml_tune._claim_job('x', '1 hour', 1)")
    with refused("42501"):
        session.execute("SELECT pgml_tune._fail_job(1, 1, '22023', 'x', 'x', 'x')")
    with refused("42501"):
        session.execute(
            "SELECT pgml_tune._add_version('x', 'embedding', NULL, 'v1', NULL, repeat('0', 64), 1, '{}', 'postgres')"
        )


# What the procedure itself would have written, but for what a test puts in its place.
OPTIONS = {option.name: option.default for option in JOB_OPTIONS["quantize_model"]} | {"method": "fp16", "target": None}
DIGEST = "0" * 64


ODD_PARAMETERS = [
    "{}",
    json.dumps(OPTIONS | {"models": 3}),
    json.dumps(OPTIONS | {"models": {"model": []}}),
    json.dumps(OPTIONS | {"models": {"model": {"reference": "minilm@v1", "task": "embedding", "digest": DIGEST}}}),
    json.dumps(OPTIONS | {"models": {"model": {"reference": "minilm@v9", "task": "embedding", "digest": DIGEST}}}),
    json.dumps(OPTIONS | {"models": {"model": {"reference": "minilm@v1", "task": {"a": 1}, "digest": DIGEST}}}),
    json.dumps(OPTIONS | {"threads": -1}),
    json.dumps(OPTIONS | {"threads": "1"}),
    json.dumps(OPTIONS | {"target": {"model": "../../x"}}),
    json.dumps(OPTIONS)[:-1] + ', "more": 1' + "0" * 4999 + "}",
    json.dumps(OPTIONS)[:-1] + ', "more": ' + "[" * 1500 + "]" * 1500 + "}",
]


def test_jobs_that_were_added_past_their_procedure_end_cleanly(
    workers: Workers, connect: Connect, db: psycopg.Connection[Any]
) -> None:
    olga = connect("olga")
    for parameters in ODD_PARAMETERS:
        olga.execute(
            "INSERT INTO pgml_tune.job (kind, parameters, request_sha256)"
            " VALUES ('quantize_model', %s, md5(%s) || md5(%s))",
            (parameters, parameters, parameters),
        )
    jobs = [job_id for (job_id,) in olga.execute("SELECT job_id FROM pgml_tune.jobs").fetchall()]
    assert len(jobs) == len(ODD_PARAMETERS)
    workers.run_once()
    for job_id in jobs:
        assert state_of(db, job_id) == "failed"
        assert error_of(db, job_id) in ("22023", "55000", "42704")


def test_an_open_transaction_with_a_job_holds_up_no_other(
    workers: Workers, connect: Connect, db: psycopg.Connection[Any]
) -> None:
    waiting = connect()
    with waiting.transaction():
        xid = fetch_value(waiting, "SELECT pg_current_xact_id()::text")
        queue(waiting, EVALUATE, ("minilm", "9"))
        worker = workers.start("--once", "--after-xid", xid)
        job_id = queue(db, "CALL import_model('nothere', '/nothere', wait => false)")
        wait_until(lambda: state_of(db, job_id) == "failed", 60)
        # It does not go while a transaction that has added a job is open.
        assert worker.process.poll() is None
        waiting.execute("SELECT cancel_job(max(job_id)) FROM pgml_tune.jobs WHERE ended_at IS NULL")
    assert worker.process.wait(60) == 0


def test_of_many_passing_workers_one_stays(workers: Workers, db: psycopg.Connection[Any]) -> None:
    with db.transaction():
        # Nobody goes because there is nothing to do.
        db.execute("SELECT pg_advisory_xact_lock_shared(1886350708, 1)")
        started = [workers.start("--once") for _ in range(4)]
        wait_until(lambda: sum(worker.process.poll() is None for worker in started) == 1, 60)
        assert fetch_value(db, "SELECT count(*) FROM pgml_tune.worker") == 1
    assert {worker.process.wait(60) for worker in started} == {0}
