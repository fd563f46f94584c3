"""Names and seals what lies in the caches: without the secret nobody can guess a key, read a vector or forge one."""

from __future__ import annotations

import hashlib
import hmac

_PROOF_BYTES = 16


class KeyMaker:
    """Makes the keys of cached vectors under a secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._hmac = hmac.new(secret, digestmod="sha256")

    def key(self, scope: str, text: bytes) -> bytes:
        """HMAC-SHA256 of a text within a scope: who asks, of which artifact, for what kind of vector."""
        keyed = self._hmac.copy()  # half the time of starting from the secret
        keyed.update(b"%d:%s:%s" % (len(scope), scope.encode(), text))
        return keyed.digest()

    def seal(self, key: bytes, vector: bytes) -> bytes:
        """A vector as it may lie in a table: masked, and with a proof that it was made for this key."""
        masked = self._masked(key, vector)
        return masked + self._proof(key, masked)

    def unseal(self, key: bytes, sealed: bytes, dimensions: int) -> bytes | None:
        """The vector of 32-bit floats that was sealed under this key; None for anything else."""
        masked, proof = sealed[:-_PROOF_BYTES], sealed[-_PROOF_BYTES:]
        if len(masked) != 4 * dimensions or not hmac.compare_digest(proof, self._proof(key, masked)):
            return None
        return self._masked(key, masked)

    def seal_text(self, key: bytes, text: str) -> bytes:
        """A text as seal() has a vector."""
        masked = self._masked(key, text.encode())
        return masked + self._proof(key, masked)

    def unseal_text(self, key: bytes, sealed: bytes) -> str | None:
        """The text that was sealed under this key; None for anything else."""
        masked, proof = sealed[:-_PROOF_BYTES], sealed[-_PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._proof(key, masked)):
            return None
        return self._masked(key, masked).decode()

    def _masked(self, key: bytes, content: bytes) -> bytes:
        # Who has seen a key, in a plan that the server printed, can neither read nor forge what lies under it.
        stream = hashlib.shake_256(self._secret + key).digest(len(content))
        return (int.from_bytes(content) ^ int.from_bytes(stream)).to_bytes(len(content))

    def _proof(self, key: bytes, masked: bytes) -> bytes:
        keyed = self._hmac.copy()
        keyed.update(b"proof:" + key + masked)
        return keyed.digest()[:_PROOF_BYTES]
