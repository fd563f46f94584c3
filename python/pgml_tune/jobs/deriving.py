"""Makes an artifact that computes the same as another one: smaller, otherwise exported, or for another engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import GRAPH, Artifact, new_artifact
from pgml_tune.engine.onnx import ENGINE
from pgml_tune.errors import NotReady
from pgml_tune.jobs.calibration import Calibration
from pgml_tune.jobs.checks import check_space
from pgml_tune.jobs.label_checks import check_probabilities
from pgml_tune.jobs.publishing import Site, publish_measured, scratch
from pgml_tune.jobs.runner import Runner
from pgml_tune.records import ArtifactConfig

Measure = Callable[[Path, Runner, Runner], Mapping[str, Any]]  # folder, original, derived; it may refuse


def derive(
    original: Artifact, config: ArtifactConfig, site: Site, write: Callable[[Path], None], measure: Measure
) -> Artifact:
    """Let `write` fill a folder, `measure` it against the original, and publish it with the figures."""
    with new_artifact(site.model_root, site.label) as folder, scratch():
        shutil.copyfile(original.path("tokenizer.json"), folder / "tokenizer.json")
        write(folder)
        site.report.progress("comparing with the original")
        runner = Runner(folder, config, site.threads)
        figures = measure(folder, Runner(original.folder, original.config(), site.threads), runner)
        return publish_measured(folder, config, runner, figures, site)


def quantize_artifact(
    original: Artifact,
    method: str,
    site: Site,
    *,
    rows: Calibration | None = None,
    made_by: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
) -> Artifact:
    """The artifact stored by a method; `measure` comes on top of the check that it stays in its space."""
    from pgml_tune.jobs.quantize import quantize

    config = derived_config(original.config(), method, made_by)

    def write(folder: Path) -> None:
        site.report.progress(f"quantizing: {method}")
        quantize(original.path(GRAPH), folder / GRAPH, method, rows)

    def check(folder: Path, base: Runner, derived: Runner) -> dict[str, Any]:
        figures = check_parity(base, derived, config, method)
        return {**figures, **(measure(folder, base, derived) if measure else {})}

    return derive(original, config, site, write, check)


def derived_config(original: ArtifactConfig, storage: str, made_by: Mapping[str, Any] | None) -> ArtifactConfig:
    """The configuration of what is derived, before anything of it was measured."""
    source = original.source if made_by is None else {**original.source, "made_by": dict(made_by)}
    return replace(original, storage=storage, metrics={}, source=source)


def check_parity(base: Runner, derived: Runner, config: ArtifactConfig, name: str) -> dict[str, Any]:
    """Refuse a derived file whose vectors or probabilities are not those of the original any more."""
    if config.labels:
        return check_probabilities(base, derived, config.prompt("passage"), name)
    return check_space(base, derived, (config.prompt_query, config.prompt_passage), name)


def require_original(config: ArtifactConfig, reference: str) -> None:
    """Refuse to derive from what is derived itself: the losses would add up, measured against the wrong one."""
    if config.storage == "fp32" and config.engine == ENGINE:
        return
    base = config.source.get("made_by", {}).get("base")
    raise NotReady(
        f'"{reference}" is not a version in full precision',
        detail=f"Its storage is {config.storage}, its engine {config.engine}.",
        hint=f"Start from {base}, which it was made from." if base else "Start from the version it was made from.",
    )
