"""Writes an ONNX network as the graph and its weights."""

from __future__ import annotations

from pathlib import Path

import onnx

from pgml_tune.engine.artifact import WEIGHTS

_SMALLEST = 1024  # bytes; smaller tensors stay in the graph


def save(model: onnx.ModelProto, file: Path) -> None:
    """Write the graph to `file` and its weights beside it, because a graph with weights ends at 2 GiB."""
    weights = file.with_name(WEIGHTS)
    weights.unlink(missing_ok=True)  # the library would append
    onnx.save_model(
        model,
        str(file),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=weights.name,
        size_threshold=_SMALLEST,
    )
