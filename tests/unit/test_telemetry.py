"""Nothing leaves the machine: the libraries that could report how they are used are told not to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTERS = ["engine.onnx", "engine.embedder", "engine.classifier", "service.inference", "jobs.__main__"]


@pytest.mark.parametrize("module", IMPORTERS)
def test_onnx_runtime_keeps_no_events_to_send(module: str, tmp_path: Path) -> None:
    script = f"import pgml_tune.{module}, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
    # Where it may report, it begins by making a database and an identifier there.
    assert list(tmp_path.rglob("*")) == []
