"""The secret that makes cache keys unguessable: a file only the server can read, never a table or a setting."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from pgml_tune.engine.files import explained, written_aside
from pgml_tune.errors import NotReady

FILE_NAME = "cache_secret"
_BYTES = 32


def read_secret(spool_dir: Path) -> bytes:
    """The cluster's secret, made by whichever session needs it first."""
    path = spool_dir / FILE_NAME
    with explained(spool_dir):
        try:
            return _read(path)
        except FileNotFoundError:
            # The first session to link its file wins; the others use that one.
            with written_aside(spool_dir, secrets.token_bytes(_BYTES), 0o600) as file, suppress(FileExistsError):
                os.link(file, path)
            return _read(path)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        secret = file.read(_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077 or len(secret) != _BYTES:
        raise NotReady(
            "the secret of the cache is damaged or can be read by others",
            detail=f'It is the file "{path}".',
            hint=f"Remove it with rm {path}: cached vectors are then computed again.",
        )
    return secret
