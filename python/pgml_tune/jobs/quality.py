"""Measures embeddings on rows of any shape; how a text becomes a vector is the caller's business."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pgml_tune.jobs import metrics
from pgml_tune.jobs.parity import Vectors, cosines, normalized

Embed = Callable[[Sequence[str], str], Vectors]  # of texts that are a "query" or a "passage"
MAIN_FIGURES = {  # by shape: the one that is shown while a model trains, and that decides when it stops
    "pair_score": "spearman",
    "pair_label": "accuracy",
    "pair": "ndcg@{k}",
    "triplet": "accuracy",
    "retrieval": "ndcg@{k}",
    "text_label": "accuracy",
}
_QUERIES_AT_ONCE = 256


def main_figure(shape: str, k: int) -> str:
    """The name of the figure that matters most for rows of a shape."""
    return MAIN_FIGURES[shape].format(k=k)


def measure_vectors(embed: Embed, rows: Sequence[Sequence[Any]], shape: str, k: int = 10) -> dict[str, float]:
    """The figures of rows, each a sequence of its values; one that is undefined for them is left out."""
    figures = _MEASURES[shape](_Texts(embed), rows, k)
    return {name: round(value, 4) for name, value in figures.items() if math.isfinite(value)}


class _Texts:
    """Embeds each distinct text once."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def __call__(self, texts: Sequence[str], kind: str) -> Vectors:
        distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return normalized(self._embed(list(distinct), kind))[[distinct[text] for text in texts]]


def _measure_scores(embed: _Texts, rows: Sequence[Sequence[Any]], k: int) -> dict[str, float]:
    found, expected = _pair_cosines(embed, rows), np.array([float(row[2]) for row in rows])
    return {"spearman": metrics.spearman(found, expected), "pearson": metrics.pearson(found, expected)}


def _measure_labels(embed: _Texts, rows: Sequence[Sequence[Any]], k: int) -> dict[str, float]:
    found, expected = _pair_cosines(embed, rows), np.array([float(row[2]) for row in rows])
    accuracy, _ = metrics.best_accuracy(found, expected > 0)
    return {"accuracy": accuracy, "spearman": metrics.spearman(found, expected)}


def _pair_cosines(embed: _Texts, rows: Sequence[Sequence[Any]]) -> metrics.Floats:
    """Of two texts of the same kind: neither asks for the other."""
    vectors = embed([row[0] for row in rows] + [row[1] for row in rows], "passage")
    return cosines(vectors[: len(rows)], vectors[len(rows) :])


def _measure_triplets(embed: _Texts, rows: Sequence[Sequence[Any]], k: int) -> dict[str, float]:
    anchors = embed([row[0] for row in rows], "query")
    texts = embed([row[1] for row in rows] + [row[2] for row in rows], "passage")
    is_right = cosines(anchors, texts[: len(rows)]) > cosines(anchors, texts[len(rows) :])
    return {"accuracy": metrics.accuracy([True] * len(rows), is_right.tolist())}


def _measure_retrieval(embed: _Texts, rows: Sequence[Sequence[Any]], k: int) -> dict[str, float]:
    """Each query is looked for among all documents of the rows; a row without a query is a document more."""
    judged: dict[str, dict[str, float]] = {}
    for query, document, *grade in rows:
        if query is not None:
            judged.setdefault(query, {})[document] = float(grade[0]) if grade and grade[0] is not None else 1.0
    answered = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    if not answered:
        return {}
    documents = list(dict.fromkeys(row[1] for row in rows))
    nearest = _nearest(embed(list(answered), "query"), embed(documents, "passage"), k)
    scores: list[tuple[float, float, float]] = []
    for grades, places in zip(answered.values(), nearest, strict=True):
        found = [grades.get(documents[place], 0.0) for place in places]
        relevant = [grade for grade in grades.values() if grade > 0]
        scores.append(
            (
                metrics.ndcg(found, relevant, k),
                metrics.recall(found, len(relevant), k),
                metrics.reciprocal_rank(found, k),
            )
        )
    means = np.mean(np.array(scores), axis=0).tolist()
    return dict(zip((f"ndcg@{k}", f"recall@{k}", f"mrr@{k}"), means, strict=True))


def _nearest(queries: Vectors, documents: Vectors, k: int) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        scores = queries[start : start + _QUERIES_AT_ONCE] @ documents.T
        found += np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return found


_MEASURES: dict[str, Callable[[_Texts, Sequence[Sequence[Any]], int], dict[str, float]]] = {
    "pair_score": _measure_scores,
    "pair_label": _measure_labels,
    "pair": _measure_retrieval,
    "triplet": _measure_triplets,
    "retrieval": _measure_retrieval,
}
