"""Rules for all tests."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs the data sets where there are none."""
    folder = os.environ.get("DATA_DIR")
    if folder and Path(folder).is_dir():
        return
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason="DATA_DIR names no folder"))
