"""The process that does a job: how it starts, what it says of failures, and when it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import job_folder
import pytest

from pgml_tune.errors import InvalidArgument, NotReady, PermissionDenied
from pgml_tune.jobs.__main__ import MODULES
from pgml_tune.jobs.failures import explain
from pgml_tune.jobs.job import Job

_CHILD = """
import subprocess, sys, time
from pgml_tune.jobs.lifeline import tie_to_parent
child = subprocess.Popen(["sleep", "600"])
tie_to_parent()
print(child.pid, open("/proc/self/oom_score_adj").read().strip(), flush=True)
time.sleep(600)
"""


def import_job(tmp_path: Path, source: str, *import_dirs: Path) -> Job:
    parameters = {"source": source, "task": "embedding", "quantize": [], "threads": 1, "description": None}
    return job_folder.lay_out(
        tmp_path / "job", "import_model", tmp_path / "models", parameters, import_dirs=import_dirs
    )


def test_every_kind_of_job_has_a_module_of_its_own():
    assert len(set(MODULES.values())) == len(MODULES) == 10


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("source", ["there", "not there", "allowed/link", "allowed/../there", "allowed-not"])
def test_folders_outside_of_import_dirs_look_all_the_same(tmp_path, allowed, source):
    for name in ("there", "allowed", "allowed-not"):
        (tmp_path / name).mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "there")
    job = import_job(tmp_path, f"{tmp_path}/{source}", *([tmp_path / "allowed"] if allowed else []))
    with pytest.raises(PermissionDenied) as caught:
        job_folder.run(job)
    assert "import_dirs" in caught.value.hint


@pytest.mark.parametrize("source", ["./model", "model", "../x/y", "a/b/c", "", "~/model", "file:///x"])
def test_a_source_that_is_neither_folder_nor_hub_name_is_refused(tmp_path, source):
    with pytest.raises(InvalidArgument):
        job_folder.run(import_job(tmp_path, source, tmp_path))


def test_a_job_reports_its_error(tmp_path):
    status, events = job_folder.run_process(import_job(tmp_path, "/x"))
    assert (status, events[-1]["event"], events[-1]["sqlstate"]) == (1, "error", "42501")


def test_the_folder_must_be_that_of_the_job(tmp_path):
    status, events = job_folder.run_process(replace(import_job(tmp_path, "/x"), job_id=7))
    assert (status, events[-1]["sqlstate"]) == (1, "38000")


def test_a_job_ends_with_its_children_when_its_parent_lets_go():
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdout is not None and job.stdin is not None
        child, score = map(int, job.stdout.readline().split())
        assert score == 800
        job.stdin.close()
        assert job.wait(timeout=20) < 0
    with open(f"/proc/{child}/stat") if Path(f"/proc/{child}").exists() else open(os.devnull) as state:
        assert state.read().rpartition(")")[2].split()[:1] in ([], ["Z"])


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        (NotReady("x"), "55000"),
        (MemoryError(), "53200"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"), "53200"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "53200"),
        (RuntimeError("bad allocation"), "53200"),
        (OSError(errno.ENOSPC, "No space left on device"), "53100"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "53100"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "55000"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "55000"),
        (KeyError("x"), "38000"),
    ],
)
def test_each_failure_has_its_sqlstate(error, sqlstate):
    assert explain(error).sqlstate == sqlstate


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_an_import_job_imports_from_an_allowed_folder(tmp_path):
    import tiny_model

    allowed = tmp_path / "allowed"
    allowed.mkdir()
    tiny_model.build(allowed / "tiny")
    (tmp_path / "link").symlink_to(allowed)
    job = import_job(tmp_path, str(tmp_path / "link" / "tiny"), allowed)
    status, events = job_folder.run_process(job)
    assert (status, events[-1]["event"]) == (0, "result"), events[-1]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["artifact", "result"]
    assert (tmp_path / "models" / "checkpoints" / events[-1]["files_sha256"] / "model.safetensors").exists()
