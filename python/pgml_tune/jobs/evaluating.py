"""Measures a registered version: quality on rows, and speed on their texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pgml_tune.engine.artifact import Artifact
from pgml_tune.jobs import latency
from pgml_tune.jobs.job import Job, Rows
from pgml_tune.jobs.measuring import embed_with, measure_classifier
from pgml_tune.jobs.quality import main_figure, measure_vectors
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner

_SPEED = {"latency": "latency_ms", "throughput": "texts_per_second"}  # as it is asked for, and its figure


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Measure what `evaluate_model()` asks for."""
    if job.models["model"].task == "text_to_sql":
        from pgml_tune.jobs import sql_evaluating

        return sql_evaluating.run(job, report)
    artifact, rows, wanted = job.artifact("model"), job.rows["eval"], job.parameters["metrics"]
    report.progress("loading the model")
    runner = Runner(artifact.folder, artifact.config(), job.thread_count)
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    if wanted is None or set(wanted) - set(_SPEED):
        report.progress("evaluating")
        figures, details = _measure_quality(runner, artifact, rows, job.parameters)
    if wanted is None or set(wanted) & set(_SPEED):
        report.progress("measuring the speed")
        figures |= latency.figures(latency.measure(runner, rows.texts()), artifact.size_bytes)
    figures = _asked(figures, wanted)
    reference = job.models["model"].reference
    report.evaluation(reference, artifact.digest, "eval", figures)
    return {
        "summary": _summary(reference, figures, rows, job.parameters["k"]),
        "figures": figures,
        "eval_rows": rows.count,
        "shape": rows.shape,
        "threads": job.thread_count,
        **details,
    }


def _measure_quality(
    runner: Runner, artifact: Artifact, rows: Rows, parameters: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    config = artifact.config()
    if config.task == "classification":
        measured = measure_classifier(runner, config, rows)
        return measured.all_figures(), measured.to_json()
    embed, listed = embed_with(runner, config, parameters["batch_size"]), list(rows.read())
    figures: dict[str, float] = {}
    for k in _places(parameters["metrics"] or (), parameters["k"]):
        figures |= measure_vectors(embed, listed, rows.shape, k)
    return figures, {}


def _places(wanted: Iterable[str], k: int) -> list[int]:
    """Each k that a figure is asked at."""
    return sorted({int(name.partition("@")[2]) for name in wanted if "@" in name}) or [k]


def _asked(figures: Mapping[str, float], wanted: Sequence[str] | None) -> dict[str, float]:
    """Those that were asked for; with the mean over labels also those of each label, as f1[label]."""
    if wanted is None:
        return dict(figures)
    names = {_SPEED.get(name, name) for name in wanted}
    return {name: value for name, value in figures.items() if name in names or "[" in name and "macro_f1" in names}


def _summary(reference: str, figures: Mapping[str, float], rows: Rows, k: int) -> str:
    main = main_figure(rows.shape, k)
    shown = [main] if main in figures else [name for name in figures if "[" not in name]
    measured = ", ".join(f"{name} {figures[name]:.2f}" for name in shown)
    return f"{reference}: {measured or 'nothing could be measured'} on {rows.count:,} rows"
