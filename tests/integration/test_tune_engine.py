"""The engine of a version in the worker: measured through SQL, chosen, taken back, and what sessions get from it."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation, Workers, workers_of

from pgml_tune.engine.machine import fingerprint, has_bf16

COSINE = "SELECT 1 - (%s::vector <=> %s::vector)"
TEXTS = ["a", "an index of a table", "word " * 400, "如何删除字符串的空格"]
QUICK = {"seconds": 1, "texts": 32}
CHOOSE = """
INSERT INTO pgml_tune.engine_choice (
    model_version_id, machine, engine, provider, inference_precision, threads, lanes, batch_size, texts_per_second,
    gain_percent, latency_ms, agreement, job_id, created_by
)
SELECT v.model_version_id, %s, %s, 'cpu', %s, %s, 1, 8, 500, 25, 2, 1, 1, 'postgres'
FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
WHERE m.name = 'minilm' AND v.version = 'v1'
"""
IN_WORKER = """
SELECT engine, provider, inference_precision FROM pgml_tune.loaded_models
WHERE place = 'worker' AND versions @> '{minilm@v1}'
"""
OWN, OPENVINO = ("onnxruntime", None, None), ("openvino", "cpu", "fp32")


@pytest.fixture
def workers(server_home: Path, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    with workers_of(Installation(server_home), db) as workers:
        yield workers


@pytest.fixture
def worker(workers: Workers) -> Workers:
    """A worker that serves models."""
    workers.start("--database", workers.database, "--serve")
    return workers


def choose(
    db: psycopg.Connection[Any], engine: str, precision: str = "fp32", threads: int = 1, machine: str | None = None
) -> None:
    db.execute(CHOOSE, (machine or fingerprint(), engine, precision, threads))


def wait_for_engine(db: psycopg.Connection[Any], *wanted: Any) -> None:
    wait_until(lambda: db.execute(IN_WORKER).fetchall() == [wanted], 60)


def asking(connect: Connect, runtime: str) -> psycopg.Connection[Any]:
    session = connect()
    session.execute("SELECT set_config('pgml_tune.runtime', %s, false), set_config('pgml_tune.cache', 'off', false)",
                    (runtime,))  # fmt: skip
    return session


def least_cosine(connect: Connect) -> float:
    """Of texts in the worker to the same in a session."""
    sessions = [asking(connect, runtime) for runtime in ("worker", "in_process")]
    left, right = (fetch_value(session, "SELECT embed(%s::text[])::text[]", (TEXTS,)) for session in sessions)
    pairs = list(zip(left, right, strict=True))
    pairs += [tuple(fetch_value(session, "SELECT embed(%s)::text", (text,)) for session in sessions) for text in TEXTS]
    return float(min(fetch_value(sessions[1], COSINE, pair) for pair in pairs))


def tune(db: psycopg.Connection[Any], version: str, **options: Any) -> dict[str, Any]:
    job = fetch_value(db, "CALL tune_engine('minilm', %s, %s)", (version, json.dumps(QUICK | options)))
    result: dict[str, Any] = fetch_value(db, "SELECT result FROM pgml_tune.jobs WHERE job_id = %s", (job,))
    return result


@pytest.mark.slow
def test_a_classifier_is_measured_by_its_probabilities(
    db: psycopg.Connection[Any], connect: Connect, server_home: Path, worker: Workers
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    digest = Installation(server_home).build_classifier()
    db.execute("SELECT register_model('tuned', %s, 'classification')", (digest,))
    options = json.dumps(QUICK | {"engines": ["openvino"]})
    job = fetch_value(db, "CALL tune_engine('tuned', options => %s)", (options,))
    result = fetch_value(db, "SELECT result FROM pgml_tune.jobs WHERE job_id = %s", (job,))
    assert {each["engine"] for each in result["candidates"]} == {"openvino"}
    assert all(each["agreement"] >= 0.99999 for each in result["candidates"])
    db.execute("DELETE FROM pgml_tune.engine_choice")
    db.execute(CHOOSE.replace("'minilm'", "'tuned'"), (fingerprint(), "openvino", "fp32", 1))
    wait_until(lambda: db.execute(IN_WORKER.replace("minilm@v1", "tuned@v1")).fetchall() == [OPENVINO], 60)
    answers = [
        asking(connect, runtime).execute("SELECT label, score FROM classify('query the object', 'tuned', 3)").fetchall()
        for runtime in ("worker", "in_process")
    ]
    assert [label for label, _ in answers[0]] == [label for label, _ in answers[1]]
    assert [score for _, score in answers[0]] == pytest.approx([score for _, score in answers[1]], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "engine"), [("v1", "openvino"), ("v1-int8", "onnxruntime")])
def test_every_way_is_measured_and_the_best_that_keeps_the_vectors_is_chosen(
    db: psycopg.Connection[Any], workers: Workers, version: str, engine: str
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    workers.serve()
    result = tune(db, version, engines=[engine])
    assert {each["engine"] for each in result["candidates"]} == {engine}
    assert result["present"]["agreement"] >= 0.99999 and result["present"]["texts_per_second"] > 0
    for each in result["candidates"]:
        assert "problem" in each or each["is_fit"] == (
            each["agreement"] >= 0.99999 and (version == "v1-int8" or each["invariance"] >= 0.99999)
        )
    if version == "v1":
        assert all(each["is_fit"] for each in result["candidates"])
    chosen = db.execute(
        "SELECT model, version, engine, batch_size, agreement >= 0.99999, machine FROM pgml_tune.engine_choices"
    ).fetchall()
    choice = result["choice"]
    assert chosen == [] if choice is None else chosen == [
        ("minilm", version, choice["engine"], choice["batch_size"], True, fingerprint())
    ]  # fmt: skip


def test_the_worker_runs_a_version_as_was_chosen_until_that_is_taken_back(
    db: psycopg.Connection[Any], connect: Connect, worker: Workers
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    wait_for_engine(db, *OWN)
    choose(db, "openvino")
    wait_for_engine(db, *OPENVINO)
    assert least_cosine(connect) >= 0.99999
    assert fetch_value(db, "SELECT reset_engine('minilm', 'v1')")
    wait_for_engine(db, *OWN)
    assert least_cosine(connect) >= 0.99999
    assert not fetch_value(db, "SELECT reset_engine('minilm@v1')")


def test_calls_that_are_under_way_while_the_engine_changes_are_answered(
    db: psycopg.Connection[Any], connect: Connect, worker: Workers
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    wait_for_engine(db, *OWN)
    stop, failures, answered = threading.Event(), list[BaseException](), Counter[int]()

    def call(number: int) -> None:
        session = asking(connect, "worker")
        try:
            while not stop.is_set():
                session.execute("SELECT embed(%s::text[])", ([f"text {number}", "word " * number],))
                answered[number] += 1
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        choose(db, "openvino")
        wait_for_engine(db, *OPENVINO)
        db.execute("SELECT reset_engine('minilm')")
        wait_for_engine(db, *OWN)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == [] and len(answered) == 3
    # Both are gone, and nobody is said to use them: another model may take their place.
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.loaded_models WHERE place = 'worker'") == 1


def test_in_bf16_the_vectors_are_those_of_a_session_but_for_one_part_in_ten_thousand(
    db: psycopg.Connection[Any], connect: Connect, worker: Workers
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    if not has_bf16():
        pytest.skip("the CPU has no instructions for bfloat16")
    choose(db, "openvino", "bf16")
    wait_for_engine(db, "openvino", "cpu", "bf16")
    assert 0.9999 <= least_cosine(connect) < 0.99999


def test_a_batch_on_all_cores_gives_the_same_vectors(
    db: psycopg.Connection[Any], connect: Connect, worker: Workers
) -> None:
    choose(db, "onnxruntime", threads=2)
    wait_for_engine(db, "onnxruntime", "cpu", "fp32")
    assert least_cosine(connect) >= 0.99999


def test_a_choice_of_another_machine_does_not_count_and_doctor_says_so(
    db: psycopg.Connection[Any], connect: Connect, worker: Workers
) -> None:
    choose(db, "openvino", machine="another machine")
    wait_for_engine(db, *OWN)
    assert least_cosine(connect) >= 0.99999
    told = db.execute("SELECT status, fix FROM doctor() WHERE check_name = 'engine of minilm@v1'").fetchall()
    assert [status for status, _ in told] == ["warn"] and "reset_engine('minilm', 'v1')" in told[0][1]


def test_sessions_that_compute_themselves_keep_to_the_engine_of_the_version(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    choose(db, "openvino")
    session = asking(connect, "in_process")
    session.execute("SELECT embed('a')")
    shown = "SELECT engine, provider FROM pgml_tune.loaded_models WHERE place = 'session'"
    assert session.execute(shown).fetchall() == [("onnxruntime", None)]


def test_a_choice_goes_with_its_version(db: psycopg.Connection[Any]) -> None:
    db.execute(CHOOSE.replace("= 'v1'", "= 'v1-int8'"), (fingerprint(), "openvino", "fp32", 1))
    assert db.execute("SELECT model, version FROM pgml_tune.engine_choices").fetchall() == [("minilm", "v1-int8")]
    db.execute("SELECT drop_model_version('minilm', 'v1-int8')")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.engine_choice") == 0


def test_who_may_train_may_tune_and_nobody_else(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT configure('auto_start_worker', 'off')")
    choose(db, "openvino")
    olga, alice = connect("olga"), connect("alice")
    olga.execute("CALL tune_engine('minilm')")
    assert fetch_value(olga, "SELECT reset_engine('minilm')")
    for statement in (
        "CALL tune_engine('minilm')",
        "SELECT reset_engine('minilm')",
        "SELECT * FROM pgml_tune.engine_choices",
    ):
        with refused("42501"):
            alice.execute(statement)
    with refused("42501"):
        olga.execute("INSERT INTO pgml_tune.engine_choice SELECT * FROM pgml_tune.engine_choice")


def test_only_an_administrator_may_let_in_what_changes_vectors(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    db.execute("SELECT configure('auto_start_worker', 'off')")
    lossy = "CALL tune_engine('minilm', options => '{\"min_cosine\": 0.9999}')"
    olga, adam = connect("olga"), connect("adam")
    with refused("42501") as failure:
        olga.execute(lossy)
    assert "grant_admin" in (failure.value.diag.message_hint or "")
    adam.execute(lossy)
    by_hand = "INSERT INTO pgml_tune.job (kind, parameters, request_sha256) VALUES ('tune_engine', %s, repeat('0', 64))"
    for parameters in ({"min_cosine": 0.5}, {"min_cosine": "1"}, {}):
        with refused("42501"):
            olga.execute(by_hand, (json.dumps(parameters),))


def test_a_database_that_has_not_chosen_so_keeps_its_vectors(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers
) -> None:
    pytest.importorskip("openvino", reason="make install-openvino")
    if not has_bf16():
        pytest.skip("the CPU has no instructions for bfloat16")
    other = f"{workers.database}_other"
    db.execute(f"CREATE DATABASE {other}")
    try:
        second = connect(dbname=other)
        second.execute("CREATE EXTENSION pgml_tune CASCADE")
        second.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
        workers.start("--database", workers.database, "--database", other, "--serve")
        choose(db, "openvino", "bf16")
        db.execute("UPDATE pgml_tune.engine_choice SET agreement = 0.9999")
        wait_for_engine(db, *OWN)
        assert least_cosine(connect) >= 0.99999
        second.execute(CHOOSE, (fingerprint(), "openvino", "bf16", 1))
        second.execute("UPDATE pgml_tune.engine_choice SET agreement = 0.9999")
        wait_for_engine(db, "openvino", "cpu", "bf16")
        second.close()
    finally:
        for worker in workers.started:
            worker.end()
        db.execute(f"DROP DATABASE IF EXISTS {other} WITH (FORCE)")


def test_an_engine_that_is_not_there_is_refused_with_what_is(db: psycopg.Connection[Any], workers: Workers) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    workers.serve()
    with refused("0A000") as failure:
        db.execute("CALL tune_engine('minilm', options => '{\"engines\": [\"cuda\"]}')")
    assert "onnxruntime" in (failure.value.diag.message_detail or "")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.engine_choice") == 0
