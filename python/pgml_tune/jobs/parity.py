"""Measures how far two ways to compute the same embeddings lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def normalized(vectors: Vectors) -> Vectors:
    """The rows scaled to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """The cosine of each pair of rows; rows that are not finite count as -1."""
    products = np.einsum("ij,ij->i", normalized(left).astype(np.float64), normalized(right).astype(np.float64))
    finite: NDArray[np.float64] = np.nan_to_num(products, nan=-1.0, posinf=-1.0, neginf=-1.0)
    return finite


def overlap(queries: Vectors, other_queries: Vectors, documents: Vectors, k: int) -> float:
    """The mean share of the k nearest documents that both sets of queries find."""
    found, other_found = (_nearest(each, documents, k) for each in (queries, other_queries))
    shared = [len(set(row) & set(other)) for row, other in zip(found, other_found, strict=True)]
    return float(np.mean(shared)) / k


def _nearest(queries: Vectors, documents: Vectors, k: int) -> Sequence[Sequence[int]]:
    scores = normalized(queries) @ normalized(documents).T
    nearest: Sequence[Sequence[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return nearest
