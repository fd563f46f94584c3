"""From psql to a new version: every procedure on a small model, waited for, with the worker that a CALL starts."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation

ROWS = """
CREATE TABLE sentence AS
SELECT g AS id,
       (ARRAY['return the number of a list', 'return a string of the value', 'query the object'])[1 + g % 3]
           || ' ' || g AS body,
       (ARRAY['number', 'string', 'object'])[1 + g % 3] AS label,
       (ARRAY['list', 'value', 'query'])[1 + g % 3] || ' ' || g AS other,
       (g % 11) / 10.0 AS score
FROM generate_series(1, 90) AS g
"""
PAIRS = "SELECT body, other FROM sentence ORDER BY id"
SCORED = "SELECT body, other, score FROM sentence ORDER BY id"
LABELLED = "SELECT body, label FROM sentence ORDER BY id"


class Session:
    """A session that remembers what it was told."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db
        self.notices: list[str] = []
        db.add_notice_handler(lambda notice: self.notices.append(str(notice.message_primary)))

    def call(self, statement: str, *values: object) -> dict[str, Any]:
        """The result of the job that a CALL has waited for."""
        self.notices.clear()
        job = fetch_value(self.db, f"CALL {statement}", values)
        row = self.db.execute(
            "SELECT state::text, result, run_time > interval '0' FROM pgml_tune.jobs WHERE job_id = %s", (job,)
        ).fetchone()
        assert row is not None and row[0] == "succeeded" and row[2], row
        assert self.notices[-1].startswith(f"job {job} succeeded after")
        result: dict[str, Any] = row[1]
        return result

    def version(self, reference: str) -> dict[str, Any]:
        model, version = reference.split("@")
        row = self.db.execute(
            "SELECT to_jsonb(v) FROM pgml_tune.model_versions AS v WHERE model = %s AND version = %s", (model, version)
        ).fetchone()
        assert row is not None
        facts: dict[str, Any] = row[0]
        return facts


@pytest.fixture(scope="module")
def session(connect_shared: Connect, server_home: Path) -> Iterator[Session]:
    """A database with a model of two layers, imported through SQL."""
    installation = Installation(server_home)
    installation.build_tiny()
    shared = Session(connect_shared())
    shared.db.execute(ROWS)
    shared.db.execute("SELECT configure('job_threads', '1')")
    result = shared.call("import_model('pupil', %s)", str(installation.import_dir / "tiny"))
    assert result["versions"] == ["pupil@v1"]
    yield shared


def test_finetuning_makes_a_version_of_another_space_that_does_not_serve(session: Session) -> None:
    options = '{"epochs": 2, "batch_size": 8, "seed": 7}'
    result = session.call("finetune_sbert('pupil', %s, eval_query => %s, options => %s)", SCORED, SCORED, options)
    assert result["versions"] == ["pupil@v2"]
    # It was told how far the job was; of short phases not each.
    assert len(session.notices) > 1 and all(notice.startswith("job ") for notice in session.notices)
    before, after = session.version("pupil@v1"), session.version("pupil@v2")
    assert after["space_id"] != before["space_id"]
    assert (before["is_serving"], after["is_serving"], after["base_version"]) == (True, False, "v1")
    made_by = after["source"]["made_by"]
    assert (made_by["kind"], made_by["base"], made_by["train"]["query"]) == ("finetune_sbert", "pupil@v1", SCORED)
    assert made_by["train"]["count"] == 90 and len(made_by["train"]["sha256"]) == 64
    figures = session.db.execute(
        "SELECT version, metric_value FROM pgml_tune.evaluations WHERE model = 'pupil' AND metric = 'spearman'"
    ).fetchall()
    assert {version for version, _ in figures} == {"v1", "v2"} and all(-100 <= value <= 100 for _, value in figures)
    different = (
        "SELECT embed('a list', 'pupil@v1') <> embed('a list', 'pupil@v2')"
        " AND embed('a list', 'pupil') = embed('a list', 'pupil@v1')"
    )
    assert fetch_value(session.db, different)


def test_the_same_seed_and_rows_make_the_same_vectors(session: Session) -> None:
    options = '{"batch_size": 8, "seed": 3, "eval_share": 0}'
    for version in ("same1", "same2"):
        session.call("finetune_sbert('pupil@v1', %s, %s, options => %s)", PAIRS, version, options)
    distance = "SELECT embed('a list', 'pupil@same1') <=> embed('a list', 'pupil@same2')"
    assert fetch_value(session.db, distance) == pytest.approx(0, abs=1e-6)


def test_a_classifier_is_trained_served_distilled_and_evaluated(session: Session) -> None:
    options = '{"epochs": 8, "batch_size": 8, "learning_rate": 0.003}'
    result = session.call("finetune_classifier('pupil', %s, 'triage', %s, %s)", LABELLED, LABELLED, options)
    assert result["versions"] == ["triage@v1"]
    answers = session.db.execute("SELECT label, score FROM classify('query the object 7', 'triage', 3)").fetchall()
    assert sorted(label for label, _ in answers) == ["number", "object", "string"]
    assert sum(score for _, score in answers) == pytest.approx(1, abs=1e-5)
    session.call("distill_model('triage', 'layers:1', %s, %s, '{\"epochs\": 1}')", LABELLED, LABELLED)
    result = session.call("evaluate_model('triage-distilled', %s)", LABELLED)
    assert 0 <= result["figures"]["accuracy"] <= 100 and result["figures"]["latency_ms"] > 0
    with refused("0A000"):
        session.db.execute("SELECT embed('a', 'triage')")


DOCUMENT = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
FEEDBACK = """
SELECT count(record_feedback(call_id, label => label, expected => other, input => body)) FROM (
    SELECT label, other, body, last_call_id() AS call_id FROM sentence, embed(body, %s) OFFSET 0
) AS answered
"""


def test_feedback_becomes_the_next_version_by_the_statements_of_the_documentation(session: Session) -> None:
    session.db.execute("SELECT configure('log_sample', '1')")
    statements = re.findall(r"^CALL (finetune_\w+\(.*?\));", DOCUMENT, re.MULTILINE | re.DOTALL)
    pairs, labelled = (statement.replace("minilm", "pupil").replace("triage", "pupil") for statement in statements)
    assert fetch_value(session.db, FEEDBACK, ("pupil",)) == 90
    result = session.call(pairs.replace("$$)", "$$, 'heeded')"))
    assert result["versions"] == ["pupil@heeded"]
    assert session.version("pupil@heeded")["source"]["made_by"]["train"]["count"] == 90
    result = session.call(labelled.replace("$$)", "$$, 'taught')"))
    assert result["versions"] == ["taught@v1"]


def test_an_embedding_model_is_distilled_into_fewer_layers(session: Session) -> None:
    result = session.call(
        "distill_model('pupil', 'layers:1', 'SELECT body FROM sentence', options => '{\"epochs\": 1}')"
    )
    assert result["versions"] == ["pupil-distilled@v1"]
    made_by = session.version("pupil-distilled@v1")["source"]["made_by"]
    assert (made_by["parameters"]["student"], made_by["parameters"]["epochs"]) == ("layers:1", 1)
    assert result["student"]["bytes"] < result["teacher"]["bytes"]


def test_smaller_and_exported_versions_keep_the_space(session: Session) -> None:
    assert session.call("quantize_model('pupil@v1', 'fp16')")["versions"] == ["pupil@v1-fp16"]
    exported = session.call("export_onnx('pupil@v1', '{\"opset\": 18}')")["versions"]
    assert exported == ["pupil@v1-opset18"]
    space = session.version("pupil@v1")["space_id"]
    for reference in ("pupil@v1-fp16", *exported):
        assert session.version(reference)["space_id"] == space
        assert fetch_value(session.db, "SELECT embed('a', %s) <=> embed('a', 'pupil@v1')", (reference,)) < 0.01


def test_tensorrt_without_a_gpu_is_refused_with_what_is_missing(session: Session) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    with refused("0A000") as failure:
        session.db.execute("CALL export_tensorrt('pupil@v1')")
    assert failure.value.diag.message_primary


def test_the_card_of_a_version_tells_where_it_comes_from(session: Session) -> None:
    card = fetch_value(session.db, "SELECT model_card('triage', 'v1')")
    assert card["lineage"]["made_by"]["base"] == "pupil@v1"
    assert {"accuracy", "macro_f1"} <= {figure["metric"] for figure in card["evaluations"]}


def test_the_error_of_a_job_is_the_error_of_its_call(session: Session) -> None:
    with refused("42501"):
        session.db.execute("CALL import_model('outside', '/etc')")
    assert fetch_value(session.db, "SELECT sqlstate FROM pgml_tune.jobs ORDER BY job_id DESC LIMIT 1") == "42501"


LONG = "CALL finetune_sbert('pupil@v1', %s, options => '{\"epochs\": 100, \"batch_size\": 2}')"


def test_a_cancelled_wait_ends_the_wait_and_not_the_job(session: Session, connect_shared: Connect) -> None:
    waiting = connect_shared()
    pid = waiting.info.backend_pid
    running = "SELECT max(job_id) FROM pgml_tune.stat_progress WHERE phase = 'training' AND steps_done > 0"
    canceler = os.fork()
    if canceler == 0:  # a second client, which cancels as soon as the training has begun
        with psycopg.connect(waiting.info.dsn, autocommit=True) as other:
            wait_until(lambda: fetch_value(other, running), 60)
            other.execute("SELECT pg_cancel_backend(%s)", (pid,))
        os._exit(0)
    with refused("57014") as failure:
        waiting.execute(LONG, (PAIRS,))
    os.waitpid(canceler, 0)
    job = fetch_value(session.db, running)
    assert failure.value.diag.message_hint == f"SELECT cancel_job({job})"
    assert fetch_value(waiting, "SELECT state::text FROM pgml_tune.jobs WHERE job_id = %s", (job,)) == "running"
    assert fetch_value(waiting, "SELECT cancel_job(%s)", (job,))
    ended = "SELECT state = 'cancelled' FROM pgml_tune.jobs WHERE job_id = %s"
    wait_until(lambda: fetch_value(session.db, ended, (job,)), 15)


def test_a_call_in_a_transaction_block_runs_after_its_commit(session: Session) -> None:
    with session.db.transaction():
        job = fetch_value(session.db, "CALL evaluate_model('pupil@v1', %s, '{spearman}')", (SCORED,))
        assert fetch_value(session.db, "SELECT state::text FROM pgml_tune.jobs WHERE job_id = %s", (job,)) == "queued"
    ended = "SELECT state = 'succeeded' FROM pgml_tune.jobs WHERE job_id = %s"
    wait_until(lambda: fetch_value(session.db, ended, (job,)), 60)
