"""A loaded classifier: texts in, the probability of each label out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.encoder import Encoder
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument

ProbabilityArray = NDArray[np.float64]  # [texts, labels]
_KIND = "passage"  # whose prompt stands before a text


class Classifier(Encoder):
    """An artifact that tells labels."""

    task = "classification"

    def try_out(self) -> None:
        """Classify a text of the greatest length, and two that need padding."""
        self.classify(["a " * self.config.max_tokens], Work())
        self.classify(["a", "a longer text"], Work())

    def classify(
        self, texts: Sequence[str], work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> ProbabilityArray:
        """The probabilities of all labels for each text; `checkpoint` runs between batches and may raise."""
        return softmax(self._compute(texts, self.config.prompt(_KIND), work, checkpoint))

    def best(
        self, texts: Sequence[str], top_k: int, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> list[list[tuple[str, float]]]:
        """The most probable labels of each text, most probable first; equal ones in their order."""
        return [self._most_probable(row, top_k) for row in self.classify(texts, work, checkpoint)]

    def best_of(self, logits: VectorArray, top_k: int) -> list[list[tuple[str, float]]]:
        """The same from rows that were computed before."""
        return [self._most_probable(row, top_k) for row in softmax(logits)]

    def _most_probable(self, probabilities: ProbabilityArray, top_k: int) -> list[tuple[str, float]]:
        places = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
        return [(self.config.labels[place], float(probabilities[place])) for place in places]

    def _check(self, rows: VectorArray) -> None:
        if not np.isfinite(rows).all():
            raise InvalidArgument(
                "the model has no usable scores for the input", detail="It returned numbers that are not finite."
            )


def softmax(logits: NDArray[Any]) -> ProbabilityArray:
    """Each row as probabilities, which add up to 1."""
    rows = logits.astype(np.float64)
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    probabilities: ProbabilityArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
