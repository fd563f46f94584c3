"""Measures the quality of an exported model of any task on rows, as it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.embedder import check_vectors
from pgml_tune.jobs.job import Rows
from pgml_tune.jobs.label_metrics import LabelMeasures, measure_labels
from pgml_tune.jobs.label_rows import LabelledTexts
from pgml_tune.jobs.parity import Vectors
from pgml_tune.jobs.quality import Embed, main_figure, measure_vectors
from pgml_tune.jobs.runner import Runner
from pgml_tune.records import ArtifactConfig

BATCH = 32


def measure_rows(runner: Runner, config: ArtifactConfig, rows: Rows, k: int = 10) -> tuple[dict[str, float], str]:
    """The figures of a model on rows, and the name of the one that matters most."""
    main = main_figure(rows.shape, k)
    if config.task == "classification":
        return measure_classifier(runner, config, rows).figures(), main
    return measure_vectors(embed_with(runner, config, BATCH), list(rows.read()), rows.shape, k), main


def measure_classifier(runner: Runner, config: ArtifactConfig, rows: Rows) -> LabelMeasures:
    """How well a classifier tells the labels of rows."""
    return measure_labels(runner, config, LabelledTexts.of(rows.read()))


def measure_artifact(
    artifact: Artifact, rows: Sequence[Sequence[Any]], shape: str, k: int, threads: int
) -> dict[str, float]:
    """The figures of an embedding model on rows."""
    config = artifact.config()
    runner = Runner(artifact.folder, config, threads)
    return measure_vectors(embed_with(runner, config, BATCH), rows, shape, k)


def embed_with(runner: Runner, config: ArtifactConfig, batch_size: int) -> Embed:
    """What makes vectors of texts as the engine does."""

    def embed(texts: Sequence[str], kind: str) -> Vectors:
        vectors = runner.embed_sorted([config.prompt(kind) + text for text in texts], batch_size)
        check_vectors(vectors)
        return vectors

    return embed
