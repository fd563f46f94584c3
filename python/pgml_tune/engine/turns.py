"""A runtime that computes so many batches at once and lets others wait: each takes several cores."""

from __future__ import annotations

import threading

from pgml_tune.engine.contract import Runtime, TokenArray, VectorArray


class InTurns:
    """A runtime like the one within."""

    def __init__(self, runtime: Runtime, lanes: int) -> None:
        self._runtime = runtime
        self._free = threading.BoundedSemaphore(lanes)

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        with self._free:
            return self._runtime.run(token_ids, attention_mask)
