"""What unit tests share; tests marked `train` are skipped, and counted, where the training libraries are missing."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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
