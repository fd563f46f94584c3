"""Makes a rectangle of token sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pgml_tune.engine.contract import TokenArray


def pad(token_ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[TokenArray, TokenArray]:
    """The sequences padded on the right to the longest one, and the mask that is 1 where there is a token."""
    shape = len(token_ids), max(map(len, token_ids))
    padded, mask = np.full(shape, pad_token_id, np.int64), np.zeros(shape, np.int64)
    for row, ids in enumerate(token_ids):
        padded[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    return padded, mask
