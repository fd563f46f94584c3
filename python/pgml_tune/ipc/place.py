"""Where the process that serves models is found, and whether there is one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def note_path(address: Path) -> Path:
    """Where the process notes what its threads are at."""
    return address.with_suffix(".note")


def lock_path(address: Path) -> Path:
    """The file that the process locks as long as it has the socket."""
    return address.with_suffix(".lock")


def is_served(address: Path) -> bool:
    """Whether some process has the socket."""
    try:
        descriptor = os.open(lock_path(address), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
