"""Keeps PostgreSQL's signals away from the threads of libraries."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """All signals blocked: a thread that a library starts meanwhile inherits that and never handles one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
