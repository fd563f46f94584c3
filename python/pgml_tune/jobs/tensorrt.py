"""The job of `export_tensorrt()`: a version that runs as a TensorRT plan on the GPU of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import GRAPH, PLAN
from pgml_tune.engine.cuda import Driver
from pgml_tune.engine.tensorrt import ENGINE, PACKAGES, identity, load_library
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.comparing import Comparison, compare_speed
from pgml_tune.jobs.deriving import check_parity, derive, derived_config, require_original
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.plan import Cache, Shapes, build_plan
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.records import ArtifactConfig

_WHAT = "export_tensorrt needs an NVIDIA GPU with its driver, and TensorRT"


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Build a plan of the model, and publish it in the model's space if its vectors are the same."""
    site, model, original = Site.of(job, report), job.models["model"], job.artifact("model")
    dtype, shapes = job.parameters["dtype"], Shapes.of(job.parameters["shapes"])
    require_original(original.config(), model.reference)
    _check_length(original.config(), shapes)
    name, library, bound_to = find_machine(job.parameters["builder"])
    cache = Cache.below(job.model_root, bound_to)
    network = original.path(GRAPH)
    if dtype == "fp16":
        report.progress("exporting to ONNX in 16 bits")
        from pgml_tune.jobs.half import halve

        network = job.scratch("half") / GRAPH
        halve(original.path(GRAPH), network)
    report.progress(f"building the plan with {name}")
    plan = build_plan(
        library,
        network,
        shapes,
        job.parameters["workspace_bytes"],
        cache,
        keeps_timings=job.parameters["timing_cache"],
    )
    config = derived_config(original.config(), dtype, job.made_by(model.reference))
    built = {**bound_to, "dtype": dtype, "shapes": job.parameters["shapes"]}
    config = replace(config, engine=ENGINE, source={**config.source, "tensorrt": built})
    found: list[Comparison] = []

    def write(folder: Path) -> None:
        (folder / PLAN).write_bytes(plan.content)

    def measure(folder: Path, base: Runner, new: Runner) -> Mapping[str, Any]:
        parity = check_parity(base, new, config, f"TensorRT in {dtype}")
        found.append(Comparison(*compare_speed(original, folder, config, report), None))
        return {**parity, **found[0].to_json()}

    artifact = derive(original, config, site, write, measure)
    report.artifact(artifact.digest, "", artifact.config().to_json(), existed=False)
    found[0].report(report, original, model.reference, artifact)
    return {
        "summary": f"{name} {bound_to['library_version']} on {bound_to['device']}: {found[0].summary()}",
        "tensorrt": built,
        "build_seconds": round(plan.seconds, 1),
        "was_cached": plan.was_cached,
        "metrics": artifact.config().metrics,
    }


def find_machine(builder: str) -> tuple[str, Any, dict[str, str]]:
    """The library that is there and the device; an error names all that is missing, not the first of it."""
    missing, hints = [], []
    names = tuple(PACKAGES) if builder == "auto" else (builder,)
    libraries = []
    for name in names:
        try:
            libraries.append((name, load_library(name)))
        except NotSupported as error:
            missing.append(f"{error.message} ({error.detail.rstrip('.')})")
            hints.append(f"pip install {PACKAGES[name]}")
    if libraries:
        missing, hints = [], []  # one is enough
    device = None
    try:
        device = Driver().device()
    except NotSupported as error:
        missing.append(f"{error.message} ({error.detail.rstrip('.')})")
    if not libraries or device is None:
        raise NotSupported(
            _WHAT,
            detail=f"Missing here: {'; '.join(missing)}.",
            hint=" or ".join(hints) if hints else "Run the job on a machine with a GPU.",
        )
    name, library = libraries[0]
    return name, library, identity(library, name, device)


def _check_length(config: ArtifactConfig, shapes: Shapes) -> None:
    """Refuse a plan that would cut texts which the model reads whole."""
    if shapes.most[1] < config.max_tokens:
        raise InvalidArgument(
            f"the model reads {config.max_tokens} tokens, the plan would take {shapes.most[1]}",
            hint=f'Pass options => \'{{"shapes": {{"min": [1, 8], "opt": [16, 64],'
            f' "max": [{shapes.most[0]}, {config.max_tokens}]}}}}\'.',
        )
