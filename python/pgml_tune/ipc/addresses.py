"""Where the worker that serves models is reached, and how a session makes sure that it is the worker."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pgml_tune.ipc.handshake import ANSWER_BYTES, NONCE_BYTES, Meeting, new_nonce
from pgml_tune.ipc.listen_secret import read_listen_secret
from pgml_tune.ipc.peers import trusted_users, user_behind
from pgml_tune.settings import Loopback, Paths

CONNECT_SECONDS = 0.005
PROOF_SECONDS = 5.0  # that the worker has to prove that it is one
_SLICE_SECONDS = 0.1  # between two looks for a cancel


class SilentPeer(OSError):
    """Somebody has accepted the connection and does not say who he is."""


class Address(Protocol):
    """Where the worker is reached."""

    def connect(self, checkpoint: Callable[[], None]) -> socket.socket:
        """A connection to nobody but the worker; `checkpoint` runs while one waits for it, and may raise."""
        ...


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket in the file system: the system says who is at the other end."""

    path: Path
    users: Callable[[], frozenset[int]]  # who may be the worker

    def __str__(self) -> str:
        return str(self.path)

    def connect(self, checkpoint: Callable[[], None]) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            deadline = time.monotonic() + CONNECT_SECONDS
            while (outcome := connection.connect_ex(os.fspath(self.path))) == errno.EAGAIN:
                if time.monotonic() > deadline:  # as many wait to be accepted as may
                    raise TimeoutError(f"it has not accepted within {CONNECT_SECONDS * 1000:g} ms")
                time.sleep(CONNECT_SECONDS / 10)
            if outcome:
                raise OSError(outcome, os.strerror(outcome))
            if (user := user_behind(connection)) not in self.users():
                raise PermissionError(f"user {user} of the operating system listens there")
        except BaseException:
            connection.close()
            raise
        return connection


@dataclass(frozen=True, slots=True)
class Port:
    """A port of this machine, where anybody may listen: both ends prove that they know a secret."""

    loopback: Loopback
    secret_file: Path
    owners: Callable[[], frozenset[int]]  # whose file it may be

    def __str__(self) -> str:
        return str(self.loopback)

    def connect(self, checkpoint: Callable[[], None]) -> socket.socket:
        secret = read_listen_secret(self.secret_file, self.owners())
        connection = socket.socket(family_of(self.loopback), socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outcome = connection.connect_ex(self.loopback)
            if outcome == errno.EINPROGRESS:
                if not is_ready(connection, select.POLLOUT, CONNECT_SECONDS):
                    raise TimeoutError(f"it has not accepted within {CONNECT_SECONDS * 1000:g} ms")
                outcome = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                raise OSError(outcome, os.strerror(outcome))
            _meet(connection, secret, checkpoint)
        except BaseException:
            connection.close()
            raise
        return connection


def _meet(connection: socket.socket, secret: bytes, checkpoint: Callable[[], None]) -> None:
    """Learn that the other end knows the secret, and only then prove the same."""
    own, other = connection.getsockname()[:2], connection.getpeername()[:2]
    if own == other:
        raise ConnectionRefusedError("nobody listens there")  # the system has connected the socket with itself
    nonce = new_nonce()
    connection.sendall(Meeting(own, other, nonce, b"", secret).hello())
    answer = _received(connection, ANSWER_BYTES, checkpoint)
    meeting = Meeting(own, other, nonce, answer[:NONCE_BYTES], secret)
    if not meeting.is_server(answer[NONCE_BYTES:]):
        raise PermissionError("who listens there does not know the secret")
    connection.sendall(meeting.client_proof())


def _received(connection: socket.socket, size: int, checkpoint: Callable[[], None]) -> bytes:
    found = b""
    deadline = time.monotonic() + PROOF_SECONDS
    while len(found) < size:
        has_data = is_ready(connection, select.POLLIN, _SLICE_SECONDS)
        if found or not has_data:
            checkpoint()
            if time.monotonic() > deadline:
                raise SilentPeer(f"who listens there has not proved within {PROOF_SECONDS:g} seconds who he is")
        data = connection.recv(size - len(found)) if has_data else None
        if data is None:
            continue
        if not data:
            raise ConnectionResetError("who listens there has closed the connection")
        found += data
    return found


def is_ready(connection: socket.socket, event: int, seconds: float) -> bool:
    """Whether a socket can be read or written, as soon as it can."""
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(seconds * 1000))


def family_of(loopback: Loopback) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in loopback.host else socket.AF_INET


def socket_file(paths: Paths) -> SocketFile:
    """The worker's socket, which there is in any case."""
    return SocketFile(paths.serve_socket, lambda: trusted_users(paths.socket_group))


def worker_address(paths: Paths) -> Address:
    """Where sessions reach the worker."""
    if paths.connect is None:
        return socket_file(paths)
    return Port(paths.connect, paths.secret_file, lambda: trusted_users(paths.socket_group))
