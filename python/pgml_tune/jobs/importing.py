"""Turns a model folder into artifacts: export, measure, publish."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pgml_tune.engine.artifact import BUILDING, GRAPH, Artifact, left_over, new_artifact, publish
from pgml_tune.errors import TuneError
from pgml_tune.jobs.checks import check_export, check_space, measure_invariance
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.source import Source, stage
from pgml_tune.records import ArtifactConfig, is_digest

EXPORTER = 2  # raised when the same source would give other files
ENGINE = "onnxruntime"


def import_model(source: str, task: str, methods: Sequence[str], model_root: Path, report: Reporter) -> None:
    """Make the fp32 artifact of a model and one per quantization, and report each."""
    model_root.mkdir(parents=True, exist_ok=True)
    _sweep(model_root, report)
    report.progress(f"reading {source}")
    with tempfile.TemporaryDirectory(dir=model_root, prefix=BUILDING) as folder:
        staged = stage(source, Path(folder))
        original = _existing(model_root, staged.files_sha256, "fp32")
        report_existing = original is not None
        original = original or _export(staged, task, model_root, report)
    report.artifact(original.digest, None, original.config().to_json(), existed=report_existing)
    for method in dict.fromkeys(methods):
        derived = _existing(model_root, staged.files_sha256, method)
        report_existing = derived is not None
        derived = derived or _derive(original, method, model_root, report)
        report.artifact(derived.digest, method, derived.config().to_json(), existed=report_existing)


def _sweep(model_root: Path, report: Reporter) -> None:
    """Remove what imports that were killed have left."""
    for folder in left_over(model_root):
        report.progress(f"removing {folder.name}, left by an import that did not end")
        shutil.rmtree(folder, ignore_errors=True)


def _existing(model_root: Path, files_sha256: str, storage: str) -> Artifact | None:
    """The artifact that an earlier import of the same files made."""
    for entry in sorted(model_root.iterdir()):
        if is_digest(entry.name):
            with contextlib.suppress(TuneError):
                artifact = Artifact(model_root, entry.name)
                config = artifact.config()
                made_from = (config.source.get("files_sha256"), config.source.get("exporter"), config.storage)
                if made_from == (files_sha256, EXPORTER, storage):
                    artifact.verify()
                    return artifact
    return None


def _export(source: Source, task: str, model_root: Path, report: Reporter) -> Artifact:
    report.progress("loading torch and the model")
    from pgml_tune.jobs.export import export_onnx
    from pgml_tune.jobs.model import load

    model = load(source)
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
        source={
            "name": source.name,
            "weights_sha256": source.weights_sha256,
            "files_sha256": source.files_sha256,
            "exporter": EXPORTER,
        },
    )
    with new_artifact(model_root) as folder:
        report.progress("exporting to ONNX")
        (folder / "tokenizer.json").write_text(model.tokenizer_json, encoding="utf-8")
        export_onnx(model.network, folder / GRAPH)
        report.progress("comparing with sentence-transformers")
        runner = Runner(folder, config, _threads())
        parity = check_export(
            runner,
            lambda texts: model.network.encode(texts, prompt="", batch_size=8),
            (model.prompt_passage, model.prompt_query),
        )
        return _publish(folder, config, runner, parity, model_root)


def _derive(original: Artifact, method: str, model_root: Path, report: Reporter) -> Artifact:
    from pgml_tune.jobs.quantize import quantize

    config = replace(original.config(), storage=method, metrics={})
    with new_artifact(model_root) as folder, _scratch():
        report.progress(f"quantizing: {method}")
        shutil.copyfile(original.path("tokenizer.json"), folder / "tokenizer.json")
        quantize(original.path(GRAPH), folder / GRAPH, method)
        report.progress(f"comparing {method} with fp32")
        runner = Runner(folder, config, _threads())
        prompts = (config.prompt_query, config.prompt_passage)
        parity = check_space(Runner(original.folder, config, _threads()), runner, prompts, method)
        return _publish(folder, config, runner, parity, model_root)


def _publish(
    folder: Path, config: ArtifactConfig, runner: Runner, parity: dict[str, object], model_root: Path
) -> Artifact:
    is_invariant, invariance = measure_invariance(runner)
    config = replace(config, is_batch_invariant=is_invariant, metrics=parity | invariance)
    content = json.dumps(config.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "config.json").write_text(content + "\n", encoding="utf-8")
    return publish(model_root, folder)


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Temporary files of the quantizer go to a folder that is removed."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="pgml-tune-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _threads() -> int:
    return len(os.sched_getaffinity(0))
