"""Peers on TCP that have not proved yet that they know the secret; before that nothing else is taken from them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.ipc.frames import BrokenFrame
from pgml_tune.ipc.handshake import HELLO_BYTES, PROOF_BYTES, Meeting, new_nonce, nonce_of
from pgml_tune.serving.server import Server

PROVE_SECONDS = 10.0
# Anybody on the machine can be one, so they take no places of sessions. Of more the longest there is dropped: who
# knows the secret needs a moment only.
MOST_NEWCOMERS = 64


@dataclass(slots=True)
class Newcomers:
    """All of them."""

    server: Server
    secret: bytes = field(repr=False)
    present: dict[Newcomer, None] = field(default_factory=dict)  # the longest there is the first

    def newcomer(self) -> Newcomer:
        return Newcomer(self)

    def enter(self, newcomer: Newcomer) -> None:
        if len(self.present) >= MOST_NEWCOMERS:
            next(iter(self.present)).leave("more have connected than prove that they know the secret")
        self.present[newcomer] = None


class Newcomer(asyncio.Protocol):
    """A peer that says hello, and then proves that it knows the secret."""

    def __init__(self, newcomers: Newcomers) -> None:
        self._newcomers = newcomers
        self._held = b""
        self._meeting: Meeting | None = None
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(
            PROVE_SECONDS, self.leave, "a peer has not proved in time that it knows the secret"
        )
        self._newcomers.enter(self)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._held += data
        try:
            if self._meeting is None:
                self._greet()
            elif len(self._held) >= PROOF_BYTES:
                self._let_in(self._meeting)
        except BrokenFrame as error:
            self.leave(f"{error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def leave(self, reason: str) -> None:
        """Break the connection off."""
        self._end()
        if not self._transport.is_closing():
            self._newcomers.server.tell_refused(reason)
            self._transport.abort()

    def _greet(self) -> None:
        if len(self._held) < HELLO_BYTES:
            return
        client, server = (self._transport.get_extra_info(end)[:2] for end in ("peername", "sockname"))
        # What follows a hello at once was not said by somebody who waits for a proof.
        self._meeting = Meeting(client, server, nonce_of(self._held), new_nonce(), self._newcomers.secret)
        self._held = b""
        self._transport.write(self._meeting.answer())

    def _let_in(self, meeting: Meeting) -> None:
        if not meeting.is_client(self._held[:PROOF_BYTES]):
            raise BrokenFrame("a peer does not know the secret")
        self._end()
        connection = self._newcomers.server.connection()
        self._transport.set_protocol(connection)
        connection.begin(self._transport)
        if len(self._held) > PROOF_BYTES:
            connection.data_received(self._held[PROOF_BYTES:])

    def _end(self) -> None:
        self._newcomers.present.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
