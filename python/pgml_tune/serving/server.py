"""The socket: frames in, frames out, and peers that do not behave kept from doing harm."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import json
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgml_tune.errors import NotReady, OutOfMemory, TuneError
from pgml_tune.ipc import operations
from pgml_tune.ipc.frames import (
    MAX_REQUEST_BYTES,
    MAX_WHOLE_REQUEST_BYTES,
    NO_DIGEST,
    BrokenFrame,
    Frame,
    FrameReader,
    Kind,
    pack,
    unpack,
)
from pgml_tune.ipc.place import lock_path
from pgml_tune.serving.scheduler import Scheduler
from pgml_tune.serving.task import Task

READ_SECONDS = 10.0  # for a frame that has begun to end, and for a reader to take what it has asked for
BEAT_SECONDS = 1.0
_LINE_SECONDS = 10.0  # at most one line in so long tells of connections that were broken off
_BACKLOG = 512
_PEER = struct.Struct("3i")
_OUT_OF_MEMORY = {"sqlstate": OutOfMemory.sqlstate, "message": "the worker is out of memory"}
log = logging.getLogger("pgml_tune.serving")


@dataclass(slots=True)
class Server:
    """All connections."""

    scheduler: Scheduler
    trusted: frozenset[int]  # users of the operating system
    most_connections: int
    status: Callable[[], dict[str, Any]]
    connections: dict[int, Connection] = field(default_factory=dict)
    refused: int = 0  # connections of strangers, too many of them, and broken ones
    is_draining: bool = False
    _last: int = 0
    _next_line: float = 0.0

    def connection(self) -> Connection:
        self._last += 1
        return Connection(self, self._last)

    def beat(self) -> None:
        """Tell all who wait that their requests are not forgotten, and drop peers that stopped halfway."""
        now = time.monotonic()
        for connection in list(self.connections.values()):
            connection.beat(now)

    def tell_refused(self, reason: str) -> None:
        """Count a connection that is broken off, and log one now and then."""
        self.refused += 1
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            log.warning("broke off a connection, of %d so far: %s", self.refused, reason)

    def drain(self) -> None:
        """Take nothing new; connections end when they have their answers."""
        self.is_draining = True
        for connection in list(self.connections.values()):
            connection.end_if_idle()


class Connection(asyncio.Protocol):
    """A session at the other end."""

    def __init__(self, server: Server, session: int) -> None:
        self.session = session
        self.is_gone = False
        self._server = server
        self._reader = FrameReader(MAX_REQUEST_BYTES)
        self._parts: dict[int, list[bytes]] = {}
        self._open: dict[int, Task] = {}
        self._transport: Any = None
        self._amid_since: float | None = None
        self._full_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, user, _ = _PEER.unpack(peer)
        server = self._server
        if user not in server.trusted:
            self._abort(f"user {user} of the operating system may not connect")
        elif len(server.connections) >= server.most_connections or server.is_draining:
            self._abort("there are as many as may be, or the end is near")
        else:
            server.connections[self.session] = self

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
                self._amid_since = None  # it goes on, however slowly
        except BrokenFrame as error:
            self._abort(f"{error}")
        self._amid_since = (self._amid_since or time.monotonic()) if self._is_amid() else None

    def pause_writing(self) -> None:
        self._full_since = time.monotonic()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full_since = None
        self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone = True
        self._server.connections.pop(self.session, None)
        self._server.scheduler.forget(self.session)

    def answer(self, task: Task, payload: bytes) -> None:
        self._send(task, Kind.REPLY, payload)

    def refuse(self, task: Task, error: BaseException) -> None:
        values = _OUT_OF_MEMORY
        if isinstance(error, TuneError):
            values = {
                "sqlstate": error.sqlstate, "message": error.message, "detail": error.detail, "hint": error.hint
            }  # fmt: skip
        self._send(task, Kind.ERROR, pack(values))

    def beat(self, now: float) -> None:
        since = min(filter(None, (self._amid_since, self._full_since)), default=now)
        if now - since > READ_SECONDS:
            self._abort("its peer has stopped halfway")
        elif self._open and self._full_since is None:
            self._transport.write(Frame(Kind.BEAT, 0, NO_DIGEST).to_bytes())

    def end_if_idle(self) -> None:
        """End, if nothing was asked that is not answered."""
        if not self._open:
            self._transport.close()

    def _is_amid(self) -> bool:
        return self._reader.is_amid or bool(self._parts)

    def _take(self, frame: Frame) -> None:
        if frame.kind not in (Kind.REQUEST, Kind.PART) or frame.number in self._open:
            raise BrokenFrame("no request, or one of a number that is in use")
        parts = self._parts.setdefault(frame.number, [])
        parts.append(frame.payload)
        if sum(map(len, parts)) > MAX_WHOLE_REQUEST_BYTES or len(self._parts) > 1:
            raise BrokenFrame("a request that is too long, or inside another one")
        if frame.kind is Kind.PART:
            return
        del self._parts[frame.number]
        values, pieces = unpack(b"".join(parts) if len(parts) > 1 else frame.payload)
        task = Task(self, frame.number, frame.digest, values, pieces, time.monotonic())
        self._open[task.number] = task
        if task.operation == operations.STATUS:
            self.answer(task, pack(self._server.status()))
        elif self._server.is_draining:
            # It is told the same way as if it had come a moment later.
            self._abort("the end is near")
        else:
            self._server.scheduler.submit(task)

    def _send(self, task: Task, kind: Kind, payload: bytes) -> None:
        self._open.pop(task.number, None)
        if not self.is_gone and not self._transport.is_closing():
            self._transport.write(Frame(kind, task.number, task.digest, payload).to_bytes())
            if self._server.is_draining:
                self.end_if_idle()

    def _abort(self, reason: str) -> None:
        self._server.tell_refused(reason)
        self._transport.abort()


class Listener:
    """The socket's place in the file system, which one worker has at a time."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
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
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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


def _group_number(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NotReady(f'there is no group "{name}" of the operating system', hint="Set socket_group to one.") from None


def parse_order(line: bytes) -> dict[str, Any]:
    """A line of the parent's."""
    values = json.loads(line)
    if type(values) is not dict:
        raise ValueError("an order is an object")
    return values
