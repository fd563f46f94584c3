"""Models in the worker: what sessions get from it, and what becomes of them when it is killed or stands still."""

import os
import re
import signal
import socket as socket_module
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation, Worker, Workers, is_alive, workers_of

MOST_GROWTH = 20 << 20
CLIENTS = 4
KILLS = int(os.environ.get("PGML_TUNE_SERVING_KILLS", "3"))
STOPS = int(os.environ.get("PGML_TUNE_SERVING_STOPS", "1"))
COSINE = "SELECT 1 - (%s::vector <=> %s::vector)"
MODULES = """
DO LANGUAGE plpython3u $$
import sys
found = {"numpy", "onnxruntime", "tokenizers", "ctranslate2"} & set(sys.modules)
plpy.execute("SELECT set_config('test.modules', '%s', false)" % ",".join(sorted(found)))
$$
"""


class Serving:
    """A worker that serves models, and the process that does."""

    def __init__(self, worker: Worker, socket: Path) -> None:
        self.worker, self.socket = worker, socket

    def process(self) -> int | None:
        for name in os.listdir("/proc"):
            if name.isdigit() and self._is_ours(Path("/proc") / name):
                return int(name)
        return None

    def _is_ours(self, entry: Path) -> bool:
        try:
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            return False
        return parent == self.worker.pid and b"pgml_tune.serving" in command and is_alive(int(entry.name))

    def wait(self, other_than: int | None = None) -> int:
        """The process, as soon as it listens."""

        def found() -> int | None:
            process = self.process()
            return process if process != other_than and f"{self.socket}" in self.listening() else None

        return int(wait_until(found, 30))

    def listening(self) -> str:
        lines = Path("/proc/net/unix").read_text().splitlines()
        return "\n".join(line for line in lines if line.split()[3] == "00010000")


@pytest.fixture
def socket(server_home: Path) -> Path:
    return server_home / "spool" / "serve" / "worker.sock"


@pytest.fixture
def workers(server_home: Path, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    with workers_of(Installation(server_home), db) as workers:
        yield workers


@pytest.fixture
def serving(workers: Workers, socket: Path) -> Serving:
    """A worker that serves models; ready."""
    found = Serving(workers.start("--database", workers.database, "--serve"), socket)
    found.wait()
    return found


@pytest.fixture
def remote(connect: Connect, serving: Serving) -> psycopg.Connection[Any]:
    """A session that asks the worker or nobody, and remembers nothing."""
    return asking(connect, "worker")


def asking(connect: Connect, runtime: str, user: str = "postgres") -> psycopg.Connection[Any]:
    session = connect(user)
    session.execute("SELECT set_config('pgml_tune.runtime', %s, false), set_config('pgml_tune.cache', 'off', false)",
                    (runtime,))  # fmt: skip
    return session


@pytest.mark.parametrize("version", ["v1", "v1-int8-block", "v1-int8"])
def test_vectors_are_the_same_wherever_they_are_computed(
    connect: Connect, remote: psycopg.Connection[Any], version: str
) -> None:
    local, model = asking(connect, "in_process"), f"minilm@{version}"
    texts = ["a", "an index of a table", "word " * 400, "如何删除字符串的空格"]
    for text in texts:
        vectors = [fetch_value(session, "SELECT embed(%s, %s)::text", (text, model)) for session in (local, remote)]
        assert fetch_value(local, COSINE, vectors) >= 0.99999
        assert fetch_value(remote, "SELECT token_count(%s, %s)", (text, model)) == fetch_value(
            local, "SELECT token_count(%s, %s)", (text, model)
        )
    many = "SELECT embed(array_agg(repeat('word ', n %% 40) || n), %s)::text[] FROM generate_series(1, 300) AS n"
    pairs = zip(fetch_value(local, many, (model,)), fetch_value(remote, many, (model,)), strict=True)
    # What is in a batch changes the vectors of dynamic INT8.
    least = 0.97 if version == "v1-int8" else 0.99999
    assert min(fetch_value(local, COSINE, pair) for pair in pairs) >= least


def test_a_session_that_asks_the_worker_loads_no_runtime(remote: psycopg.Connection[Any]) -> None:
    remote.execute("SELECT embed('a'), embed_pinned('b', 'minilm', 'v1'), token_count('c')")
    remote.execute("SELECT embed(ARRAY['a', 'b']), semantic_similarity('a', 'b')")
    remote.execute("SET pgml_tune.cache = 'on'")
    remote.execute("SELECT embed('d')")
    remote.execute(MODULES)
    assert fetch_value(remote, "SELECT current_setting('test.modules')") == ""


def test_a_session_that_asks_the_worker_takes_little_memory(connect: Connect, remote: psycopg.Connection[Any]) -> None:
    plain = connect()
    plain.execute("DO LANGUAGE plpython3u $$ plpy.execute('SELECT 1') $$")
    for number in range(20):
        remote.execute("SELECT embed(%s)", (f"text {number}",))
    assert proportional_bytes(remote) - proportional_bytes(plain) <= MOST_GROWTH


def proportional_bytes(session: psycopg.Connection[Any]) -> int:
    content = Path(f"/proc/{session.info.backend_pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", content, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_without_a_worker_auto_computes_in_the_session_and_worker_refuses(connect: Connect) -> None:
    assert fetch_value(asking(connect, "auto"), "SELECT embed('a') IS NOT NULL")
    with refused("58000"):
        asking(connect, "worker").execute("SELECT embed('a')")


@pytest.mark.parametrize("value", ["Worker", "remote", " "])
def test_a_runtime_that_is_none_is_refused(connect: Connect, value: str) -> None:
    session = asking(connect, value)
    with refused("22023"):
        session.execute("SELECT embed('a')")
    session.execute("RESET pgml_tune.runtime")
    session.execute("SELECT embed('a')")


def test_errors_are_those_of_a_session_that_computes_itself(connect: Connect, remote: psycopg.Connection[Any]) -> None:
    for session in (remote, asking(connect, "in_process")):
        with refused("22023"):
            session.execute("SELECT embed('a', kind => 'other')")
        with refused("42704"):
            session.execute("SELECT embed('a', 'nothere')")
        session.execute("SELECT configure('long_input', 'error')")
        with refused("54000"):
            session.execute("SELECT embed(%s)", ("word " * 2000,))
        session.execute("SELECT configure('long_input', NULL)")


def test_only_so_many_sessions_hold_models_of_their_own(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT configure('in_process_max_sessions', '2')")
    holders = [asking(connect, "in_process") for _ in range(2)]
    for session in holders:
        session.execute("SELECT embed('a')")
    third = asking(connect, "in_process")
    with refused("53400") as refusal:
        third.execute("SELECT embed('a')")
    assert "pgml-tune worker" in (refusal.value.diag.message_hint or "")
    holders[0].execute("DISCARD ALL")
    with refused("53400"):
        third.execute("SELECT embed('a')")
    holders[0].close()
    wait_until(lambda: embeds(third))


def embeds(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT embed('a')")
    except psycopg.Error as error:
        assert error.sqlstate in ("53400", "58000")
        return False
    return True


def test_a_worker_that_was_killed_is_replaced_within_five_seconds_and_no_call_is_lost(
    connect: Connect, serving: Serving
) -> None:
    outcomes: dict[str, Counter[str]] = {"auto": Counter(), "worker": Counter()}
    stop = threading.Event()

    def call(runtime: str, number: int) -> None:
        session = asking(connect, runtime)
        while not stop.is_set():
            number += CLIENTS
            try:
                session.execute("SELECT embed(%s)", (f"text {number}",))
                outcomes[runtime]["answered"] += 1
            except psycopg.Error as error:
                outcomes[runtime][error.sqlstate or "lost"] += 1

    threads = [
        threading.Thread(target=call, args=("auto" if number % 2 else "worker", number)) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    process, delays = serving.wait(), []
    for _ in range(KILLS):
        os.kill(process, signal.SIGKILL)
        started = time.monotonic()
        process = serving.wait(other_than=process)
        delays.append(time.monotonic() - started)
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{KILLS} kills: served again after {statistics.median(delays):.1f} s, at most {max(delays):.1f} s;"
          f" auto {dict(outcomes['auto'])}, worker {dict(outcomes['worker'])}")  # fmt: skip
    assert set(outcomes["auto"]) == {"answered"}
    assert set(outcomes["worker"]) <= {"answered", "58000"}
    assert statistics.median(delays) <= 5


def test_a_worker_that_stands_still_keeps_nobody_waiting_for_ever_and_is_replaced(
    connect: Connect, remote: psycopg.Connection[Any], serving: Serving
) -> None:
    auto = asking(connect, "auto")
    for _ in range(STOPS):
        remote.execute("SELECT embed('before')")
        process = serving.wait()
        os.kill(process, signal.SIGSTOP)
        remote.execute("SET statement_timeout = '500ms'")
        started = time.monotonic()
        with refused("57014"):
            remote.execute("SELECT embed('a')")
        assert time.monotonic() - started < 1.0
        remote.execute("SET statement_timeout = 0")
        with refused("58000"):
            remote.execute("SELECT embed('a')")
        assert fetch_value(auto, "SELECT embed('a') IS NOT NULL")
        serving.wait(other_than=process)
        wait_until(lambda: embeds(remote))


def test_a_socket_that_was_removed_is_made_anew(remote: psycopg.Connection[Any], serving: Serving) -> None:
    remote.execute("SELECT embed('a')")
    process = serving.wait()
    serving.socket.unlink()
    serving.wait(other_than=process)
    wait_until(lambda: embeds(remote))


def test_a_cancel_ends_a_call_to_the_worker_within_half_a_second(remote: psycopg.Connection[Any]) -> None:
    remote.execute("SELECT embed('a')")
    canceled: list[float] = []

    def cancel() -> None:
        canceled.append(time.monotonic())
        remote.cancel()

    timer = threading.Timer(0.4, cancel)
    timer.start()
    with refused("57014"):
        remote.execute("SELECT embed(array_agg(repeat('word ', 300) || n)) FROM generate_series(1, 5000) AS n")
    assert time.monotonic() - canceled[0] < 0.5
    timer.join()
    assert fetch_value(remote, "SELECT embed('a') IS NOT NULL")


def test_models_that_serve_are_loaded_before_anybody_asks(
    db: psycopg.Connection[Any], serving: Serving, connect: Connect
) -> None:
    shown = "SELECT place, versions, is_pinned, calls FROM pgml_tune.loaded_models WHERE place = 'worker'"
    wait_until(lambda: ("worker", ["minilm@v1"], True, 0) in db.execute(shown).fetchall(), 30)
    with refused("42501"):
        connect("alice").execute(shown)


def test_a_version_is_loaded_before_a_rollout_sends_calls_to_it(db: psycopg.Connection[Any], serving: Serving) -> None:
    db.execute("""SELECT rollout_model('minilm', 'v1-int8-block', 10, '{"untracked": "accept"}')""")
    shown = "SELECT versions FROM pgml_tune.loaded_models WHERE place = 'worker'"
    assert (["minilm@v1-int8-block"],) in db.execute(shown).fetchall()


def test_a_model_that_crashes_the_worker_three_times_is_not_run_any_more(
    db: psycopg.Connection[Any], connect: Connect, serving: Serving, socket: Path
) -> None:
    note, process = socket.with_suffix(".note"), serving.wait()
    for _ in range(3):
        session = asking(connect, "worker")
        asked = threading.Thread(target=run_until_lost, args=(session,))
        asked.start()
        wait_until(lambda: note.read_bytes().strip(b"\0"), 30)
        while not note.read_bytes().strip(b"\0"):  # it is between two batches
            pass
        os.kill(process, signal.SIGSEGV)
        asked.join()
        process = serving.wait(other_than=process)
    session = asking(connect, "worker")
    with refused("58000") as refusal:
        session.execute("SELECT embed('a', 'minilm@v1')")
    assert "rollback_model" in (refusal.value.diag.message_hint or "")
    assert fetch_value(session, "SELECT embed('a', 'minilm@v1-int8') IS NOT NULL")
    stopped = "SELECT versions FROM pgml_tune.loaded_models WHERE is_quarantined"
    assert fetch_value(db, stopped) == ["minilm@v1"]


def run_until_lost(session: psycopg.Connection[Any]) -> None:
    with refused("58000"):
        session.execute(
            "SELECT embed(array_agg(repeat('word ', 400) || n), 'minilm@v1') FROM generate_series(1, 2000) AS n"
        )


def test_the_health_command_tells_whether_models_are_served(server_home: Path, workers: Workers, socket: Path) -> None:
    assert health(server_home).returncode == 1
    Serving(workers.start("--database", workers.database, "--serve"), socket).wait()
    answered = health(server_home)
    assert (answered.returncode, answered.stdout[:3]) == (0, "ok:")
    assert "pgml_tune_serve_up 1" in health(server_home, "--metrics").stdout.splitlines()


def health(server_home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    installation = Installation(server_home)
    return subprocess.run(
        [sys.executable, "-P", "-m", "pgml_tune.cli", "health", *flags],
        env=installation.environment, cwd="/", capture_output=True, text=True,
        user=installation.user if os.getuid() == 0 else None,
    )  # fmt: skip


def test_the_number_of_threads_changes_without_a_restart(
    db: psycopg.Connection[Any], server_home: Path, serving: Serving
) -> None:
    process = serving.wait()
    db.execute("SELECT configure('serve_threads', '1')")
    wait_until(lambda: "pgml_tune_serve_threads 1" in health(server_home, "--metrics").stdout.splitlines(), 30)
    assert serving.wait() == process


def test_a_worker_that_is_told_to_stop_ends_the_serving_process(serving: Serving) -> None:
    process = serving.wait()
    assert serving.worker.end() == 0
    assert not is_alive(process)


@pytest.fixture
def port(server_home: Path) -> Iterator[int]:
    """A port for the worker, and sessions that begin now ask there."""
    with socket_module.create_server(("127.0.0.1", 0)) as probe:
        found = int(probe.getsockname()[1])
    file = server_home / "pgml_tune.toml"
    before = file.read_text()
    file.write_text(f'{before}listen = "127.0.0.1:{found}"\nconnect = "127.0.0.1:{found}"\n')
    yield found
    file.write_text(before)


def test_sessions_ask_at_a_port_where_root_says_so_and_prove_the_secret(
    connect: Connect, server_home: Path, workers: Workers, socket: Path, port: int
) -> None:
    assert health(server_home).returncode == 1
    with refused("58000"):
        asking(connect, "worker").execute("SELECT embed('a')")
    serving = Serving(workers.start("--database", workers.database, "--serve"), socket)
    serving.wait()
    wait_until(lambda: health(server_home).returncode == 0, 30)
    assert f"also at 127.0.0.1:{port}" in health(server_home).stdout
    here, there = asking(connect, "in_process"), asking(connect, "worker")
    pair = [fetch_value(session, "SELECT embed('over a port')::text") for session in (here, there)]
    assert fetch_value(here, COSINE, pair) >= 0.99999
    lines = fetch_value(there, "SELECT array_agg(status || ' ' || detail) FROM doctor() WHERE check_name = 'serving'")
    assert [line[:2] for line in lines] == ["ok"]

    secret = socket.parent / "listen_secret"
    kept = secret.read_bytes()
    secret.write_bytes(b"x" * 64)  # as if somebody else had made it
    with refused("58000"):
        asking(connect, "worker").execute("SELECT embed('a')")
    lines = fetch_value(here, "SELECT array_agg(status || ' ' || fix) FROM doctor() WHERE check_name = 'serving'")
    assert lines[0].startswith("warn Start pgml-tune worker")
    secret.write_bytes(kept)
    there.execute("SELECT embed('b')")
    assert serving.worker.end() == 0
