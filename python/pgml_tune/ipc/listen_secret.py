"""The secret that both ends of a TCP connection know: a file that the server's user, and at most a group, can read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

_LEAST_BYTES, _MOST_BYTES = 32, 1024
_FOR_OTHERS = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


class UnusableSecret(OSError):
    """The file is missing, too short, or not ours alone."""


def read_listen_secret(path: Path, owners: Collection[int]) -> bytes:
    """The secret in a file, if it belongs to one of these users and nobody else can have read or written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnusableSecret(f'the secret "{path}" cannot be read: {error.strerror}') from None
    try:
        status = os.fstat(descriptor)
        secret = os.read(descriptor, _MOST_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(descriptor)
    if status.st_uid not in owners or status.st_mode & _FOR_OTHERS:
        raise UnusableSecret(f'the secret "{path}" can be read or changed by others')
    if not _LEAST_BYTES <= len(secret) <= _MOST_BYTES:
        raise UnusableSecret(f'the secret "{path}" has not {_LEAST_BYTES} to {_MOST_BYTES} bytes')
    return secret


def make_listen_secret(path: Path, group: int | None) -> None:
    """Make the file, if there is none; a group may read it."""
    if path.is_symlink() or path.exists():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if group is not None:
                os.fchown(descriptor, -1, group)
                os.fchmod(descriptor, 0o640)
            file.write(os.urandom(_LEAST_BYTES).hex().encode())
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
