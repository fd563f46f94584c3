"""A worker that serves models, started as the user of the server for the time of a measurement."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server import DATABASE, connect

_START_SECONDS = 60


@contextmanager
def serving() -> Iterator[None]:
    """The worker, ready; the models that serve are loaded."""
    host = os.environ.get("PGHOST", "/var/run/postgresql")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pgml_tune.worker", "--dsn", f"dbname={DATABASE} host={host}",
         "--database", DATABASE],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_server(),
    )  # fmt: skip
    try:
        _wait()
        yield
    finally:
        process.terminate()
        process.wait()


def as_server() -> dict[str, Any]:
    """How a process is started as the user of the server, whose environment names the package and the configuration."""
    with connect() as connection:
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        assert row is not None
        folder = Path(row[0])
    return {
        "cwd": "/",
        "env": _environment(folder) | {"PGUSER": os.environ.get("PGUSER", "postgres")},
        "user": pwd.getpwuid(folder.stat().st_uid).pw_name if os.getuid() == 0 else None,
    }


def _environment(folder: Path) -> dict[str, str]:
    postmaster = (folder / "postmaster.pid").read_text().split("\n")[0]
    entries = Path(f"/proc/{postmaster}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def _wait() -> None:
    deadline = time.monotonic() + _START_SECONDS
    with connect() as connection:
        while not connection.execute("SELECT FROM pgml_tune.loaded_models WHERE place = 'worker'").rowcount:
            if time.monotonic() > deadline:
                raise SystemExit("bench: the worker does not serve models")
            time.sleep(0.2)
