"""The formulas of the figures, against hand-made values and, where they are installed, the libraries that have them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pgml_tune.jobs import metrics
from pgml_tune.jobs.quality import main_figure, measure_vectors

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("ties", [0, 1])
def test_correlations_are_those_of_scipy(ties: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    left, right = RNG.normal(size=200).round(ties), RNG.normal(size=200).round(1)
    assert metrics.spearman(left, right) == pytest.approx(100 * stats.spearmanr(left, right).statistic)
    assert metrics.pearson(left, right) == pytest.approx(100 * stats.pearsonr(left, right).statistic)


def test_the_correlation_with_a_constant_is_undefined() -> None:
    assert math.isnan(metrics.spearman(np.ones(5), np.arange(5.0)))


def test_label_figures_are_those_of_sklearn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    expected, found = ([str(label) for label in RNG.integers(0, 5, 300)] for _ in range(2))
    assert metrics.accuracy(expected, found) == pytest.approx(100 * sklearn.accuracy_score(expected, found))
    labels = metrics.per_label(expected, found)
    assert metrics.macro_f1(labels) == pytest.approx(100 * sklearn.f1_score(expected, found, average="macro"))
    shares = sklearn.precision_recall_fscore_support(expected, found, labels=["3"], zero_division=0)
    figures = labels["3"]
    assert (figures.precision, figures.recall, figures.f1) == pytest.approx([100 * share[0] for share in shares[:3]])
    assert figures.count == expected.count("3")


def test_a_label_that_is_never_found_has_no_precision() -> None:
    figures = metrics.per_label(["a", "b"], ["a", "a"])
    assert (figures["b"].precision, figures["b"].f1, figures["a"].recall) == (0, 0, 100)


def test_ndcg_is_the_one_of_sklearn_with_gains_of_two_to_the_grade() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    grades = RNG.integers(0, 4, 30).astype(float)
    scores = -np.arange(30.0)
    expected = sklearn.ndcg_score([2**grades - 1], [scores], k=10)
    assert metrics.ndcg(grades.tolist(), grades.tolist(), 10) == pytest.approx(100 * expected)


def test_ranked_figures_by_hand() -> None:
    grades = [0.0, 2.0, 0.0, 1.0]
    assert metrics.reciprocal_rank(grades, 10) == 50
    assert metrics.reciprocal_rank(grades, 1) == 0
    assert metrics.recall(grades, 4, 2) == 25
    best = 3 / math.log2(2) + 1 / math.log2(3)
    assert metrics.ndcg(grades, [1, 2], 10) == pytest.approx(100 * (3 / math.log2(3) + 1 / math.log2(5)) / best)


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    scores, positive = np.array([0.9, 0.8, 0.3, 0.2]), np.array([True, True, False, False])
    accuracy, threshold = metrics.best_accuracy(scores, positive)
    assert accuracy == 100
    assert 0.3 < threshold < 0.8
    assert metrics.best_accuracy(np.array([0.5, 0.5]), np.array([True, False]))[0] == 50


VECTORS = {"a": [1, 0], "b": [0.9, 0.1], "c": [0, 1], "d": [0.1, 0.9], "e": [-1, 0]}


def embed(texts: list[str], kind: str) -> np.ndarray:
    return np.array([VECTORS[text] for text in texts], np.float32)


def test_pairs_are_retrieval_among_all_positives() -> None:
    figures = measure_vectors(embed, [["a", "b"], ["c", "d"]], "pair")
    assert figures == {"ndcg@10": 100, "recall@10": 100, "mrr@10": 100}


def test_grades_and_documents_without_a_query_count() -> None:
    rows = [["a", "c", 1], ["a", "b", 0], [None, "d", None]]
    figures = measure_vectors(embed, rows, "retrieval", 1)
    assert figures == {"ndcg@1": 0, "recall@1": 0, "mrr@1": 0}
    assert measure_vectors(embed, rows, "retrieval", 3)["mrr@3"] == pytest.approx(33.3333)


def test_triplets_labels_and_scores_are_measured() -> None:
    assert measure_vectors(embed, [["a", "b", "c"], ["a", "c", "b"]], "triplet") == {"accuracy": 50}
    assert measure_vectors(embed, [["a", "b", 1], ["a", "c", 0]], "pair_label")["accuracy"] == 100
    figures = measure_vectors(embed, [["a", "b", 1], ["a", "d", 0.5], ["a", "e", 0]], "pair_score")
    assert figures["spearman"] == 100


def test_a_figure_that_is_undefined_is_left_out() -> None:
    assert measure_vectors(embed, [["a", "b", 1], ["c", "d", 1]], "pair_score") == {}


def test_each_shape_has_a_main_figure_that_is_measured() -> None:
    rows = {"pair": ["a", "b"], "triplet": ["a", "b", "c"], "retrieval": ["a", "b", 1]}
    for shape in ("pair_score", "pair_label", "pair", "triplet", "retrieval"):
        row = rows.get(shape, ["a", "b", 1])
        other = rows.get(shape, ["a", "c", 0])
        assert main_figure(shape, 10) in measure_vectors(embed, [row, other], shape)
