"""Where peers come in: the socket in the file system, and a port of this machine if root wants one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from pgml_tune.errors import NotReady
from pgml_tune.ipc.addresses import family_of
from pgml_tune.ipc.listen_secret import make_listen_secret, read_listen_secret
from pgml_tune.ipc.peers import trusted_users
from pgml_tune.ipc.place import lock_path
from pgml_tune.settings import Loopback

_BACKLOG = 512
_ACCEPTED_AT_ONCE = 8  # then others have their turn


class Listener:
    """The socket's place in the file system, which one worker has at a time."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._open(path, group)
        except NotReady:
            self.socket.close()
            raise
        except OSError as error:
            self.socket.close()
            raise NotReady(
                f'the socket "{path}" cannot be made: {error}',
                hint="The user of the server has to own its folder and to be a member of socket_group.",
            ) from None

    def _open(self, path: Path, group: str) -> None:
        number = _group_number(group)
        folder = path.parent
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        if stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
            raise NotReady(f'folder "{folder}" of the socket can be changed by others', hint=f"chmod o-w {folder}")
        self._lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise NotReady(f'another worker serves models at "{path}"') from None
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        mask = os.umask(0o177)
        try:
            self.socket.bind(os.fspath(path))
        finally:
            os.umask(mask)
        if number is not None:
            os.chown(path, -1, number)
            path.chmod(0o660)
            if folder.stat().st_uid == os.geteuid():
                os.chown(folder, -1, number)
                folder.chmod(0o750)
        self.socket.listen(_BACKLOG)
        self.socket.setblocking(False)

    def close(self) -> None:
        """Let a successor have the place."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self._lock)


async def accept(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.Protocol], listening: socket.socket
) -> asyncio.Server:
    """Let in who connects, a few at a time, so that a flood of them keeps nobody else waiting."""
    accepting = await loop.create_server(factory, sock=listening, backlog=_ACCEPTED_AT_ONCE)
    listening.listen(_BACKLOG)  # as many may wait as before
    return accepting


def open_port(loopback: Loopback) -> socket.socket:
    """A socket that listens at a port of this machine alone."""
    # The protocol has to be named: asyncio sends short answers at once only on sockets that say what they speak.
    listening = socket.socket(family_of(loopback), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a predecessor may linger
        listening.bind(loopback)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def own_secret(path: Path, group: str) -> bytes:
    """The secret of who may connect to the port; made where there is none."""
    make_listen_secret(path, _group_number(group))
    return read_listen_secret(path, trusted_users(group))


def _group_number(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NotReady(f'there is no group "{name}" of the operating system', hint="Set socket_group to one.") from None
