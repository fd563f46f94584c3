"""Models that write SQL: brought in through SQL, kept apart from those that embed, and asked in a backend."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import run
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import CHECKOUT, Installation, workers_of

from pgml_tune.engine.artifact import new_artifact, publish
from tests.fixtures import sql_server
from tests.fixtures.sql_server import SqlServer, chat

SCHEMA = """
CREATE TABLE city (id serial PRIMARY KEY, name text, state text, population integer);
INSERT INTO city (name, state, population) VALUES ('austin', 'texas', 1), ('dallas', 'texas', 2);
GRANT SELECT ON city TO alice;
"""
LOADED = """
DO LANGUAGE plpython3u $$
import sys
found = {"numpy", "ctranslate2", "tokenizers", "onnxruntime"} & set(sys.modules)
plpy.execute("SELECT set_config('test.loaded', '%s', false)" % ",".join(sorted(found)))
$$
"""
_BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import tiny_t5, tiny_writers
folder = Path(sys.argv[2])
tiny_t5.build(folder / "t5", [("how many", "SELECT 1")])
tiny_writers.build_llama(folder / "llama")
"""


@pytest.fixture(scope="module")
def session(connect_shared: Connect, server_home: Path) -> Iterator[psycopg.Connection[Any]]:
    """A database with a T5, imported through SQL."""
    installation = Installation(server_home)
    folder = installation.import_dir / "writers"
    if not folder.exists():
        # In a process of its own: torch would stay in this one.
        folder.mkdir()
        run(sys.executable, "-c", _BUILD, str(CHECKOUT / "tests" / "fixtures"), str(folder), folder=server_home)
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, installation.user)
    shared = connect_shared()
    shared.execute(SCHEMA)
    shared.execute("SELECT configure('job_threads', '1')")
    shared.execute("CALL import_model('scribe', %s, 'text_to_sql')", (str(folder / "t5"),))
    yield shared


@pytest.fixture
def model_server() -> Iterator[SqlServer]:
    with sql_server.serving(lambda request: chat(["SELECT count(*) FROM city"])) as found:
        yield found


@pytest.fixture
def served(session: psycopg.Connection[Any], model_server: SqlServer) -> Iterator[SqlServer]:
    """A server that sql_endpoint names, and model oracle, which it runs."""
    exists = "SELECT count(*) FROM pgml_tune.models WHERE model = 'oracle'"
    if not fetch_value(session, exists):
        session.execute("CALL import_model('oracle', 'endpoint:qwen', 'text_to_sql')")
    session.execute("SELECT configure('sql_endpoint', %s)", (model_server.url(),))
    yield model_server
    session.execute("SELECT configure('sql_endpoint', NULL)")


def test_an_imported_writer_is_a_version_with_what_was_measured(session: psycopg.Connection[Any]) -> None:
    card = fetch_value(session, "SELECT model_card('scribe@v1')")
    assert (card["task"], card["is_serving"], card["artifact"]["storage"]) == ("text_to_sql", True, "int8")
    assert card["checks"]["conversion"]["mean"] < 1e-3
    assert 0 <= card["checks"]["storage_parity"]["same_first"] <= 1
    assert fetch_value(session, "SELECT task FROM pgml_tune.models WHERE model = 'scribe'") == "text_to_sql"


def test_the_same_artifact_can_be_registered_by_hand_and_dropped(session: psycopg.Connection[Any]) -> None:
    register = "SELECT register_model(%s, 'scribe@v1', %s)"
    assert fetch_value(session, register, ("scribe_copy", "text_to_sql")) == "v1"
    with refused("0A000"):
        session.execute(register, ("scribe_other", "embedding"))
    session.execute("SELECT drop_model_version('scribe_copy', 'v1')")


def test_a_decoder_with_a_chat_template_is_imported_too(session: psycopg.Connection[Any], server_home: Path) -> None:
    folder = Installation(server_home).import_dir / "writers" / "llama"
    session.execute("CALL import_model('talker', %s, 'text_to_sql')", (str(folder),))
    rows = session.execute("SELECT sql, score, valid FROM text_to_sql_candidates('how many?', 'talker')").fetchall()
    assert all(sql and score <= 0 and not valid for sql, score, valid in rows)


def test_its_candidates_are_shown_with_their_faults_and_the_session_stays_light(connect_shared: Connect) -> None:
    session = connect_shared()
    rows = session.execute("SELECT rank, valid, error FROM text_to_sql_candidates('how many?', 'scribe')").fetchall()
    assert [rank for rank, _, _ in rows] == list(range(1, len(rows) + 1))
    assert all(valid == (error is None) for _, valid, error in rows)
    checks = dict(session.execute("SELECT check_name, status FROM doctor()").fetchall())
    assert checks["backend imports"] == checks["model scribe@v1"] == checks["package ctranslate2"] == "ok"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT embed('a', 'scribe')",
        "SELECT * FROM classify('a', 'scribe')",
        "SELECT text_to_sql('a', 'minilm')",
        "CALL quantize_model('scribe')",
        "CALL export_onnx('scribe')",
        "CALL export_tensorrt('scribe')",
        "CALL distill_model('scribe', 'layers:1', 'SELECT name FROM city')",
        "CALL finetune_sbert('scribe', 'SELECT name, state FROM city')",
        "CALL auto_embed('city', 'name', 'scribe')",
    ],
)
def test_what_only_other_models_can_do_is_refused(session: psycopg.Connection[Any], statement: str) -> None:
    with refused("0A000"):
        session.execute(statement)


def test_a_writer_is_no_default_for_embedding(session: psycopg.Connection[Any]) -> None:
    names = "SELECT model FROM pgml_tune.models WHERE is_default ORDER BY model"
    assert [name for (name,) in session.execute(names)].count("scribe") <= 1
    assert fetch_value(session, "SELECT vector_dims(embed('a'))") == 384


def test_a_model_of_a_server_answers_whoever_may_ask(served: SqlServer, connect_shared: Connect) -> None:
    alice = connect_shared(user="alice")
    assert (
        fetch_value(alice, "SELECT text_to_sql('how many cities are there?', 'oracle')") == "SELECT COUNT(*) FROM city"
    )
    asked = served.requests[0]
    assert asked["model"] == "qwen" and "population" in asked["messages"][0]["content"]


def test_without_a_server_its_model_is_not_ready(served: SqlServer, session: psycopg.Connection[Any]) -> None:
    session.execute("SELECT configure('sql_endpoint', NULL)")
    with refused("55000"):
        session.execute("SELECT text_to_sql('is a server there?', 'oracle')")
    status = "SELECT status FROM doctor() WHERE check_name = 'model oracle@v1'"
    assert fetch_value(session, status) == "warn"


def test_a_server_that_fails_is_told_of(served: SqlServer, session: psycopg.Connection[Any]) -> None:
    served.answer = lambda request: (503, b"loading")
    with refused("58000"):
        session.execute("SELECT text_to_sql('is the server there?', 'oracle')")


def test_a_statement_that_waits_for_a_server_can_be_cancelled(
    served: SqlServer, session: psycopg.Connection[Any], connect_shared: Connect
) -> None:
    served.may_answer.clear()
    waiting = connect_shared()
    pid = waiting.info.backend_pid
    failures: list[psycopg.Error] = []

    def ask() -> None:
        try:
            waiting.execute("SELECT text_to_sql('does the server think?', 'oracle')")
        except psycopg.Error as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(served.was_asked.is_set)
    assert fetch_value(session, "SELECT pg_cancel_backend(%s)", (pid,))
    asking.join(20)
    assert [failure.sqlstate for failure in failures] == ["57014"]
    assert fetch_value(waiting, "SELECT 1") == 1


def test_statement_timeout_ends_waiting_for_a_server(served: SqlServer, connect_shared: Connect) -> None:
    served.may_answer.clear()
    waiting = connect_shared()
    waiting.execute("SET statement_timeout = '300ms'")
    with refused("57014"):
        waiting.execute("SELECT text_to_sql('does the server still think?', 'oracle')")


@pytest.fixture(scope="module")
def endless(session: psycopg.Connection[Any], server_home: Path) -> str:
    """A model that writes for minutes: what ends a text for it is what it may never write."""
    models = server_home / "models"
    original = models / (models / "names" / "scribe@v1").read_text().strip()
    with new_artifact(models) as folder:
        for path in original.iterdir():
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        config = json.loads((original / "config.json").read_bytes())
        config["generation"]["max_output_tokens"] = 100_000
        (folder / "config.json").write_text(json.dumps(config))
        inner = json.loads((original / "ct2_config.json").read_bytes())
        (folder / "ct2_config.json").write_text(json.dumps(inner | {"eos_token": "<unk>"}))
        digest = publish(models, folder).digest
    session.execute("SELECT register_model('babbler', %s, 'text_to_sql', %s)", (digest, f"v-{digest[:12]}"))
    return "babbler"


class Writing:
    """A session whose statement waits for a model that writes."""

    def __init__(self, session: psycopg.Connection[Any], model: str) -> None:
        self.session = session
        self.pid = session.info.backend_pid
        self.failures: list[psycopg.Error] = []
        self._thread = threading.Thread(target=self._run, args=(model,))
        self._thread.start()
        began = wait_until(self._seconds_of_others)
        wait_until(lambda: self._seconds_of_others() > began + 0.3)

    def _run(self, model: str) -> None:
        try:
            self.session.execute("SELECT count(*) FROM text_to_sql_candidates('write on', %s)", (model,))
        except psycopg.Error as error:
            self.failures.append(error)

    def _seconds_of_others(self) -> float:
        """The time that threads beside the main one have computed."""
        ticks = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if task.name != str(self.pid):
                ticks += sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def sqlstate(self) -> str | None:
        """What the statement has ended with."""
        self._thread.join(30)
        (failure,) = self.failures
        return failure.sqlstate


def test_a_statement_can_be_cancelled_while_a_model_writes(
    endless: str, session: psycopg.Connection[Any], connect_shared: Connect
) -> None:
    writing = Writing(connect_shared(), endless)
    assert fetch_value(session, "SELECT pg_cancel_backend(%s)", (writing.pid,))
    assert writing.sqlstate() == "57014"
    assert fetch_value(writing.session, "SELECT 1") == 1
    # The library writes on; that its backend leaves now must not disturb the server.
    writing.session.close()
    wait_until(lambda: not Path(f"/proc/{writing.pid}").exists())


def test_a_backend_that_is_terminated_while_a_model_writes_does_not_crash(
    endless: str, session: psycopg.Connection[Any], connect_shared: Connect
) -> None:
    for _ in range(5):
        writing = Writing(connect_shared(), endless)
        assert fetch_value(session, "SELECT pg_terminate_backend(%s)", (writing.pid,))
        assert writing.sqlstate() in ("57P01", None)
        wait_until(lambda pid=writing.pid: not Path(f"/proc/{pid}").exists())
    assert fetch_value(session, "SELECT 1") == 1


def test_only_superusers_choose_the_server(session: psycopg.Connection[Any], connect_shared: Connect) -> None:
    adam = connect_shared(user="adam")
    with refused("42501"):
        adam.execute("SELECT configure('sql_endpoint', 'http://127.0.0.1:1/v1/completions')")
    for address in ("http://192.0.2.1/v1/completions", "http://127.0.0.1/", "file:///etc/passwd"):
        with refused("22023"):
            session.execute("SELECT configure('sql_endpoint', %s)", (address,))


def test_what_a_server_writes_is_checked_as_any_other(served: SqlServer, session: psycopg.Connection[Any]) -> None:
    served.answer = lambda request: chat(["DROP TABLE city", "SELECT pg_sleep(9)", "SELECT 1; DROP TABLE city"])
    with refused("22023"):
        session.execute("SELECT text_to_sql('would you drop it?', 'oracle')")
    assert fetch_value(session, "SELECT count(*) FROM city") == 2


LOGGED = """
SELECT version, outcome FROM pgml_tune.inference_logs
WHERE model = 'oracle' AND task = 'text_to_sql' AND call_id = ANY (%s)
"""


def test_calls_are_shared_out_by_a_rollout_and_a_candidate_that_fails_is_stepped_in_for(
    served: SqlServer, session: psycopg.Connection[Any], connect_shared: Connect
) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        return chat(["SELECT name FROM city"]) if request["model"] == "qwen" else (500, b"it fell over")

    served.answer = answer
    session.execute("CALL import_model('oracle', 'endpoint:llama', 'text_to_sql', 'v2')")
    session.execute("SELECT rollout_model('oracle', 'v2', 50)")
    asking = connect_shared()
    calls = []
    for number in range(24):
        question = f"which cities are there, number {number}?"
        assert fetch_value(asking, "SELECT text_to_sql(%s, 'oracle')", (question,)) == "SELECT name FROM city"
        calls.append(fetch_value(asking, "SELECT last_call_id()"))
    session.execute("SELECT rollback_model('oracle')")
    outcomes = set(session.execute(LOGGED, (calls,)).fetchall())
    assert {outcome for _, outcome in outcomes} == {"ok", "fallback"}
    assert {request["model"] for request in served.requests} == {"qwen", "llama"}


def test_a_source_that_names_no_model_of_a_server_fails_its_import(session: psycopg.Connection[Any]) -> None:
    with refused("22023"):
        session.execute("CALL import_model('oracle2', 'endpoint:', 'text_to_sql')")
    with refused("0A000"):
        options = json.dumps({"quantize": ["int8_dynamic"]})
        session.execute("CALL import_model('oracle3', 'endpoint:a', 'text_to_sql', options => %s)", (options,))


def test_a_writer_gives_the_same_texts_in_the_worker_and_a_session_that_asks_it_loads_no_library(
    session: psycopg.Connection[Any], connect_shared: Connect, server_home: Path
) -> None:
    ask = "SELECT array_agg(sql ORDER BY rank) FROM text_to_sql_candidates('how many?', 'scribe', k => 3)"
    with workers_of(Installation(server_home), session) as workers:
        workers.start("--database", workers.database, "--serve")
        wait_until(lambda: session.execute("SELECT FROM pgml_tune.loaded_models WHERE place = 'worker'").rowcount, 60)
        found = {}
        for runtime in ("worker", "in_process"):
            asking = connect_shared()
            asking.execute("SELECT set_config('pgml_tune.runtime', %s, false)", (runtime,))
            asking.execute("SET pgml_tune.cache = 'off'")
            found[runtime] = fetch_value(asking, ask)
            asking.execute(LOADED)
            loaded = fetch_value(asking, "SELECT current_setting('test.loaded')")
            assert bool(loaded) == (runtime == "in_process"), loaded
    assert found["worker"] == found["in_process"] != []
