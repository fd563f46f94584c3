"""Measures how fast models are, several of them in turns: what else the machine does slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.texts import retrieval_texts

BATCH = 32
_QUESTIONS, _DOCUMENTS = 40, 256
_ROUNDS = 5  # at most; fewer where the models are slow
_SECONDS = 10.0  # that each of the two measurements may take, ended at the next text or batch


def measure(runner: Runner, texts: Sequence[str] | None = None) -> dict[str, float]:
    """Milliseconds of one text alone, the median, and texts per second in batches of similar length."""
    return compare({"": runner}, texts)[""]


def compare(runners: Mapping[str, Runner], texts: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """The figures of several models on the same texts; by default on ones that come with Python."""
    questions, documents = retrieval_texts() if texts is None else (list(texts), list(texts))
    latency = _alone(runners, _spread(_usable(runners, questions), _QUESTIONS))
    throughput = _in_batches(runners, sorted(_spread(_usable(runners, documents), _DOCUMENTS), key=len))
    return {
        name: {"latency_ms": round(latency[name], 3), "texts_per_second": round(throughput[name], 1)}
        for name in runners
    }


def change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """By how many per cent each figure has grown."""
    return {name: round(100 * (after[name] / before[name] - 1), 1) for name in before if before[name] and name in after}


def _usable(runners: Mapping[str, Runner], texts: Sequence[str]) -> list[str]:
    return next(iter(runners.values())).usable(texts)


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """So many of the texts, evenly out of all."""
    step = max(1, len(texts) // count)
    return list(texts[::step][:count])


def _alone(runners: Mapping[str, Runner], texts: Sequence[str]) -> dict[str, float]:
    """The median over texts of the best of a few rounds, in milliseconds."""
    batches = [[text] for text in texts]
    return {name: 1000 * median(best) for name, best in _best_seconds(runners, batches).items()}


def _in_batches(runners: Mapping[str, Runner], texts: Sequence[str]) -> dict[str, float]:
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    measured = _best_seconds(runners, batches)
    return {name: sum(map(len, batches[: len(best)])) / sum(best) for name, best in measured.items()}


def _best_seconds(runners: Mapping[str, Runner], batches: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """The least time that each model took for each batch; all models take a batch before any takes the next."""
    for runner in runners.values():
        runner.embed(batches[0], BATCH)  # the first run allocates
    best: dict[str, list[float]] = {name: [] for name in runners}
    started = time.perf_counter()
    for turn in range(_ROUNDS):
        for position, batch in enumerate(batches):
            if (turn or position) and time.perf_counter() - started > _SECONDS:
                return best
            for name, runner in runners.items():
                seconds = _seconds(runner, batch)
                if turn:
                    best[name][position] = min(best[name][position], seconds)
                else:
                    best[name].append(seconds)
    return best


def _seconds(runner: Runner, batch: Sequence[str]) -> float:
    started = time.perf_counter()
    runner.embed(batch, BATCH)
    return time.perf_counter() - started


def figures(speed: Mapping[str, float], size_bytes: int) -> dict[str, Any]:
    """Speed and size under the names of evaluations."""
    return {**speed, "bytes": size_bytes}
