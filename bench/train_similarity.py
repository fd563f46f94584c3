"""STS-B: all weights in English and Chinese; in English also low-rank additions, and 8 bits of the result."""

from __future__ import annotations

from typing import Any

from quality import spearman
from report import Figure, at_least, at_most
from server import Connection
from texts import Pairs, similarity_pairs
from training import VERSION, Job, Plan, call, compare_quantized, load

_PART = "1. Similarity: finetune_sbert on STS-B train, one epoch; Spearman on dev through embed()"
_LIMIT_SECONDS = 600
_TARGETS = {"en": 89.0, "zh": 60.0}
_QUERY = "SELECT a, b, score / 5 AS score FROM sts WHERE part = '{part}' AND language = '{language}' ORDER BY number"
_ONE_BY_ONE = "SELECT count(embed(a, %s)) FROM sts WHERE part = 'dev' AND language = 'en' AND number %% 12 = %s"
_LARGEST_LOSS = 1.0  # points that low-rank additions may stay behind


def measure(connection: Connection, plan: Plan) -> list[Figure]:
    pairs = {
        (language, part): similarity_pairs(plan.data_dir, language, part)
        for language in _TARGETS
        for part in ("train", "dev")
    }
    _load(connection, plan, pairs)
    figures: list[Figure] = []
    versions: dict[str, str] = {}
    points: dict[str, float] = {}

    def finetune(name: str, language: str, options: dict[str, Any]) -> Job:
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
        note = f"from {before:.2f}; {job.version}"
        figures.append(at_least(_PART, f"{name}: Spearman", points[name], "points", target, note))
        figures.append(at_most(_PART, f"{name}: the whole CALL", job.seconds, "s", _LIMIT_SECONDS))
        return job

    finetune("en", "en", {})
    finetune("zh", "zh", {})
    result = finetune("en, LoRA", "en", {"lora": {}}).result
    share = 100 * result["trained_parameters"] / result["parameters"]
    note = f"{result['trained_parameters']:,} of {result['parameters']:,}"
    figures.append(at_most(_PART, "en, LoRA: parameters trained", share, "%", 2, note))
    quantized = call(
        connection,
        "quantize_model",
        model=versions["en"],
        method="int8_dynamic",
        options={"eval_query": _QUERY.format(part="dev", language="en"), "max_loss": 0.5},
    ).version
    lost = points["en"] - spearman(connection, quantized, pairs["en", "dev"])
    return figures + compare_quantized(connection, plan, _PART, _ONE_BY_ONE, versions["en"], quantized, lost)


def _load(connection: Connection, plan: Plan, pairs: dict[tuple[str, str], Pairs]) -> None:
    load(
        connection,
        "sts",
        "language text, part text, number integer, a text, b text, score double precision",
        (
            (language, part, number, *row)
            for (language, part), rows in pairs.items()
            for number, row in enumerate(plan.some(list(zip(rows.left, rows.right, rows.scores, strict=True)), 200))
        ),
    )
