"""Sockets whose user can be interrupted: they wait in slices, and look round in between."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Self

SLICE = 0.1  # seconds


class PatientConnection(http.client.HTTPConnection):
    """A connection to a web server that calls `checkpoint`, which may raise, while it waits; TimeoutError at `until`.

    Leaving its block closes it. Finding out a server's address is the one step that it cannot be interrupted in.
    """

    def __init__(self, host: str, port: int, is_secure: bool, until: float, checkpoint: Callable[[], None]) -> None:
        super().__init__(host, port)
        self._is_secure = is_secure
        self._until = until
        self._checkpoint = checkpoint
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def connect(self) -> None:
        error: OSError = ConnectionRefusedError("it has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connection = self._opened.enter_context(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
            try:
                self._connect(connection, address)
                if self._is_secure:
                    connection = self._secured(connection)
            except TimeoutError:
                raise
            except OSError as failure:
                error = failure
            else:
                self.sock = PatientSocket(connection, self._wait)
                return
        raise error

    def _connect(self, connection: socket.socket, address: Any) -> None:
        connection.settimeout(0)
        try:
            connection.connect(address)
        except BlockingIOError:
            poll = select.poll()
            poll.register(connection, select.POLLOUT)
            while not poll.poll(SLICE * 1000):
                self._wait()
            reason = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if reason:
                raise OSError(reason, os.strerror(reason)) from None
        connection.settimeout(SLICE)

    def _secured(self, connection: socket.socket) -> socket.socket:
        secured = self._opened.enter_context(
            ssl.create_default_context().wrap_socket(
                connection, server_hostname=self.host, do_handshake_on_connect=False
            )
        )
        while True:
            try:
                secured.do_handshake()
                return secured
            except TimeoutError:
                self._wait()

    def _wait(self) -> None:
        self._checkpoint()
        if time.monotonic() > self._until:
            raise TimeoutError("it took too long")


class PatientSocket:
    """What http.client needs of a socket."""

    def __init__(self, connection: socket.socket, wait: Callable[[], None]) -> None:
        self._connection = connection
        self._wait = wait

    def sendall(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except TimeoutError:
                self._wait()

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection, self._wait))

    def close(self) -> None:
        """Nothing: http.client lets go of it before the answer is read to its end."""


class _Incoming(io.RawIOBase):
    """What a socket receives, as a file."""

    def __init__(self, connection: socket.socket, wait: Callable[[], None]) -> None:
        self._connection = connection
        self._wait = wait
        self._waited = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            # A server that sends a byte now and then never lets a receive time out.
            if time.monotonic() - self._waited > SLICE:
                self._wait()
                self._waited = time.monotonic()
            with contextlib.suppress(TimeoutError):
                return self._connection.recv_into(buffer)
