"""A few bytes that tell where vectors lie, and nothing of a text: enough to see that inputs drift."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pgml_tune.engine.contract import VectorArray

NUMBERS = 32
SCALE = 32  # a projection of a unit vector is about as large as 1, and seldom as large as 4


def sketch(vector: VectorArray, space_id: str) -> str:
    """The direction of a vector in base64: 32 signed bytes, each a projection times SCALE, rounded.

    The projections are those of the space, so sketches of one space can be compared, and only these.
    """
    norm = math.sqrt(float(vector.dot(vector)))
    projected = _projections(space_id, len(vector)) @ (vector / norm) if norm > 0 else np.zeros(NUMBERS)
    rounded = np.clip(np.rint(projected * SCALE), -127, 127).astype(np.int8)
    return base64.b64encode(rounded.tobytes()).decode()


@lru_cache(maxsize=8)
def _projections(space_id: str, dimensions: int) -> NDArray[np.float32]:
    """Rows of signs, the same in every session and with every version of numpy."""
    size = NUMBERS * dimensions
    content = hashlib.shake_256(f"{dimensions}:{space_id}".encode()).digest(-(-size // 8))
    signs = np.unpackbits(np.frombuffer(content, np.uint8), count=size).astype(np.float32) * 2 - 1
    return signs.reshape(NUMBERS, dimensions)
