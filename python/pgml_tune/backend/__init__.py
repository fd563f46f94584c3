"""Entry points of the extension: what runs inside a PostgreSQL backend. Never loads a training library."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plpy

from pgml_tune.db.gate import check_result
from pgml_tune.db.spi import SpiDatabase
from pgml_tune.errors import LimitExceeded, TuneError


def _use_environment() -> None:
    """Put the virtual environment beside the installed package first, inside PostgreSQL only."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(__file__).resolve().parents[3] / "venv" / "lib" / python / "site-packages"
    if packages.is_dir() and str(packages) not in sys.path:
        sys.path.insert(0, str(packages))
    # A backend is one process among many: libraries must not start a thread per core.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


_use_environment()
database = SpiDatabase()


def entrypoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the database, pass its result through the gate, and turn a TuneError into an SQL error."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return check_result(function(database, *args))
        except TuneError as error:
            # Only its parts outlive this block: the error itself holds the frames, and with them the arguments.
            message, sqlstate = error.message, error.sqlstate
            parts = {"detail": error.detail, "hint": error.hint}
        if sqlstate == LimitExceeded.sqlstate:
            _forget_arguments(sys._getframe(1).f_globals, args)
        del args
        plpy.error(message, sqlstate=sqlstate, **{name: part for name, part in parts.items() if part})

    return call


def _forget_arguments(function_globals: dict[str, Any], args: tuple[Any, ...]) -> None:
    """Let go of what PL/Python would keep until the function's next call: a refused argument may be huge."""
    for name, value in list(function_globals.items()):
        if any(value is argument for argument in args):
            function_globals[name] = None
    function_globals.get("args", []).clear()
