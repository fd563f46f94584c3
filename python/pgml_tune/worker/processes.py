"""The processes of a session of the operating system: which they are, what they hold, how they are ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def members(session: int) -> list[int]:
    """The processes of a session, those that have ended and were not waited for among them."""
    found = []
    for name in os.listdir(_PROC):
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(name)) == session:
                    found.append(int(name))
    return found


def living(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    return [process for process in members(session) if not _has_ended(process)]


def _has_ended(process: int) -> bool:
    try:
        state = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in ("Z", "X")


def signal_all(processes: Iterable[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def memory_bytes(processes: Iterable[int], *, exactly: bool = False) -> int:
    """Memory that only these processes hold.

    What they share among each other counts several times, unless it is to be exact: that takes the system milliseconds
    per gigabyte.
    """
    if exactly:
        return sum(_sum_of_fields(process, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for process in processes)
    return sum(_sum_of_fields(process, "status", ("RssAnon:", "RssShmem:")) for process in processes)


def _sum_of_fields(process: int, file: str, names: tuple[str, ...]) -> int:
    try:
        lines = (_PROC / str(process) / file).read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


def disk_bytes(folders: Iterable[Path]) -> int:
    """Disk that folders take with all that is in them."""
    total = 0
    waiting = list(folders)
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:  # removed meanwhile
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
    return total
