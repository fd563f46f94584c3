"""How many sessions of the server hold models of their own.

A session locks one of as many files as may be, until it gives that back; the system lets go of it however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pgml_tune.engine.files import explained
from pgml_tune.errors import QuotaExceeded

FOLDER = "sessions"  # below the spool folder


class Slots:
    """The place that this session takes."""

    def __init__(self, spool_dir: Path) -> None:
        self._folder = spool_dir / FOLDER
        self._held: int | None = None

    def take(self, most: int) -> None:
        """Hold a place from now on, if one of so many is free."""
        if self._held is not None:
            return
        with explained(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            first = os.getpid() % most  # else all would try the first ones first
            for number in (*range(first, most), *range(first)):
                held = self._lock(self._folder / str(number))
                if held is not None:
                    self._held = held
                    return
        raise QuotaExceeded(
            f"{most} sessions hold models of their own, as many as may",
            detail="Setting in_process_max_sessions bounds the memory that models take once for each session.",
            hint="Start the worker, which holds each model once for all: pgml-tune worker."
            f" Or: SELECT configure('in_process_max_sessions', '{2 * most}')",
        )

    def give_back(self) -> None:
        """Let another session have the place."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _lock(self, path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
