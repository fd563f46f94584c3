"""Models that a server runs: what is asked, what is made of the answers, and what of a server that gives none."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sql_server
from sql_server import SqlServer, chat, completion

from pgml_tune.engine import endpoint
from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.endpoint import Endpoint
from pgml_tune.engine.generator import Generator, open_generator
from pgml_tune.engine.patience import PatientConnection
from pgml_tune.engine.trial import try_out
from pgml_tune.engine.work import Work
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, NotReady, SystemFault
from pgml_tune.jobs.serving import publish_served
from pgml_tune.records import ArtifactConfig
from pgml_tune.settings import setting_named

CONFIG = ArtifactConfig(
    task="text_to_sql", engine="endpoint", dimensions=1, max_tokens=100, pooling="none", is_normalized=False,
    prompt_query="", prompt_passage="", pad_token_id=0, storage="server", space_id="x", is_batch_invariant=False,
    generation={"model": "qwen", "max_output_tokens": 77},
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[SqlServer]:
    with sql_server.serving(lambda request: chat(["SELECT 1"])) as found:
        yield found


def asked(server: SqlServer, k: int = 1, path: str = "/v1/chat/completions", **options: Any) -> list[tuple[str, float]]:
    found = Endpoint(CONFIG).using(server.url(path)).generate("how many?", k, options.pop("work", Work()), **options)
    return [(candidate.text, candidate.score) for candidate in found]


def test_the_first_candidate_is_the_most_probable_and_the_others_are_drawn(server: SqlServer) -> None:
    answers = iter([chat(["SELECT 1"], [-0.1], 12), chat(["SELECT 3", "SELECT 2", "SELECT 1"], [-3.0, -0.5, -0.1])])
    server.answer = lambda request: next(answers)
    work = Work()
    assert asked(server, 4, work=work) == [("SELECT 1", -0.1), ("SELECT 2", -0.5), ("SELECT 3", -3.0)]
    first, second = server.requests
    assert (first["n"], first["temperature"], second["n"]) == (1, 0, 3) and second["temperature"] > 0
    assert (first["path"], first["model"], first["max_tokens"]) == ("/v1/chat/completions", "qwen", 77)
    assert "how many?" in first["messages"][0]["content"]
    assert work.tokens == 12 and work.seconds > 0


def test_the_older_form_of_the_protocol_is_spoken_where_the_address_says_so(server: SqlServer) -> None:
    server.answer = lambda request: completion(["SELECT 1"], [-0.25])
    assert asked(server, path="/v1/completions") == [("SELECT 1", -0.25)]
    assert "how many?" in server.requests[0]["prompt"] and "messages" not in server.requests[0]


def test_what_a_model_says_round_the_statement_is_left_out(server: SqlServer) -> None:
    server.answer = lambda request: chat(["<think>a table?</think>Here it is:\n```sql\nSELECT 1\n```\nWell?"])
    assert asked(server) == [("SELECT 1", 0.0)]


def test_texts_that_postgresql_cannot_keep_are_no_candidates(server: SqlServer) -> None:
    server.answer = lambda request: chat(["SELECT '\0'", "SELECT '\ud800'", "  ", "SELECT 2"])
    assert [text for text, _ in asked(server, 4)] == ["SELECT 2"]


def test_a_server_that_writes_one_text_at_a_time_gives_one_candidate(server: SqlServer) -> None:
    server.answer = lambda request: chat(["SELECT 1"]) if request["n"] == 1 else (400, b"one choice only")
    assert asked(server, 4) == [("SELECT 1", 0.0)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"out of memory"),
        (404, b"\xff\x00 no such model"),
        (302, b""),
        (200, b""),
        (200, b"[]"),
        (200, b'{"choices": 1}'),
        (200, b"[" * 100_000),
        (200, b"x" * (5 << 20)),
    ],
)
def test_a_server_that_does_not_answer_as_it_should_is_told_of(server: SqlServer, status: int, body: bytes) -> None:
    server.answer = lambda request: (status, body)
    with pytest.raises(SystemFault) as failure:
        asked(server)
    assert failure.value.sqlstate == "58000" and len(failure.value.detail) < 500
    assert "\0" not in failure.value.detail


@pytest.mark.parametrize("choice", [None, 1, {}, {"message": None}, {"message": {"content": 7}}, {"text": None},
                                    {"text": "x", "logprobs": {"token_logprobs": ["a", None]}}])  # fmt: skip
def test_odd_choices_are_left_out_or_have_no_score(server: SqlServer, choice: Any) -> None:
    server.answer = lambda request: (200, json.dumps({"choices": [choice]}).encode())
    assert asked(server) in ([], [("x", 0.0)])


def test_no_server_at_the_address_is_told_of() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/completions"
    with pytest.raises(SystemFault):
        Endpoint(CONFIG).using(address).generate("how many?", 1, Work())


def test_without_an_address_the_model_is_not_ready() -> None:
    with pytest.raises(NotReady):
        Endpoint(CONFIG).generate("how many?", 1, Work())


class Ended(Exception):
    pass


def end() -> None:
    raise Ended


def test_a_call_can_be_ended_while_the_server_thinks(server: SqlServer) -> None:
    server.may_answer.clear()
    started = time.monotonic()

    def end_when_asked() -> None:
        if server.was_asked.is_set():
            raise Ended

    with pytest.raises(Ended):
        asked(server, checkpoint=end_when_asked)
    assert time.monotonic() - started < 10


def test_a_call_can_be_ended_while_nobody_takes_the_connection() -> None:
    with contextlib.ExitStack() as opened:
        deaf = opened.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # more than wait in the queue: the next one is not answered at all
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        generator = Endpoint(CONFIG).using(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/completions")
        with pytest.raises(Ended):
            generator.generate("how many?", 1, Work(), end)


def test_a_server_that_takes_too_long_is_given_up(server: SqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT", 0.2)
    server.may_answer.clear()
    with pytest.raises(SystemFault):
        asked(server)


def test_a_server_of_https_must_prove_who_it_is(server: SqlServer) -> None:
    with pytest.raises(SystemFault):
        Endpoint(CONFIG).using(server.url().replace("http:", "https:")).generate("how many?", 1, Work())
    assert server.requests == []


def test_a_model_of_a_server_is_an_artifact_with_a_name_alone(tmp_path: Path, server: SqlServer) -> None:
    import io

    from pgml_tune.jobs.importing import import_model
    from pgml_tune.jobs.publishing import Site
    from pgml_tune.jobs.reports import Reporter

    stream = io.StringIO()
    site = Site(tmp_path, "", 1, Reporter(stream))
    import_model("endpoint:Qwen/Qwen2.5-Coder:7b", "text_to_sql", [], site)
    event = next(event for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "artifact")
    artifact = Artifact(tmp_path, event["digest"])
    artifact.verify(force=True)
    assert set(artifact.files) == {"config.json"}
    try_out(artifact)
    generator = open_generator(artifact, 1)
    assert isinstance(generator, Generator) and not generator.fits("x" * 100_000) and generator.fits("x" * 1000)
    assert [found.text for found in generator.using(server.url()).generate("how many?", 1, Work())] == ["SELECT 1"]
    assert server.requests[0]["model"] == "Qwen/Qwen2.5-Coder:7b"
    assert publish_served("endpoint:Qwen/Qwen2.5-Coder:7b", site).digest == artifact.digest


@pytest.mark.parametrize(
    "source", ["endpoint:", "endpoint: x", "endpoint:-x", "endpoint:a\nb", "endpoint:" + "a" * 300]
)
def test_what_no_server_would_call_a_model_is_refused(tmp_path: Path, source: str) -> None:
    from pgml_tune.jobs.publishing import Site

    with pytest.raises(InvalidArgument):
        publish_served(source, Site(tmp_path, "", 1, None))  # type: ignore[arg-type]


def test_a_configuration_without_a_model_is_refused() -> None:
    for generation in ({"max_output_tokens": 9}, {"model": "", "max_output_tokens": 9}, {"model": "a"}):
        with pytest.raises(ArtifactDamaged):
            Endpoint(ArtifactConfig(**{**CONFIG.to_json(), "generation": generation}))


def test_only_servers_of_this_machine_are_spoken_to_without_encryption() -> None:
    setting = setting_named("sql_endpoint")
    for value in (
        "",
        "http://127.0.0.1:8000/v1/chat/completions",
        "http://localhost/v1/completions",
        "http://[::1]:80/completions",
        "https://models.example.org/v1/chat/completions",
        "https://10.0.0.7:8443/v1/completions",
    ):
        assert setting.check(value) == value
    for value in (
        "http://10.0.0.7/v1/completions",
        "http://127.0.0.1.example.org/v1/completions",
        "http://localhost@example.org/v1/completions",
        "http://localhost.example.org/v1/completions",
        "file:///v1/completions",
        "https://user:pass@a/v1/completions",
        "http://127.0.0.1:8000/v1/completions?x",
        "http://127.0.0.1:8000/v1/models",
        "http://127.0.0.1:8000/v1/completions\nX: y",
        "/v1/completions",
    ):
        with pytest.raises(InvalidArgument):
            setting.check(value)


def test_a_server_that_sends_a_byte_now_and_then_is_late_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as clients:

        def trickle() -> None:
            client = clients.enter_context(server.accept()[0])
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            # Until the other side has hung up.
            with contextlib.suppress(OSError):
                while select.select([client], [], [], 0.01)[0] == [] or client.recv(1000):
                    client.sendall(b"x")

        sender = threading.Thread(target=trickle, daemon=True)
        sender.start()
        checks: list[float] = []
        until = time.monotonic() + 0.5
        port = server.getsockname()[1]
        connection = PatientConnection("127.0.0.1", port, False, until, lambda: checks.append(time.monotonic()))
        with pytest.raises(TimeoutError), connection:
            connection.request("POST", "/", b"{}")
            connection.getresponse().read(100_000)
        assert len(checks) > 1 and time.monotonic() < until + 5
        sender.join(10)
