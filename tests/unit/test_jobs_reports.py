"""The lines a job writes for the process that started it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from pgml_tune.errors import NotReady
from pgml_tune.jobs.reports import Reporter

_NOISY = """
from pgml_tune.jobs.reports import Reporter, claim_stdout
report = Reporter(claim_stdout())
print("chatter of a library")
import os; os.write(1, b"chatter of C code")
report.progress("working")
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120, check=False)


def test_reports_are_one_json_object_per_line() -> None:
    stream = io.StringIO()
    report = Reporter(stream)
    report.progress("line\nbreak")
    report.artifact("ab", "int8_dynamic", {"dimensions": 3}, existed=False)
    report.error(NotReady("not ready", detail="Why.", hint="SELECT 1"))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert events == [
        {"event": "progress", "message": "line\nbreak"},
        {
            "event": "artifact",
            "digest": "ab",
            "quantize": "int8_dynamic",
            "existed": False,
            "config": {"dimensions": 3},
        },
        {"event": "error", "sqlstate": "55000", "message": "not ready", "detail": "Why.", "hint": "SELECT 1"},
    ]


def test_chatter_of_libraries_goes_to_standard_error() -> None:
    result = run("-c", _NOISY)
    assert [json.loads(line)["message"] for line in result.stdout.splitlines()] == ["working"]
    assert "chatter of a library" in result.stderr
    assert "chatter of C code" in result.stderr


def test_a_job_reports_its_error_and_fails(tmp_path: Path) -> None:
    result = run("-m", "pgml_tune.jobs", "import", str(tmp_path / "no model"), "--model-root", str(tmp_path / "root"))
    assert result.returncode == 1
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["sqlstate"]) == ("error", "42704")


def test_a_job_reports_a_model_root_it_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("-m", "pgml_tune.jobs", "import", "x", "--model-root", str(tmp_path / "file" / "root"))
    last = json.loads(result.stdout.splitlines()[-1])
    assert (result.returncode, last["sqlstate"]) == (1, "55000")
