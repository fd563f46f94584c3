"""How both ends of a TCP connection prove that they know a secret: no socket here, only bytes.

A client says hello with a nonce; the server answers with one and its proof; the client sends its own, and then frames.
A proof is made from both nonces, so that it is of use once, and from the addresses of both ends, so that nobody can
pass it on over another connection.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field

from pgml_tune.ipc.frames import VERSION, BrokenFrame

_MAGIC = b"pgs" + bytes([VERSION])
NONCE_BYTES = PROOF_BYTES = 32
HELLO_BYTES = len(_MAGIC) + NONCE_BYTES
ANSWER_BYTES = NONCE_BYTES + PROOF_BYTES
_CLIENT, _SERVER = b"client", b"server"


def new_nonce() -> bytes:
    """A number that was never there before."""
    return os.urandom(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class Meeting:
    """What is particular to one connection."""

    client: tuple[str, int]  # addresses, as both ends see them
    server: tuple[str, int]
    client_nonce: bytes
    server_nonce: bytes
    secret: bytes = field(repr=False)

    def hello(self) -> bytes:
        return _MAGIC + self.client_nonce

    def answer(self) -> bytes:
        return self.server_nonce + self._proof(_SERVER)

    def client_proof(self) -> bytes:
        return self._proof(_CLIENT)

    def is_server(self, proof: bytes) -> bool:
        """Whether who listens knows the secret."""
        return hmac.compare_digest(proof, self._proof(_SERVER))

    def is_client(self, proof: bytes) -> bool:
        """Whether who has connected knows the secret."""
        return hmac.compare_digest(proof, self._proof(_CLIENT))

    def _proof(self, role: bytes) -> bytes:
        ends = (f"{host} {port}".encode() for host, port in (self.client, self.server))
        return hmac.digest(self.secret, b"\0".join((role, self.client_nonce, self.server_nonce, *ends)), "sha256")


def nonce_of(hello: bytes) -> bytes:
    """The nonce of a client that says hello."""
    if len(hello) != HELLO_BYTES or not hello.startswith(_MAGIC):
        raise BrokenFrame("no hello of this version")
    return hello[len(_MAGIC) :]
