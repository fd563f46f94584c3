"""A loaded embedding model: texts in, checked vectors out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.encoder import Encoder
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument

_SMALLEST_NORM = 1e-6


class Embedder(Encoder):
    """An artifact that makes vectors."""

    task = "embedding"

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its special tokens, nothing cut."""
        return self._tokenizer.count(text)

    def spans(self, text: str, checkpoint: Callable[[], None]) -> Spans:
        """Where the tokens of a text are, nothing cut and none added."""
        return self._tokenizer.spans(text, checkpoint)

    def longest_text(self, kind: str) -> int:
        """The most tokens of a part of a text that the model reads beside its special tokens and its prompt."""
        return self._tokenizer.longest_text(self.config.prompt(kind))

    def try_out(self) -> None:
        """Embed a text of the greatest length, and two that need padding."""
        self.embed(["a " * self.config.max_tokens], "passage", Work())
        self.embed(["a", "a longer text"], "query", Work())

    def embed(
        self, texts: Sequence[str], kind: str, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> VectorArray:
        """One vector per text, [texts, dimensions]; `checkpoint` runs between batches and may raise to end the call."""
        return self._compute(texts, self.config.prompt(kind), work, checkpoint)

    def _check(self, rows: VectorArray) -> None:
        check_vectors(rows)


def check_vectors(vectors: VectorArray) -> None:
    """Refuse NaN, infinity and the zero vector."""
    if len(vectors) == 1 and _SMALLEST_NORM**2 < float(vectors[0].dot(vectors[0])) < math.inf:
        return
    norms = np.einsum("ij,ij->i", vectors, vectors)
    # A comparison with NaN is false, so this catches it too.
    if not bool(((norms > _SMALLEST_NORM**2) & (norms < np.inf)).all()):
        raise InvalidArgument(
            "the model has no usable vector for the input",
            detail="It returned a zero vector or numbers that are not finite.",
        )
