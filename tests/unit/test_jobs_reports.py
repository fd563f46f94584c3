"""The lines a job writes for the process that started it."""

from __future__ import annotations

import io
import json
import math
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


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_reports_are_one_json_object_per_line() -> None:
    stream = io.StringIO()
    report = Reporter(stream)
    report.progress("training", step=1, steps=2, loss=0.5)
    report.log("line\nbreak")
    report.artifact("ab", "-int8", {"storage": "int8_dynamic"}, existed=False)
    report.evaluation("new", "ab", "eval", {"spearman": 89.0, "pearson": math.nan})
    report.result({"steps": 2})
    report.error(NotReady("not ready", detail="Why.", hint="SELECT 1"))
    config = {"storage": "int8_dynamic"}
    assert events(stream) == [
        {
            "event": "progress", "phase": "training", "step": 1, "steps": 2, "loss": 0.5, "metric": None, "value": None,
        },
        {"event": "log", "message": "line\nbreak"},
        {
            "event": "artifact", "suffix": "-int8", "digest": "ab", "config": config, "existed": False,
            "storage": "int8_dynamic",
        },
        {
            "event": "evaluation", "of": "new", "digest": "ab", "part": "eval", "figures": {"spearman": 89.0},
            "rows": None,
        },
        {"event": "result", "steps": 2},
        {"event": "error", "sqlstate": "55000", "message": "not ready", "detail": "Why.", "hint": "SELECT 1"},
    ]  # fmt: skip


def test_progress_is_told_twice_a_second_and_at_the_end() -> None:
    stream, times = io.StringIO(), iter([0.0, 0.1, 0.2, 0.6, 0.7, 0.8])
    report = Reporter(stream, clock=lambda: next(times))
    for step in range(1, 6):
        report.progress("training", step=step, steps=5)
    report.progress("evaluating")
    assert [(event["phase"], event["step"]) for event in events(stream)] == [
        ("training", 1), ("training", 4), ("training", 5), ("evaluating", None),
    ]  # fmt: skip


def test_a_loss_that_is_no_number_is_told_as_none() -> None:
    stream = io.StringIO()
    Reporter(stream).progress("training", loss=math.nan)
    assert events(stream)[0]["loss"] is None


def test_chatter_of_libraries_goes_to_standard_error() -> None:
    result = run("-c", _NOISY)
    assert [json.loads(line)["phase"] for line in result.stdout.splitlines()] == ["working"]
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


def test_a_new_figure_is_told_however_soon_it_comes() -> None:
    stream = io.StringIO()
    report = Reporter(stream, clock=lambda: 0.0)
    for step, value in enumerate((None, None, 80.0, 80.0, 81.0), 1):
        report.progress("training", step=step, steps=9, metric="spearman", value=value)
    assert [event["step"] for event in events(stream)] == [1, 3, 5]
