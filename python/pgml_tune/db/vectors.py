"""Vectors as PostgreSQL takes them in binary form."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

_HEADER = struct.Struct("!iiIii")  # dimensions, NULLs, type of the elements; how many, the first subscript
_NO_ELEMENTS = struct.Struct("!iiI")
_VECTOR = struct.Struct("!ihh")  # bytes that follow; dimensions of the vector, unused


@dataclass(frozen=True, slots=True)
class Vectors:
    """A parameter of type vector[]."""

    type_id: int  # of type vector
    raws: Sequence[bytes]  # 32-bit floats of this machine

    def to_binary(self) -> bytes:
        """What array_recv() and vector_recv() read."""
        if not self.raws:
            return _NO_ELEMENTS.pack(0, 0, self.type_id)
        parts = [_HEADER.pack(1, 0, self.type_id, len(self.raws), 1)]
        for raw in self.raws:
            parts.append(_VECTOR.pack(4 + len(raw), len(raw) // 4, 0))
            parts.append(_in_network_order(raw))
        return b"".join(parts)


def _in_network_order(raw: bytes) -> bytes:
    if sys.byteorder == "big":
        return raw
    numbers = array("f", raw)
    numbers.byteswap()
    return numbers.tobytes()
