"""The measures that decide whether two files make the same vectors."""

from __future__ import annotations

import numpy as np

from pgml_tune.jobs.parity import cosines, overlap
from pgml_tune.jobs.texts import PARITY_TEXTS, retrieval_texts


def test_cosines_ignore_length() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert np.allclose(cosines(vectors, 5 * vectors), 1)


def test_cosines_of_vectors_that_are_not_finite_are_the_worst() -> None:
    good, bad = np.ones((1, 2), np.float32), np.array([[np.nan, 1]], np.float32)
    assert cosines(good, bad).tolist() == [-1.0]


def test_overlap_counts_shared_neighbours() -> None:
    documents = np.eye(4, dtype=np.float32)
    queries = np.array([[4, 3, 2, 1]], np.float32)
    others = np.array([[4, 1, 2, 3]], np.float32)
    assert overlap(queries, queries, documents, 2) == 1.0
    assert overlap(queries, others, documents, 2) == 0.5


def test_parity_texts_are_varied() -> None:
    assert len(PARITY_TEXTS) == len(set(PARITY_TEXTS)) == 64
    assert min(map(len, PARITY_TEXTS)) == 0
    assert max(map(len, PARITY_TEXTS)) > 2000


def test_retrieval_texts_are_enough_and_distinct() -> None:
    questions, documents = retrieval_texts()
    assert len(set(questions)) == len(questions) > 100
    assert len(set(documents)) == len(documents) > 500
