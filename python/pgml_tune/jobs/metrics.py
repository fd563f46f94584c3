"""The figures that say how good a model is, as numbers from 0 to 100 (correlations from -100).

Each docstring names where the formula is from. Nothing here knows of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_FULL = 100.0


def pearson(left: Floats, right: Floats) -> float:
    """Linear correlation (Pearson 1895); NaN where one side does not vary."""
    left, right = left - left.mean(), right - right.mean()
    spread = np.sqrt((left @ left) * (right @ right))
    return _FULL * float(left @ right / spread) if spread > 0 else float("nan")


def spearman(left: Floats, right: Floats) -> float:
    """Correlation of ranks, ties sharing the mean of theirs (Spearman 1904), as scipy.stats.spearmanr."""
    return pearson(_ranks(left), _ranks(right))


def _ranks(values: Floats) -> Floats:
    _, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[groups]
    return ranks


def accuracy(expected: Sequence[Hashable], found: Sequence[Hashable]) -> float:
    """The share of answers that are right."""
    return _FULL * sum(one == other for one, other in zip(expected, found, strict=True)) / len(expected)


def best_accuracy(scores: Floats, is_positive: NDArray[np.bool_]) -> tuple[float, float]:
    """The accuracy at the threshold that gives the highest, and this threshold.

    As BinaryClassificationEvaluator of sentence-transformers; a score that reaches the threshold counts as positive.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], is_positive[order]
    right = np.cumsum(positive) + (~positive).sum() - np.cumsum(~positive)
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)
    best = int(np.argmax(np.where(last_of_ties, right, -1)))
    threshold = ordered[best] if best + 1 == len(ordered) else (ordered[best] + ordered[best + 1]) / 2
    return _FULL * float(right[best]) / len(scores), float(threshold)


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How well one label is told (van Rijsbergen 1979)."""

    precision: float
    recall: float
    f1: float
    count: int  # of the rows that have it

    def to_json(self) -> dict[str, Any]:
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: round(value, 2) for name, value in shares.items()} | {"count": self.count}


def per_label(expected: Sequence[str], found: Sequence[str]) -> dict[str, LabelFigures]:
    """Precision, recall and F1 of each label that was expected or found; what has no rows counts as 0."""
    counts, claims = Counter(expected), Counter(found)
    right = Counter(one for one, other in zip(expected, found, strict=True) if one == other)
    return {
        label: LabelFigures(
            precision=_FULL * right[label] / claims[label] if claims[label] else 0.0,
            recall=_FULL * right[label] / counts[label] if counts[label] else 0.0,
            f1=_FULL * 2 * right[label] / (counts[label] + claims[label]),
            count=counts[label],
        )
        for label in sorted({*expected, *found})
    }


def macro_f1(labels: Mapping[str, LabelFigures]) -> float:
    """The mean of the labels' F1, each label weighing the same, as sklearn.metrics.f1_score(average="macro")."""
    return sum(label.f1 for label in labels.values()) / len(labels)


def ndcg(grades: Sequence[float], ideal: Sequence[float], k: int) -> float:
    """Discounted gain of the first k results as a share of the best possible.

    `grades` are those of the results in their order, `ideal` those of all relevant documents. A gain is 2^grade - 1
    (Burges et al. 2005), discounted by log2(rank + 1) (Järvelin & Kekäläinen 2002).
    """
    best = _discounted_gain(sorted(ideal, reverse=True)[:k])
    return _FULL * _discounted_gain(grades[:k]) / best if best else float("nan")


def _discounted_gain(grades: Sequence[float]) -> float:
    ranks = np.arange(1, len(grades) + 1)
    return float(((2.0 ** np.asarray(grades, np.float64) - 1) / np.log2(ranks + 1)).sum())


def recall(grades: Sequence[float], relevant_count: int, k: int) -> float:
    """The share of the relevant documents that are among the first k results (Manning et al. 2008, 8.3)."""
    return _FULL * sum(grade > 0 for grade in grades[:k]) / relevant_count


def reciprocal_rank(grades: Sequence[float], k: int) -> float:
    """One divided by the rank of the first relevant result, 0 if none of the first k is (Voorhees 1999)."""
    return next((_FULL / rank for rank, grade in enumerate(grades[:k], 1) if grade > 0), 0.0)
