"""The secret that makes cache keys unguessable: a file only the server can read, never a table or a setting."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from pgml_tune.errors import NotReady

_BYTES = 32
FILE_NAME = "cache_secret"


def read_secret(spool_dir: Path) -> bytes:
    """The cluster's secret, made by whichever session needs it first."""
    path = spool_dir / FILE_NAME
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
        return _read(path)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise NotReady(
                "the secret of the cache can be read by others",
                detail=f'It is the file "{path}".',
                hint=f"rm {path}",
            )
        secret = file.read()
    if len(secret) != _BYTES:
        raise NotReady("the secret of the cache is damaged", detail=f'It is the file "{path}".', hint=f"rm {path}")
    return secret


def _create(path: Path) -> None:
    """Write a new secret under a name of its own, then link it: the first session wins, the others use its file."""
    temporary = path.with_name(f".{FILE_NAME}-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
        file.flush()
        os.fsync(descriptor)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
