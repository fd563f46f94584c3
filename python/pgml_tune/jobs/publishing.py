"""Turns a staged model folder into an artifact: export, measure, publish."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import GRAPH, Artifact, new_artifact, publish, touch
from pgml_tune.engine.contract import OUTPUTS
from pgml_tune.engine.onnx import ENGINE
from pgml_tune.errors import TuneError
from pgml_tune.jobs.checks import check_export, measure_invariance
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.label_checks import check_labels, measure_same_labels
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.source import Source
from pgml_tune.records import ArtifactConfig, is_digest

EXPORTER = 2  # raised when the same source would give other files


@dataclass(frozen=True, slots=True)
class Site:
    """Where artifacts are made, with how many threads, and who is told."""

    model_root: Path
    label: str  # whose temporary folders these are; '' outside jobs
    threads: int
    report: Reporter

    @classmethod
    def of(cls, job: Job, report: Reporter) -> Site:
        return cls(job.model_root, job.label, job.thread_count, report)


def existing(
    model_root: Path, files_sha256: str, task: str, storage: str, made_by: Mapping[str, Any] | None = None
) -> Artifact | None:
    """The artifact that was made of the same files before, kept from being removed as an orphan."""
    wanted = (files_sha256, EXPORTER, task, storage, made_by)
    for entry in sorted(model_root.iterdir()):
        if is_digest(entry.name):
            with contextlib.suppress(TuneError):
                artifact = Artifact(model_root, entry.name)
                config = artifact.config()
                made_from = (*map(config.source.get, ("files_sha256", "exporter")), config.task, config.storage)
                if (*made_from, config.source.get("made_by")) == wanted:
                    touch(artifact.folder)
                    artifact.verify()
                    return artifact
    return None


def export_model(staged: Source, task: str, site: Site, made_by: Mapping[str, Any] | None = None) -> Artifact:
    """Export a staged sentence-transformers folder, compare the export with it, and publish it."""
    site.report.progress("loading the model")
    from pgml_tune.jobs.export import export_onnx
    from pgml_tune.jobs.model import load

    model = load(staged, task)
    source: dict[str, Any] = {
        "name": staged.name,
        "weights_sha256": staged.weights_sha256,
        "files_sha256": staged.files_sha256,
        "exporter": EXPORTER,
    }
    if made_by is not None:
        source["made_by"] = dict(made_by)
    config = ArtifactConfig(
        task=task,
        engine=ENGINE,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        pooling=model.pooling,
        is_normalized=model.is_normalized,
        prompt_query=model.prompt_query,
        prompt_passage=model.prompt_passage,
        pad_token_id=model.pad_token_id,
        storage="fp32",
        space_id=model.space_id,
        is_batch_invariant=False,
        source=source,
        labels=model.labels,
    )
    with new_artifact(site.model_root, site.label) as folder:
        site.report.progress("exporting to ONNX")
        (folder / "tokenizer.json").write_text(model.tokenizer_json, encoding="utf-8")
        export_onnx(model.network, folder / GRAPH, OUTPUTS[task])
        site.report.progress("comparing with the original")
        runner = Runner(folder, config, site.threads)
        check = check_labels if model.labels else check_export
        parity = check(
            runner,
            lambda texts: model.network.encode(texts, prompt="", batch_size=8),
            (model.prompt_passage, model.prompt_query),
        )
        return publish_measured(folder, config, runner, parity, site)


def publish_measured(
    folder: Path, config: ArtifactConfig, runner: Runner, parity: Mapping[str, Any], site: Site
) -> Artifact:
    """Write the configuration with what was measured, and make the folder an artifact."""
    is_invariant, invariance = (measure_same_labels if config.labels else measure_invariance)(runner)
    config = replace(config, is_batch_invariant=is_invariant, metrics={**parity, **invariance})
    return publish_configured(folder, config, site)


def publish_configured(folder: Path, config: ArtifactConfig, site: Site) -> Artifact:
    """Write the configuration, and make the folder an artifact."""
    site.report.progress("publishing")
    content = json.dumps(config.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "config.json").write_text(content + "\n", encoding="utf-8")
    return publish(site.model_root, folder)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is removed, and that temporary files of libraries go to meanwhile."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="pgml-tune-") as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
