"""Files that keep what backends tell until it is ingested.

A backend appends to files of its own, one write for each line, and holds a shared lock on the one it writes: whoever
gets the exclusive lock knows that the file is complete. Writing never waits and never raises; what cannot be written
is counted, and told in the next line that can.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pgml_tune.ipc.call_line import NULL, Dropped, dropped_line

FOLDER = "calls"  # below the spool folder: a folder per database
FILE_BYTES = 1 << 20  # then the next file is begun: what is too much is dropped file by file
_MOST_FILE_BYTES = 16 << 20  # then it is begun even amid a call
RETRY_SECONDS = 1.0  # after a file could not be made
_READ_BYTES = 16 << 20  # of a file at a time; a longer one is not ours
_SUFFIX = ".log"
_FILE = re.compile(r"(?P<node>[0-9a-f]{12})-\d+-[0-9a-f]+-\d+\.log\Z")


class SpoolWriter:
    """Appends lines to files of one backend."""

    def __init__(self, folder: Path, node: str, backend: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._node = node
        self._backend = backend
        self._clock = clock
        self._descriptor: int | None = None
        self._size = 0  # of the file
        self._number = 0  # of the next file
        self._retry_at = 0.0
        self._untold: list[Dropped] = []
        self._lost_bytes = 0  # of lines that could not be written

    def write(self, line: bytes, max_bytes: int, *, is_amid_call: bool = False) -> None:
        """Append a line; the files of all backends are to stay below `max_bytes`.

        Amid a call the file is the one that has its beginning: who finds a complete file takes the call for lost.
        """
        if self._descriptor is not None and self._size >= (_MOST_FILE_BYTES if is_amid_call else FILE_BYTES):
            self._close()
        if not (self._descriptor is not None or self._open(max_bytes)) or not self._append(line):
            self._lost_bytes += len(line)
        elif self._untold or self._lost_bytes:
            self._tell_dropped()

    def _open(self, max_bytes: int) -> bool:
        if self._clock() < self._retry_at:
            return False
        try:
            dropped, is_below = make_room(self._folder, self._node, max_bytes - FILE_BYTES)
            self._untold += dropped
            if is_below:
                self._descriptor, self._size = self._new_file(), 0
                return True
        except OSError:
            pass  # the folder is missing or full, or there are too many open files
        self._retry_at = self._clock() + RETRY_SECONDS
        return False

    def _new_file(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{self._node}-{self._backend}-{self._number}"
        self._number += 1
        unlocked = self._folder / f"{name}.new"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(unlocked, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.rename(unlocked, self._folder / f"{name}{_SUFFIX}")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _append(self, line: bytes) -> bool:
        """Write a whole line or nothing of it."""
        assert self._descriptor is not None
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            written = 0
        if written == len(line):
            self._size += written
            return True
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._close()  # nothing may follow a torn line
        return False

    def _tell_dropped(self) -> None:
        if self._lost_bytes:
            self._untold.append(Dropped(NULL, self._lost_bytes))
            self._lost_bytes = 0
        while self._untold and self._descriptor is not None and self._append(dropped_line(self._untold[0])):
            del self._untold[0]

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool."""

    path: Path
    node: str
    size: int
    changed_at: float  # seconds since 1970

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, position: int) -> Piece | None:
        """What follows a position, in whole lines; None if this is not a file of ours, or is gone."""
        with _opened(self.path) as descriptor:
            if descriptor is None:
                return None
            # Asked for first: when nobody writes any more, what is read now is all there will be.
            is_complete = _has_no_writer(descriptor)
            content = os.pread(descriptor, _READ_BYTES, position)
            is_at_end = len(content) < _READ_BYTES
        torn = len(content) - (content.rfind(b"\n") + 1)
        if torn and not (is_complete and is_at_end) and torn < _READ_BYTES:
            content = content[:-torn]
        return Piece(content, position + len(content), is_complete and is_at_end)

    def remove(self) -> bool:
        """Remove the file, unless it is being written; whether it is gone."""
        with _opened(self.path) as descriptor:
            if descriptor is None or not _has_no_writer(descriptor):
                return False
            with contextlib.suppress(OSError):
                os.unlink(self.path)
                return True
        return False


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file."""

    content: bytes
    end: int
    is_complete: bool  # nothing will follow

    def lines(self) -> Iterator[str]:
        return iter(self.content.decode(errors="replace").removesuffix("\n").split("\n") if self.content else [])


def database_folder(spool_dir: Path, database_id: int) -> Path:
    """Where the backends of a database write."""
    return spool_dir / FOLDER / str(database_id)


def files(folder: Path, node: str | None = None) -> list[SpoolFile]:
    """The files of a node, None meaning of any, the longest unchanged one first."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = _FILE.match(entry.name)
            if name is not None and node in (None, name["node"]):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append(SpoolFile(folder / entry.name, name["node"], status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: file.changed_at)


def make_room(folder: Path, node: str, max_bytes: int) -> tuple[list[Dropped], bool]:
    """Drop the oldest files until a node has no more than so many bytes: those dropped, and whether it suffices."""
    present = files(folder, node)
    total, dropped = sum(file.size for file in present), []
    for file in present:
        if total <= max_bytes:
            break
        if file.remove():
            dropped.append(Dropped(file.name, file.size))
            total -= file.size
    return dropped, total <= max_bytes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of a plain file; None if it is something else, or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _has_no_writer(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
