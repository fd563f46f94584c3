"""STS-B: all weights in English and Chinese; in English also low-rank additions, and 8 bits of the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quality import spearman
from report import Figure, at_least, at_most
from server import Connection
from texts import Pairs, similarity_pairs
from training import VERSION, Plan, call, compare_quantized, load, quantize

_PART = "1. Similarity: finetune_sbert on STS-B train, one epoch; Spearman on dev through embed()"
_LIMIT_SECONDS = 600
_TARGETS = {"en": 89.0, "zh": 60.0}
_QUERY = "SELECT a, b, score / 5 AS score FROM sts WHERE part = '{part}' AND language = '{language}' ORDER BY number"
_ONE_BY_ONE = "SELECT count(embed(a, %s)) FROM sts WHERE part = 'dev' AND language = 'en' AND number %% 12 = %s"
_LARGEST_LOSS = 1.0  # points that low-rank additions may stay behind
_RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("en", "en", {}),
    ("zh", "zh", {}),
    ("en, LoRA", "en", {"lora": {}}),
)


def measure(connection: Connection, plan: Plan) -> Iterator[Figure]:
    pairs = {
        (language, part): similarity_pairs(plan.data_dir, language, part)
        for language in _TARGETS
        for part in ("train", "dev")
    }
    _load(connection, plan, pairs)
    versions: dict[str, str] = {}
    points: dict[str, float] = {}
    for name, language, options in _RUNS:
        job = call(
            connection,
            "finetune_sbert",
            model=VERSION,
            train_query=_QUERY.format(part="train", language=language),
            eval_query=_QUERY.format(part="dev", language=language),
            options=options,
        )
        versions[name] = job.version
        before, points[name] = (spearman(connection, v, pairs[language, "dev"]) for v in (VERSION, job.version))
        target = points["en"] - _LARGEST_LOSS if options else _TARGETS[language]
        yield at_least(
            _PART, f"{name}: Spearman", points[name], "points", target, f"from {before:.2f}; {job.version}"
        )
        yield at_most(_PART, f"{name}: the whole CALL", job.seconds, "s", _LIMIT_SECONDS)
        if options:
            trained, parameters = job.result["trained_parameters"], job.result["parameters"]
            note = f"{trained:,} of {parameters:,}"
            yield at_most(_PART, f"{name}: parameters trained", 100 * trained / parameters, "%", 2, note)
    quantized = quantize(connection, versions["en"], _QUERY.format(part="dev", language="en"))
    lost = points["en"] - spearman(connection, quantized, pairs["en", "dev"])
    yield from compare_quantized(connection, plan, _PART, _ONE_BY_ONE, versions["en"], quantized, lost)


def _load(connection: Connection, plan: Plan, pairs: dict[tuple[str, str], Pairs]) -> None:
    load(
        connection,
        "sts",
        "language text, part text, number integer, a text, b text, score double precision",
        (
            (language, part, number, *row)
            for (language, part), rows in pairs.items()
            for number, row in enumerate(plan.some(list(zip(rows.left, rows.right, rows.scores, strict=True)), 64))
        ),
    )
