"""The socket: frames in, frames out, and peers that do not behave kept from doing harm."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.errors import OutOfMemory, TuneError
from pgml_tune.ipc import operations
from pgml_tune.ipc.frames import (
    MAX_REQUEST_BYTES,
    MAX_TOLD_BYTES,
    MAX_WHOLE_REQUEST_BYTES,
    NO_DIGEST,
    BrokenFrame,
    Frame,
    FrameReader,
    Kind,
    pack,
    unpack,
)
from pgml_tune.ipc.peers import user_behind
from pgml_tune.serving.scheduler import Scheduler
from pgml_tune.serving.task import Task

READ_SECONDS = 10.0  # for a frame that has begun to end, and for a reader to take what it has asked for
BEAT_SECONDS = 1.0
_LINE_SECONDS = 10.0  # at most one line in so long tells of connections that were broken off
_TURN_SECONDS = 0.001  # that the frames of one peer may take at a time, others have their turn between
_MOST_OPEN = 64  # requests of one peer that are not answered; the next ones are read later
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
        self._frames: Iterator[Frame] | None = None  # what has come and was not looked at
        self._amid_since: float | None = None
        self._full_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        user = user_behind(transport.get_extra_info("socket"))
        self.begin(transport, "" if user in self._server.trusted else f"user {user} of the operating system")

    def begin(self, transport: Any, stranger: str = "") -> None:
        """Serve a peer, unless it is a stranger or one too many."""
        self._transport = transport
        server = self._server
        if stranger:
            self._abort(f"{stranger} may not connect")
        elif len(server.connections) >= server.most_connections or server.is_draining:
            self._abort("there are as many as may be, or the end is near")
        else:
            server.connections[self.session] = self

    def data_received(self, data: bytes) -> None:
        self._frames = self._reader.feed(data)
        self._take_frames()

    def _take_frames(self) -> None:
        """Take what has come, or so much of it that others do not wait long."""
        if self._frames is None or self._transport.is_closing():
            return
        until = time.monotonic() + _TURN_SECONDS
        try:
            for frame in self._frames:
                self._take(frame)
                self._amid_since = None  # it goes on, however slowly
                if len(self._open) >= _MOST_OPEN:
                    break  # an answer goes on
                if time.monotonic() > until:
                    asyncio.get_running_loop().call_soon(self._take_frames)
                    break
            else:
                self._frames = None
        except BrokenFrame as error:
            self._abort(f"{error}")
            return
        is_amid = self._frames is None and self._is_amid()
        self._amid_since = (self._amid_since or time.monotonic()) if is_amid else None
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._frames is None and self._full_since is None:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._full_since = time.monotonic()
        self._read_or_not()

    def resume_writing(self) -> None:
        self._full_since = None
        self._read_or_not()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone = True
        self._server.connections.pop(self.session, None)
        self._server.scheduler.forget(self.session)

    def answer(self, task: Task, payload: bytes) -> None:
        self._server.scheduler.figures.answered(task.is_bulk, time.monotonic() - task.arrived)
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
            if len(frame.payload) < MAX_REQUEST_BYTES:  # there could be any number of them
                raise BrokenFrame("a part that is not full")
            return
        del self._parts[frame.number]
        values, pieces = unpack(b"".join(parts) if len(parts) > 1 else frame.payload, MAX_TOLD_BYTES)
        task = Task(self, frame.number, frame.digest, values, pieces, time.monotonic())
        self._open[task.number] = task
        if task.operation == operations.STATUS:
            self._send(task, Kind.REPLY, pack(self._server.status()))
        elif self._server.is_draining:
            # It is told the same way as if it had come a moment later.
            self._abort("the end is near")
        else:
            self._server.scheduler.submit(task)

    def _send(self, task: Task, kind: Kind, payload: bytes) -> None:
        if self._frames is not None and len(self._open) >= _MOST_OPEN:
            asyncio.get_running_loop().call_soon(self._take_frames)
        self._open.pop(task.number, None)
        if not self.is_gone and not self._transport.is_closing():
            self._transport.write(Frame(kind, task.number, task.digest, payload).to_bytes())
            if self._server.is_draining:
                self.end_if_idle()

    def _abort(self, reason: str) -> None:
        self._server.tell_refused(reason)
        self._transport.abort()


def parse_order(line: bytes) -> dict[str, Any]:
    """A line of the parent's."""
    values = json.loads(line)
    if type(values) is not dict:
        raise ValueError("an order is an object")
    return values
