"""The measurements a model must pass, with their limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pgml_tune.errors import NotSupported
from pgml_tune.jobs.parity import Vectors, cosines, overlap
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.texts import PARITY_TEXTS, retrieval_texts

EXPORT_COSINE = 0.9999
INVARIANT_COSINE = 0.99999
SPACE_COSINE = 0.985
SPACE_OVERLAP = 0.90
BATCH = 32
NEIGHBOURS = 10
_DIGITS = 6


def check_export(runner: Runner, encode: Callable[[list[str]], Vectors], prompts: Sequence[str]) -> dict[str, Any]:
    """Compare the exported file with the original, alone and in batches; refuse it where they differ."""
    lowest = 1.0
    for prompt in dict.fromkeys(prompts):
        texts = runner.usable([prompt + text for text in PARITY_TEXTS])
        expected = encode(texts)
        for batch_size in (1, BATCH):
            lowest = min(lowest, float(cosines(expected, runner.embed(texts, batch_size)).min()))
    if not lowest >= EXPORT_COSINE:
        raise NotSupported(
            "the exported network does not reproduce the model",
            detail=f"The lowest cosine over {len(PARITY_TEXTS)} texts is {lowest:.6f}, it must be {EXPORT_COSINE}.",
        )
    return {"export": {"texts": len(PARITY_TEXTS), "cosine_min": round(lowest, _DIGITS)}}


def measure_invariance(runner: Runner) -> tuple[bool, dict[str, Any]]:
    """Whether a text has the same vector alone and among others."""
    texts = runner.usable(PARITY_TEXTS)
    found = cosines(runner.embed(texts, 1), runner.embed(texts, BATCH))
    lowest, mean = float(found.min()), float(found.mean())
    figures = {"cosine_min": round(lowest, _DIGITS), "cosine_mean": round(mean, _DIGITS)}
    return lowest >= INVARIANT_COSINE, {"batch_invariance": figures}


def check_space(original: Runner, derived: Runner, prompts: tuple[str, str], method: str) -> dict[str, Any]:
    """Measure whether a derived file still makes vectors of the original's space; refuse it where it does not."""
    questions, documents = retrieval_texts()
    questions = [prompts[0] + text for text in questions]
    documents = sorted((prompts[1] + text for text in documents), key=len)
    queries, other_queries = (runner.embed(questions, 1) for runner in (original, derived))
    passages, other_passages = (runner.embed(documents, BATCH) for runner in (original, derived))
    cosine = float(np.mean(np.concatenate([cosines(queries, other_queries), cosines(passages, other_passages)])))
    shared = overlap(queries, other_queries, passages, NEIGHBOURS)
    if not (cosine >= SPACE_COSINE and shared >= SPACE_OVERLAP):
        raise NotSupported(
            f"{method} changes the vectors of the model too much",
            detail=f"Mean cosine to the original is {cosine:.4f} (must be {SPACE_COSINE}), overlap@{NEIGHBOURS} of its"
            f" queries against the original's documents {shared:.3f} (must be {SPACE_OVERLAP}).",
            hint="Use int8_block, which stays closer to the original."
            if method in ("int8_dynamic", "int8_static")
            else "",
        )
    figures = {"cosine_mean": round(cosine, _DIGITS), f"overlap_at_{NEIGHBOURS}": round(shared, _DIGITS)}
    return {
        "space_parity": figures
        | {"corpus": "python documentation", "questions": len(questions), "documents": len(documents)}
    }
