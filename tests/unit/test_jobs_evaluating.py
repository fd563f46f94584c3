"""Measuring registered versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
PAIRS = ("pair_score", ["a", "b", "score"], [["the list", "the list", 5], ["a", "value of x", 1], ["b", "y z", 2.5]])
SEARCH = ("retrieval", ["q", "d"], [["the list", "the list"], ["value", "value"], [None, "query"]])
Evaluator = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    import job_folder

    folder = tmp_path_factory.mktemp("base")
    return folder / "models", job_folder.import_tiny(folder / "models", folder / "tiny")


@pytest.fixture
def evaluate(tmp_path: Path, base: tuple[Path, str]) -> Evaluator:
    import job_folder

    def run(rows: Any, metrics: list[str] | None, k: int = 10) -> tuple[dict[str, Any], dict[str, Any]]:
        parameters = {"metrics": metrics, "k": k, "batch_size": 2, "threads": 1}
        job = job_folder.lay_out(
            tmp_path / "job", "evaluate_model", base[0], parameters, {"model": ("tiny@v1", base[1])}, {"eval": rows}
        )
        result, events = job_folder.run(job)
        (evaluation,) = [event for event in events if event["event"] == "evaluation"]
        return result, evaluation

    return run


def test_without_metrics_everything_is_measured(evaluate: Evaluator, base: tuple[Path, str]) -> None:
    result, evaluation = evaluate(PAIRS, None)
    assert set(evaluation["figures"]) == {"spearman", "pearson", "latency_ms", "texts_per_second", "bytes"}
    assert (evaluation["of"], evaluation["digest"], evaluation["part"]) == ("tiny@v1", base[1], "eval")
    assert result["figures"] == evaluation["figures"]
    assert result["summary"].startswith("tiny@v1: spearman ")


def test_the_same_text_is_found_first(evaluate: Evaluator) -> None:
    result, _ = evaluate(SEARCH, ["ndcg@1", "mrr@2"])
    assert result["figures"] == {"ndcg@1": 100, "mrr@2": 100}


def test_speed_alone_needs_no_quality(evaluate: Evaluator) -> None:
    result, _ = evaluate(PAIRS, ["latency"])
    assert set(result["figures"]) == {"latency_ms"}
