"""Files that others must not be able to swap, cut or read half-written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pgml_tune.errors import ArtifactDamaged, DiskFull, NotReady

_CHUNK_BYTES = 1 << 20
_MAX_READ_BYTES = 64 << 20


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says where."""
    try:
        yield
    except OSError as error:
        reason = f"{os.strerror(error.errno or 0)}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f'no space left below "{folder}"', detail=reason) from None
        raise NotReady(f'cannot use "{folder}"', detail=reason, hint="SELECT * FROM doctor()") from None


def open_plain(path: Path, *, has_links: bool = False) -> int:
    """A descriptor of a plain file; a link, a pipe, a device or, unless told otherwise, a hard link is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ArtifactDamaged(
            f'file "{path.name}" of the artifact cannot be read', detail=f"{os.strerror(error.errno or 0)}."
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_nlink != 1 and not has_links):
        os.close(descriptor)
        raise ArtifactDamaged(f'file "{path.name}" of the artifact is not a plain file')
    return descriptor


def read_plain(path: Path, max_bytes: int = _MAX_READ_BYTES, *, has_links: bool = False) -> bytes:
    """The bytes of a plain file of moderate size."""
    with os.fdopen(open_plain(path, has_links=has_links), "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ArtifactDamaged(f'file "{path.name}" of the artifact is larger than {max_bytes} bytes')
    return content


def hash_file(path: Path) -> tuple[str, int]:
    """The sha256 and the size of a plain file."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(open_plain(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def identity(path: Path) -> list[int]:
    """What changes when a file is replaced or written to."""
    status = os.stat(path, follow_symlinks=False)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


@contextlib.contextmanager
def written_aside(folder: Path, content: bytes, mode: int = 0o644) -> Iterator[Path]:
    """A synced file under a name of its own, to be renamed or linked to its place; removed if it is not."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sync(path: Path) -> None:
    """Make a file or a folder survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
