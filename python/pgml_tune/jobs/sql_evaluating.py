"""Measures a registered version that writes SQL: by what its SQL returns, and by its speed."""

from __future__ import annotations

import json
from typing import Any

from pgml_tune.engine.artifact import LEXICON, Artifact
from pgml_tune.engine.files import read_plain
from pgml_tune.engine.generator import open_generator
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.caller import Caller
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.sql_metrics import measure_sql, speed
from pgml_tune.jobs.sql_rows import Reader, read_places, running_rows
from pgml_tune.service.prompt import PromptFormat

_SPEED = {"latency": "latency_ms", "throughput": "questions_per_second"}  # as it is asked for, and its figure


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Measure what `evaluate_model()` asks for."""
    reference, artifact, wanted = job.models["model"].reference, job.artifact("model"), job.parameters["metrics"]
    caller = Caller(job.access)
    try:
        places = read_places(job)
        rows, dropped = running_rows(job.rows["eval"], "eval", places, caller, report)
        if not rows:
            raise InvalidArgument("the SQL of no row of the eval query runs", hint=f"SELECT job_log({job.job_id})")
        report.progress("loading the model")
        generator = _open(artifact, reference, job.thread_count)
        form = PromptFormat.from_json(artifact.config().generation.get("prompt") or {})
        reader = Reader(form, _lexicon(artifact), places, generator.fits)
        lessons = [reader.lesson(row) for row in rows]
        report.progress("evaluating")
        figures = measure_sql(generator, lessons, caller).figures()
    finally:
        caller.close()
    if wanted is None or set(wanted) & set(_SPEED):
        report.progress("measuring the speed")
        figures |= speed(generator, lessons)
    if wanted is not None:
        names = {_SPEED.get(name, name) for name in wanted}
        figures = {name: value for name, value in figures.items() if name in names}
    report.evaluation(reference, artifact.digest, "eval", figures, len(rows))
    shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    return {
        "summary": f"{reference}: {shown} on {len(rows):,} rows",
        "figures": figures,
        "eval_rows": len(rows),
        "dropped_rows": dropped,
        "shape": job.rows["eval"].shape,
        "threads": job.thread_count,
    }


def _open(artifact: Artifact, reference: str, threads: int) -> LocalGenerator:
    generator = open_generator(artifact, threads)
    if not isinstance(generator, LocalGenerator):
        raise NotSupported(
            f'model "{reference}" is run by another server', detail="Jobs measure models that run in their own process."
        )
    return generator


def _lexicon(artifact: Artifact) -> dict[str, str]:
    known: dict[str, str] = json.loads(read_plain(artifact.path(LEXICON))) if LEXICON in artifact.files else {}
    return known
