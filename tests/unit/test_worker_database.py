"""What a worker takes upon itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.settings import Limits
from pgml_tune.worker.attempt import chosen_bounds, chosen_threads
from pgml_tune.worker.database import Slots

PACKAGE = Path(__file__).parents[2] / "python"


def test_a_worker_runs_no_more_jobs_than_it_may() -> None:
    slots = Slots()
    assert [slots.take(2), slots.take(2), slots.take(2)] == [True, True, False]
    slots.give_back()
    assert slots.take(2) is True
    # Another database allows more.
    assert slots.take(3) is True


def test_a_job_gets_the_cores_it_asks_for_as_far_as_they_are_allowed() -> None:
    assert chosen_threads({"threads": 1}, 4) == 1
    assert chosen_threads({"threads": 64}, 1) == 1
    assert chosen_threads({}, 1) == 1
    assert chosen_threads({"threads": 0}, 0) >= 1


@pytest.mark.parametrize("threads", [-1, "2", 1.5, True, None])
def test_a_number_of_cores_that_is_none_is_refused(threads: object) -> None:
    with pytest.raises(InvalidArgument):
        chosen_threads({"threads": threads}, 0)


def test_without_a_setting_a_job_may_have_three_quarters_of_the_memory() -> None:
    assert chosen_bounds(Limits.from_rows({}), 1000).memory_bytes == 750
    assert chosen_bounds(Limits.from_rows({"job_memory_bytes": "5000"}), 1000).memory_bytes == 5000


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pgml_tune.cli", "worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(PACKAGE)} | environment)


def test_the_command_describes_its_options() -> None:
    described = run("--help")
    assert described.returncode == 0
    assert described.stdout.startswith("Usage: pgml-tune worker")
    assert "--lease-seconds" in described.stdout


@pytest.mark.parametrize(
    "arguments", [["--after-xid", "5"], ["--once", "--database", "x"], ["--lease-seconds", "10"], ["more"]]
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_worker_of_another_user_than_the_server_is_refused(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    os.chown(spool, 12345, -1)
    file = tmp_path / "pgml_tune.toml"
    file.write_text(f'spool_dir = "{spool}"\n')
    ended = run("--once", "--dsn", f"host={tmp_path} dbname=x", PGML_TUNE_CONFIG=str(file))
    assert ended.returncode == 1
    assert "run the worker as that user" in ended.stderr and "12345" in ended.stderr


def test_a_server_that_does_not_answer_ends_a_worker_for_one_job(tmp_path: Path) -> None:
    ended = run("--once", "--dsn", f"host={tmp_path} dbname=x")
    assert ended.returncode == 1
    assert "No such file" in ended.stderr and "Traceback" not in ended.stderr
