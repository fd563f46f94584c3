"""Memory of the machine, or of a control group that this process is in where that may have less."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS, _OWN, _MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")
_FILES = ("memory.max", "memory.current", "inactive_file")
_OLD_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def machine_bytes() -> int:
    """All of it."""
    own = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([own, *(limit for limit, _ in _limits())])


def free_bytes() -> int:
    """What could be had now."""
    found = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return min([int(found["MemAvailable"].split()[0]) * 1024, *(max(limit - used, 0) for limit, used in _limits())])


def _limits() -> Iterator[tuple[int, int]]:
    """What each group may have, those that it lies in among them, and what it has and cannot give up at once."""
    for folder, (limit, usage, cached) in _folders():
        with contextlib.suppress(OSError, ValueError):  # none of the kind, or no limit: "max"
            most = int((folder / limit).read_text())
            kept = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / usage).read_text()) - int(dict(kept).get(cached, 0))
            yield most, used


def _folders() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    with contextlib.suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root, files = (_GROUPS / "memory", _OLD_FILES) if kinds else (_GROUPS, _FILES)
            # Inside a container the path may be that of the machine: the root is its own group then.
            own = root / path.lstrip("/")
            yield from ((folder, files) for folder in (own, *own.parents) if folder.is_relative_to(root))
