"""Processes of jobs: started clean, listened to, and ended with all that they have started."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgml_tune.worker.child import Child, environment
from pgml_tune.worker.processes import disk_bytes, living, members

FORKS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        break
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    children = []

    def start_script(script: str) -> Child:
        children.append(Child([sys.executable, "-c", script], tmp_path, {"PATH": "/usr/bin:/bin"}))
        return children[-1]

    yield start_script
    for child in children:
        child.close()


def lines(child: Child, count: int) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += child.read(0.2)
    return found


def test_both_streams_are_read_line_by_line(start: Callable[[str], Child]) -> None:
    child = start("import sys; print('one'); print('two', file=sys.stderr)")
    assert sorted(lines(child, 2)) == [(False, "two\n"), (True, "one\n")]


def test_what_was_said_last_is_heard_after_the_end(start: Callable[[str], Child]) -> None:
    child = start("print('x' * 10); raise SystemExit(3)")
    while not child.has_ended():
        time.sleep(0.01)
    assert child.close() == (3, [(True, "xxxxxxxxxx\n")])


def test_a_process_that_writes_more_than_anybody_reads_is_ended_all_the_same(start: Callable[[str], Child]) -> None:
    child = start("while True: print('x' * 1000)")
    assert lines(child, 100)
    status, _ = child.close()
    assert status == -signal.SIGKILL


def test_all_processes_of_a_job_are_ended_be_they_deaf(start: Callable[[str], Child]) -> None:
    child = start(FORKS)
    processes = {int(line) for _, line in lines(child, 4)}
    session = min(processes)
    assert processes <= set(members(session))
    child.terminate()
    assert not child.has_ended()
    child.close()
    assert living(session) == []


def test_descendants_that_outlive_the_process_are_ended(start: Callable[[str], Child]) -> None:
    child = start("import os, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    time.sleep(60)")
    ((_, orphan),) = lines(child, 1)
    session = os.getsid(int(orphan))
    while not child.has_ended():
        time.sleep(0.01)
    assert living(session) == [int(orphan)]
    status, _ = child.close()
    assert status == 0
    assert living(session) == []


def test_the_memory_of_all_processes_is_measured_and_what_they_share_counts_once(
    start: Callable[[str], Child],
) -> None:
    held = 64 << 20
    child = start(f"import os, time\nx = bytearray(b'x' * {held})\nos.fork()\nprint(flush=True)\ntime.sleep(60)")
    lines(child, 2)
    # The sum is twice as much; asked to be sure, the system counts pages once.
    assert child.memory_bytes(enough=10 * held) > 1.9 * held
    assert held <= child.memory_bytes(enough=held) < 1.9 * held


def test_a_job_finds_nothing_in_its_environment_but_what_it_needs(tmp_path: Path) -> None:
    own = {"PATH": "/bin", "PGPASSWORD": "secret", "PGHOST": "x", "HF_TOKEN": "secret", "HTTPS_PROXY": "http://proxy"}
    variables = environment(own, "finetune_sbert", tmp_path, 2)
    assert variables["HOME"] == variables["TMPDIR"] == str(tmp_path)
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert not {"PGPASSWORD", "PGHOST", "HF_TOKEN", "HTTPS_PROXY"} & set(variables)


def test_an_import_may_ask_a_hub_through_a_proxy(tmp_path: Path) -> None:
    variables = environment({"HTTPS_PROXY": "http://proxy", "HF_TOKEN": "secret"}, "import_model", tmp_path, 1)
    assert variables["HTTPS_PROXY"] == "http://proxy"
    assert not {"HF_HUB_OFFLINE", "HF_TOKEN"} & set(variables)


def test_the_disk_of_folders_is_measured_with_all_that_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(b"x" * 1_000_000)
    (tmp_path / "link").symlink_to("/usr")
    assert 1_000_000 <= disk_bytes([tmp_path, tmp_path / "missing"]) < 1_200_000
