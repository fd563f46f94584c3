"""The measurements a classifier must pass, with their limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pgml_tune.engine.classifier import softmax
from pgml_tune.errors import NotSupported
from pgml_tune.jobs.checks import BATCH
from pgml_tune.jobs.parity import Vectors
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.texts import PARITY_TEXTS, retrieval_texts

SAME_PROBABILITY = 1e-3  # the most that the probability of a label may differ
SPACE_DISTANCE = 0.2  # mean share of probability that may move, on texts of subjects it does not know
_DIGITS = 6


def check_labels(runner: Runner, encode: Callable[[list[str]], Vectors], prompts: Sequence[str]) -> dict[str, Any]:
    """Compare the exported file with the original, alone and in batches; refuse it where they differ."""
    texts = runner.usable([prompts[0] + text for text in PARITY_TEXTS])
    expected = encode(texts)
    figures = [_compare(expected, runner.embed(texts, batch_size)) for batch_size in (1, BATCH)]
    worst = max(figures, key=lambda found: float(found["probability_difference_max"]))
    # A comparison with NaN is false, so this catches it too.
    if not worst["probability_difference_max"] <= SAME_PROBABILITY:
        raise NotSupported(
            "the exported network does not reproduce the model",
            detail=f"Probabilities over {len(texts)} texts differ by up to {worst['probability_difference_max']:.6f},"
            f" {SAME_PROBABILITY} is allowed.",
        )
    return {"export": {"texts": len(texts), **worst}}


def measure_same_labels(runner: Runner) -> tuple[bool, dict[str, Any]]:
    """Whether a text has the same probabilities alone and among others."""
    texts = runner.usable(PARITY_TEXTS)
    figures = _compare(runner.embed(texts, 1), runner.embed(texts, BATCH))
    return figures["probability_difference_max"] <= SAME_PROBABILITY, {"batch_invariance": figures}


def check_probabilities(original: Runner, derived: Runner, prompt: str, method: str) -> dict[str, Any]:
    """Measure whether a derived file still makes the original's probabilities; refuse it where it does not."""
    questions, _ = retrieval_texts()
    texts = [prompt + text for text in questions]
    expected, found = softmax(original.embed(texts, 1)), softmax(derived.embed(texts, 1))
    distance = float(np.abs(expected - found).sum(axis=1).mean() / 2)
    same = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    if not distance <= SPACE_DISTANCE:
        raise NotSupported(
            f"{method} changes the probabilities of the model too much",
            detail=f"A share of {distance:.3f} of the probability moves to other labels, {SPACE_DISTANCE} is allowed.",
            hint="Use int8_block, which stays closer to the original." if method != "int8_block" else "",
        )
    figures = {"distance_mean": round(distance, _DIGITS), "same_label": round(same, _DIGITS)}
    return {"space_parity": figures | {"corpus": "python documentation", "questions": len(texts)}}


def _compare(expected: Vectors, found: Vectors) -> dict[str, float]:
    """The greatest difference of a probability, and the share of texts whose label is the same."""
    left, right = softmax(expected), softmax(found)
    same = (left.argmax(axis=1) == right.argmax(axis=1)).mean()
    return {
        "probability_difference_max": round(float(np.abs(left - right).max()), _DIGITS),
        "same_label": round(float(same), _DIGITS),
    }
