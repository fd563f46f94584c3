"""Reads and writes an ONNX network as the graph and its weights."""

from __future__ import annotations

from pathlib import Path

import onnx

from pgml_tune.engine.artifact import WEIGHTS

_SMALLEST = 1024  # bytes; smaller tensors stay in the graph


def load(file: Path) -> onnx.ModelProto:
    """The network without what the exporter says of its weights' shapes: whoever rewrites weights forgets that."""
    model = onnx.load(str(file))
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return model


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
