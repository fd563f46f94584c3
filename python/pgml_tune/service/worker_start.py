"""Starts a worker for the jobs of one database, where none runs.

It becomes a process of its own, no child of the backend: with its own session, an environment of named variables
and no open files, so it outlives the connection, and a crash of it touches nobody.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

from pgml_tune.errors import NotReady
from pgml_tune.settings import CONFIG_VARIABLE
from pgml_tune.store.job import Address

_SETSID = "/usr/bin/setsid"
_LOG = "worker.log"
_INHERITED = (CONFIG_VARIABLE, "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TZ")


def start_worker(address: Address, spool_dir: Path, after_transaction: str | None) -> None:
    """Start a worker that ends when no job is left; `after_transaction` is one whose end it waits for first."""
    command = [_SETSID, "--fork", str(_interpreter()), "-P", "-m", "pgml_tune.worker", "--once"]
    if after_transaction is not None:
        command += ["--after-xid", after_transaction]
    with (spool_dir / _LOG).open("ab") as log:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(address, spool_dir),
            close_fds=True,
            check=True,
        )


def _environment(address: Address, spool_dir: Path) -> dict[str, str]:
    own = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(spool_dir),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PGHOST": address.host,
        "PGPORT": address.port,
        "PGDATABASE": address.database,
        "PGUSER": address.role,
    }
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | own


def _interpreter() -> Path:
    """The interpreter of the virtual environment that this process imports its libraries from."""
    found = importlib.util.find_spec("numpy")
    if found is not None and found.origin is not None:
        interpreter = Path(found.origin).parents[4] / "bin" / "python"
        if interpreter.exists():
            return interpreter
    raise NotReady(
        "there is no environment to run jobs in",
        detail="A worker runs in the virtual environment of the package.",
        hint="make install-train",
    )
