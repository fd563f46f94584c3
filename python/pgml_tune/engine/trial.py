"""Tries out an artifact of any task before it is trusted."""

from __future__ import annotations

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.classifier import Classifier
from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.encoder import Encoder
from pgml_tune.engine.generator import Generator, open_generator

_ENCODERS: tuple[type[Encoder], ...] = (Embedder, Classifier)


def try_out(artifact: Artifact) -> None:
    """Load the model and compute with it; what fails now would fail in every call."""
    task = artifact.config().task
    if task == Generator.task:
        open_generator(artifact, 1).try_out()
    else:
        next(encoder for encoder in _ENCODERS if encoder.task == task)(artifact, threads=1).try_out()
