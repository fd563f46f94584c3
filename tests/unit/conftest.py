"""What unit tests share; tests marked `train` are skipped, and counted, where the training libraries are missing."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pgml_tune.engine.artifact import new_artifact, publish

_TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(_TESTS / "fixtures"))
# For the processes that tests start.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_TESTS.parent / "python"), os.environ.get("PYTHONPATH")]))
_TRAINING = ("torch", "sentence_transformers", "onnx", "onnxscript")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "train: needs the training libraries")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in _TRAINING if find_spec(name) is None]
    for item in items:
        if missing and item.get_closest_marker("train"):
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """An artifact below tmp_path that is what its manifest says, and does not work."""
    from tests.unit.test_records import CONFIG

    with new_artifact(tmp_path) as folder:
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model.onnx").write_bytes(b"")
        (folder / "tokenizer.json").write_text("{}")
        return publish(tmp_path, folder).digest
