"""The frames between a session and the worker that serves models: no socket here, only bytes.

A frame is a header and a payload: magic and version of the protocol, what kind it is, the number of the request, the
digest of the artifact that is asked, and how long the payload is. A payload is JSON and, behind it, any number of
pieces of bytes whose sizes the JSON tells: texts and vectors travel as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

VERSION = 1
_MAGIC = b"pg"
_HEADER = struct.Struct("!2sBBQ32sI")
_SIZES = "sizes"
_LENGTH = struct.Struct("!I")
MAX_REQUEST_BYTES = 2 << 20  # of one frame; a longer request comes in several
MAX_WHOLE_REQUEST_BYTES = 8 << 20  # more than any text that the settings can allow
MAX_TOLD_BYTES = 4096  # of a request beside its pieces, and so of the sizes of these
MAX_REPLY_BYTES = 64 << 20
NO_DIGEST = "0" * 64  # of what is asked of the worker itself


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1  # the last or only part of one
    PART = 2  # of a request that goes on in the next frame
    REPLY = 3
    ERROR = 4
    BEAT = 5  # the worker lives, and is still at it


class BrokenFrame(ValueError):
    """The peer does not speak this protocol; nothing that follows can be trusted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, or a part of one."""

    kind: Kind
    number: int
    digest: str
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        header = _HEADER.pack(_MAGIC, VERSION, self.kind, self.number, bytes.fromhex(self.digest), len(self.payload))
        return header + self.payload


class FrameReader:
    """Finds the frames in what a socket gives."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()

    @property
    def is_amid(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes."""
        self._held += data
        start = 0
        try:
            while len(self._held) - start >= _HEADER.size:
                magic, version, kind, number, digest, length = _HEADER.unpack_from(self._held, start)
                if magic != _MAGIC or version != VERSION or not Kind.REQUEST <= kind <= Kind.BEAT:
                    raise BrokenFrame("no frame of this version")
                if length > self._max_bytes:
                    raise BrokenFrame(f"a frame of {length} bytes, the most are {self._max_bytes}")
                end = start + _HEADER.size + length
                if len(self._held) < end:
                    break
                payload = bytes(memoryview(self._held)[start + _HEADER.size : end])
                start = end
                yield Frame(Kind(kind), number, digest.hex(), payload)
        finally:
            del self._held[:start]


def pack(values: Mapping[str, Any], pieces: Sequence[bytes] = ()) -> bytes:
    """A payload."""
    told = orjson.dumps({**values, _SIZES: [len(piece) for piece in pieces]})
    return b"".join((_LENGTH.pack(len(told)), told, *pieces))


def unpack(payload: bytes, max_told_bytes: int = MAX_REPLY_BYTES) -> tuple[dict[str, Any], list[bytes]]:
    """What a payload holds."""
    try:
        (length,) = _LENGTH.unpack_from(payload)
        if length > max_told_bytes:
            raise BrokenFrame(f"a payload that tells {length} bytes, the most are {max_told_bytes}")
        values = orjson.loads(payload[_LENGTH.size : _LENGTH.size + length])
        sizes = values.pop(_SIZES)
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise BrokenFrame("a piece has no size")
    except (struct.error, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise BrokenFrame(f"a payload that cannot be read: {type(error).__name__}") from None
    place = _LENGTH.size + length
    if len(payload) != place + sum(sizes):
        raise BrokenFrame("a payload of another size than it says")
    pieces = []
    for size in sizes:
        pieces.append(payload[place : place + size])
        place += size
    return values, pieces


def request(number: int, digest: str, payload: bytes) -> Iterator[Frame]:
    """The frames of a request."""
    last = max(0, (len(payload) - 1) // MAX_REQUEST_BYTES) * MAX_REQUEST_BYTES
    for start in range(0, last, MAX_REQUEST_BYTES):
        yield Frame(Kind.PART, number, digest, payload[start : start + MAX_REQUEST_BYTES])
    yield Frame(Kind.REQUEST, number, digest, payload[last:])
