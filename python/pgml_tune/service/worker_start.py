"""Starts a worker for the jobs of one database, where none runs.

It becomes a process of its own, no child of the backend: with its own session, an environment of named variables
and no open files, so it outlives the connection, and a crash of it touches nobody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import time
from pathlib import Path

from pgml_tune.errors import NotReady
from pgml_tune.settings import CONFIG_VARIABLE
from pgml_tune.store.job import Address

_SETSID = "/usr/bin/setsid"
_LOG = "worker.log"
_STARTING_SECONDS = 2.0
_INHERITED = (CONFIG_VARIABLE, "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TZ")


def start_worker(address: Address, spool_dir: Path, after_transaction: str | None) -> None:
    """Start a worker that ends when no job is left; `after_transaction` is one whose end it waits for first."""
    if not _is_due(spool_dir, address):
        return
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


def _is_due(spool_dir: Path, address: Address) -> bool:
    """Whether none was started for this database a moment ago: it takes as long until one is seen."""
    database = hashlib.sha256(f"{address.port} {address.database}".encode()).hexdigest()[:16]
    marker = spool_dir / f"worker-{database}.started"
    try:
        if time.time() - marker.stat().st_mtime < _STARTING_SECONDS:
            return False
    except FileNotFoundError:
        pass
    marker.touch()
    return True


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
