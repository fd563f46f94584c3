"""A session's end of the socket to the worker that serves models.

A late answer must never be taken for that of the next call, so whatever goes wrong, a cancel too, closes the socket.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.errors import TuneError, error_of
from pgml_tune.ipc.addresses import Address, SilentPeer, is_ready
from pgml_tune.ipc.frames import MAX_REPLY_BYTES, BrokenFrame, Frame, FrameReader, Kind, pack, request, unpack

SILENCE_SECONDS = 5.0  # a worker that is busy says so each second
_SLICE_SECONDS = 0.1  # between two looks for a cancel
_IN_FLIGHT = 4  # requests of one call that wait at the worker
_READ_BYTES = 1 << 18


class WorkerLost(Exception):
    """The worker cannot be reached, has gone away or does not answer."""


class WorkerSilent(WorkerLost):
    """The worker is there and gives no sign of life."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the worker has answered."""

    values: dict[str, Any]
    pieces: list[bytes]


Request = tuple[Mapping[str, Any], Sequence[bytes]]


class Client:
    """One connection to the worker, made when it is needed and kept."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._reader = FrameReader(MAX_REPLY_BYTES)
        self._number = 0
        self._waiting: list[int] = []  # requests of the call under way

    def call(
        self, digest: str, requests: Iterable[Request], checkpoint: Callable[[], None] = lambda: None
    ) -> Iterator[Reply]:
        """The replies to requests in their order; `checkpoint` runs while the worker is waited for, and may raise."""
        is_over = False
        try:
            connection = self._connected(checkpoint)
            yield from self._exchange(connection, digest, iter(requests), checkpoint)
            is_over = True
        except TuneError:
            is_over = not self._waiting  # the worker's own, and nothing else is on its way
            raise
        except OSError as error:
            raise WorkerLost(error.strerror or f"{error}") from None
        except BrokenFrame as error:
            raise WorkerLost(f"{error}") from None
        finally:
            if not is_over:
                self.close()

    def ask(self, digest: str, values: Mapping[str, Any], pieces: Sequence[bytes] = (),
            checkpoint: Callable[[], None] = lambda: None) -> Reply:  # fmt: skip
        """The reply to one request."""
        (reply,) = self.call(digest, [(values, pieces)], checkpoint)
        return reply

    def reach(self, checkpoint: Callable[[], None] = lambda: None) -> None:
        """Connect, if that is not done yet."""
        try:
            self._connected(checkpoint)
        except OSError as error:
            raise WorkerLost(error.strerror or f"{error}") from None

    def close(self) -> None:
        """Let go of the connection; the worker drops what it has not begun for it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._reader = FrameReader(MAX_REPLY_BYTES)

    def _exchange(
        self, connection: socket.socket, digest: str, requests: Iterator[Request], checkpoint: Callable[[], None]
    ) -> Iterator[Reply]:
        unsent = bytearray()
        found: dict[int, Reply] = {}
        heard = looked = time.monotonic()
        goes_on = True
        while goes_on or self._waiting:
            while goes_on and len(self._waiting) < _IN_FLIGHT:
                following = next(requests, None)
                if following is None:
                    goes_on = False
                    break
                self._number += 1
                self._waiting.append(self._number)
                for frame in request(self._number, digest, pack(*following)):
                    unsent += frame.to_bytes()
            if not self._waiting:
                break
            data = self._turn(connection, unsent)
            now = time.monotonic()
            if now - looked >= _SLICE_SECONDS:
                checkpoint()
                looked = now
            if data is None:
                if now - heard > SILENCE_SECONDS:
                    raise WorkerSilent(f"no sign of life for {SILENCE_SECONDS:g} seconds")
                continue
            heard = now
            for frame in self._reader.feed(data):
                self._take(frame, digest, found)
            while self._waiting and self._waiting[0] in found:
                yield found.pop(self._waiting.pop(0))

    def _take(self, frame: Frame, digest: str, found: dict[int, Reply]) -> None:
        if frame.kind is Kind.BEAT:
            return
        if frame.number not in self._waiting or frame.digest != digest:
            raise BrokenFrame("an answer to something else")
        values, pieces = unpack(frame.payload)
        if frame.kind is Kind.ERROR:
            self._waiting.remove(frame.number)
            raise error_of(
                str(values.get("sqlstate")),
                str(values.get("message")),
                detail=str(values.get("detail") or ""),
                hint=str(values.get("hint") or ""),
            )
        if frame.kind is not Kind.REPLY:
            raise BrokenFrame("a request instead of an answer")
        found[frame.number] = Reply(values, pieces)

    def _turn(self, connection: socket.socket, unsent: bytearray) -> bytes | None:
        """Send and receive what can be; None where nothing has come for a while."""
        if unsent:
            with contextlib.suppress(BlockingIOError):
                del unsent[: connection.send(unsent)]
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if unsent else 0))
        events = poll.poll(_SLICE_SECONDS * 1000)
        if not events:
            return None
        if not events[0][1] & ~select.POLLOUT:
            return b""
        data = connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the worker has closed the connection")
        return data

    def _connected(self, checkpoint: Callable[[], None]) -> socket.socket:
        self._waiting = []
        if self._socket is not None and is_ready(self._socket, select.POLLIN, 0):
            self.close()  # it was restarted since the last call
        if self._socket is None:
            try:
                self._socket = self.address.connect(checkpoint)
            except SilentPeer as error:
                raise WorkerSilent(f"{error}") from None
        return self._socket
