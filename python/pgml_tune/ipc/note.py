"""What each thread is at, in a file that outlives the process: after a crash it tells which models were running."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

_SLOT_BYTES = 64  # a digest
_CLOCK_SECONDS = 0.1  # that times of files may be behind


class Note:
    """A file with a place for each thread."""

    def __init__(self, path: Path, threads: int) -> None:
        # No link that somebody has left there, who may write to the folder: what it leads to would be emptied.
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w+b") as file:
            file.write(bytes(_SLOT_BYTES * threads))
            file.flush()
            self._memory = mmap.mmap(file.fileno(), 0)

    @contextlib.contextmanager
    def running(self, thread: int, digest: str) -> Iterator[None]:
        """Names a model while it runs."""
        place = slice(thread * _SLOT_BYTES, (thread + 1) * _SLOT_BYTES)
        self._memory[place] = digest.encode()
        try:
            yield
        finally:
            self._memory[place] = bytes(_SLOT_BYTES)


def read_note(path: Path, begun_at: float) -> list[str]:
    """The models that ran when a process ended that began at this time; none where the note is a former one's."""
    try:
        if path.stat().st_mtime < begun_at - _CLOCK_SECONDS:
            return []
        content = path.read_bytes()
    except OSError:
        return []
    slots = (content[start : start + _SLOT_BYTES] for start in range(0, len(content), _SLOT_BYTES))
    return [slot.decode("ascii", "replace") for slot in slots if slot.strip(b"\0")]
