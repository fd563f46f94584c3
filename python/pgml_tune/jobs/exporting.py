"""The job of `export_onnx()`: the same network with another opset, or with its graph rewritten ahead."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from pgml_tune.engine.artifact import GRAPH
from pgml_tune.engine.contract import OUTPUTS
from pgml_tune.jobs.checkpoints import take
from pgml_tune.jobs.checks import check_export
from pgml_tune.jobs.comparing import Comparison, compare_speed
from pgml_tune.jobs.deriving import derive, derived_config, require_original
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.label_checks import check_labels
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Export the model's checkpoint anew, and publish it in the model's space if it computes the same."""
    site, model, original = Site.of(job, report), job.models["model"], job.artifact("model")
    level = job.parameters["optimize"]
    require_original(original.config(), model.reference)
    report.progress("loading the model")
    staged = take(job, "model", job.scratch("checkpoint"))
    from pgml_tune.jobs.export import export_onnx
    from pgml_tune.jobs.model import load

    task = original.config().task
    loaded = load(staged, task)
    config = derived_config(original.config(), "fp32", job.made_by(model.reference))
    report.progress("exporting to ONNX")
    exported = job.scratch("exported") / GRAPH
    opset = export_onnx(loaded.network, exported, OUTPUTS[task], job.parameters["opset"])
    bound = {}
    if level != "none":
        report.progress("optimizing the graph")
        from pgml_tune.jobs.optimizing import optimize

        bound = optimize(exported, level)
    config = replace(config, source={**config.source, "graph": {"opset": opset, "optimize": level, **bound}})
    found: list[Comparison] = []

    def write(folder: Path) -> None:
        for file in exported.parent.iterdir():
            shutil.copyfile(file, folder / file.name)  # the job's folder may be on another disk

    def measure(folder: Path, base: Runner, new: Runner) -> Mapping[str, Any]:
        check = check_labels if config.labels else check_export
        parity = check(
            new,
            lambda texts: loaded.network.encode(texts, prompt="", batch_size=8),
            (config.prompt_passage, config.prompt_query),
        )
        found.append(Comparison(*compare_speed(original, folder, config, report), None))
        return {**parity, **found[0].to_json()}

    artifact = derive(original, config, site, write, measure)
    suffix = "" if job.parameters["new_version"] else _suffix(opset, level)
    report.artifact(artifact.digest, suffix, artifact.config().to_json(), existed=False)
    found[0].report(report, original, model.reference, artifact)
    return {
        "summary": f"opset {opset}, optimize {level}: {found[0].summary()}",
        "opset": opset,
        "optimize": level,
        "operators": _operators(artifact.path(GRAPH)),
        "metrics": artifact.config().metrics,
    } | bound


def _suffix(opset: int, level: str) -> str:
    return f"-opset{opset}" + ("" if level == "none" else f"-{level}")


def _operators(file: Path) -> int:
    return len(onnx.load(str(file), load_external_data=False).graph.node)
