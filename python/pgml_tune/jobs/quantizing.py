"""The job of `quantize_model()`: a smaller version, with what it gains and loses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgml_tune.jobs.calibration import MAX_TEXTS, Calibration
from pgml_tune.jobs.comparing import Comparison, check_loss, compare_quality, compare_speed
from pgml_tune.jobs.deriving import derived_config, quantize_artifact, require_original
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Quantize the model, refuse the result where it loses too much, else publish it in the model's space."""
    site, model, original = Site.of(job, report), job.models["model"], job.artifact("model")
    method, max_loss = job.parameters["method"], job.parameters["max_loss"]
    require_original(original.config(), model.reference)
    made_by = job.made_by(model.reference)
    config = derived_config(original.config(), method, made_by)
    rows = _calibration(job, report) if method == "int8_static" else None
    found: list[Comparison] = []

    def measure(folder: Path, base: Runner, new: Runner) -> Mapping[str, Any]:
        quality = None
        if "eval" in job.rows:
            quality = compare_quality(base, new, config, job.rows["eval"], report)
            check_loss(quality, max_loss, method)
        found.append(Comparison(*compare_speed(original, folder, config, report), quality))
        return found[0].to_json()

    artifact = quantize_artifact(original, method, site, rows=rows, made_by=made_by, measure=measure)
    report.artifact(artifact.digest, "", artifact.config().to_json(), existed=False)
    found[0].report(report, original, model.reference, artifact)
    figures = artifact.config()
    return {
        "summary": f"{method}: {found[0].summary()}",
        "method": method,
        "is_batch_invariant": figures.is_batch_invariant,
        "metrics": figures.metrics,
    }


def _calibration(job: Job, report: Reporter) -> Calibration | None:
    rows = job.rows.get("calibration")
    if rows is None:
        return None
    artifact = job.artifact("model")
    texts = [str(row[0]) for row in rows.read()]
    found = Calibration.of(
        texts, artifact.path("tokenizer.json"), artifact.config(), job.parameters["calibration_method"]
    )
    if len(texts) > MAX_TEXTS:
        report.log(f"calibrating on {len(found.token_ids):,} of {len(texts):,} texts, evenly out of all")
    return found
