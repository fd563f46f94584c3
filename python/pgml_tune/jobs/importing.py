"""Turns a model folder into artifacts: one in fp32, and one for each quantization; of a model that writes, one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgml_tune.engine import checkpoint
from pgml_tune.engine.artifact import Artifact, new_artifact
from pgml_tune.engine.generator import Generator
from pgml_tune.errors import InvalidArgument, NotSupported, PermissionDenied
from pgml_tune.jobs.deriving import quantize_artifact
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.publishing import Site, existing, export_model
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.serving import PREFIX, publish_served
from pgml_tune.jobs.source import Source, is_hub_name, stage
from pgml_tune.records import STORAGE_SUFFIXES


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Import what `import_model()` names."""
    source = job.parameters["source"]
    if not is_hub_name(source) and not source.startswith(PREFIX):
        source = _allowed(source, job.import_dirs)
    return import_model(source, job.parameters["task"], job.parameters["quantize"], Site.of(job, report))


def import_model(source: str, task: str, methods: Sequence[str], site: Site) -> dict[str, Any]:
    """Make the fp32 artifact of a model and one per quantization, and report each."""
    if task == Generator.task:
        return _import_generator(source, methods, site)
    report = site.report
    report.progress(f"reading {source}")
    with new_artifact(site.model_root, site.label) as folder:
        staged = stage(source, folder)
        original = existing(site.model_root, staged.files_sha256, task, "fp32")
        existed = original is not None
        original = original or export_model(staged, task, site)
        checkpoint.keep(site.model_root, folder, staged.files_sha256)
    report.artifact(original.digest, "", original.config().to_json(), existed=existed)
    for method in dict.fromkeys(methods):
        derived = existing(site.model_root, staged.files_sha256, task, method)
        existed = derived is not None
        derived = derived or quantize_artifact(original, method, site)
        report.artifact(derived.digest, STORAGE_SUFFIXES[method], derived.config().to_json(), existed=existed)
    config = original.config()
    summary = f"{config.dimensions} {'labels' if config.labels else 'dimensions'}, {config.max_tokens} tokens"
    return {"summary": summary, "source": staged.name, "files_sha256": staged.files_sha256}


def _import_generator(source: str, methods: Sequence[str], site: Site) -> dict[str, Any]:
    """Make the one artifact of a model that writes SQL, in 8 bits, and report it."""
    if methods:
        raise NotSupported("a model that writes SQL is stored in 8 bits anyway", hint="Leave the option quantize out.")
    if source.startswith(PREFIX):
        served = publish_served(source, site)
        site.report.artifact(served.digest, "", served.config().to_json(), existed=False)
        return {"summary": f"{source.removeprefix(PREFIX)} of the server that sql_endpoint names", "source": source}
    site.report.progress(f"reading {source}")
    with new_artifact(site.model_root, site.label) as folder:
        staged = stage(source, folder)
        artifact = existing(site.model_root, staged.files_sha256, Generator.task, "int8")
        existed = artifact is not None
        artifact = artifact or _converted(staged, site)
        checkpoint.keep(site.model_root, folder, staged.files_sha256)
    config = artifact.config()
    site.report.artifact(artifact.digest, "", config.to_json(), existed=existed)
    parity = config.metrics["storage_parity"]
    summary = (
        f"{config.source['architecture']}, {config.max_tokens} tokens, 8 bits;"
        f" the same answer as in full precision to {parity['same_first']:.0%} of {parity['prompts']} prompts"
    )
    return {"summary": summary, "source": staged.name, "files_sha256": staged.files_sha256}


def _converted(staged: Source, site: Site) -> Artifact:
    from pgml_tune.jobs.translation import publish_generator

    return publish_generator(staged, site)


def _allowed(source: str, import_dirs: Sequence[Path]) -> str:
    """The folder where it lies when links are followed, if models may be imported from there.

    Whether there is such a folder elsewhere is nothing that a caller may learn.
    """
    if not source.startswith("/"):
        raise InvalidArgument(
            f'"{source}" is not the name of a model on a hub nor the absolute path of a folder',
            detail="A source is org/model, or a folder of sentence-transformers or transformers on the server.",
        )
    resolved = os.path.realpath(source)
    if any(Path(resolved).is_relative_to(os.path.realpath(allowed)) for allowed in import_dirs):
        return resolved
    places = ", ".join(f'"{allowed}"' for allowed in import_dirs)
    raise PermissionDenied(
        f'models may not be imported from "{source}"',
        detail=f"These folders and all below them are allowed: {places}."
        if places
        else "No folder of this server is allowed, only the name of a model on a hub.",
        hint='Name the folder in "import_dirs" of the configuration file on the server, or use pgml-tune import there.',
    )
