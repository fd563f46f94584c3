"""Writes a loaded model as one ONNX graph: network, pooling, dense layers and normalisation."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from pgml_tune.engine.onnx import OUTPUT, OnnxRuntime
from pgml_tune.errors import NotSupported
from pgml_tune.jobs.onnx_file import save

# 23 has an Attention operator, which ONNX Runtime executes as one step; but its rotary embedding, as the exporter
# writes it, does not run there.
_OPSETS = (23, 20)


class Graph(torch.nn.Module):  # type: ignore[misc]
    """All modules of a sentence-transformers model as one function of token ids and mask."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(list(network))
        self.dimensions = network.truncate_dim

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for step in self.steps:
            features = step(features)
        return features[OUTPUT][:, : self.dimensions] if self.dimensions else features[OUTPUT]


def export_onnx(network: Any, file: Path, output: str = OUTPUT, opset: int | None = None) -> int:
    """Export with batch and length left open, and without the paths and stack traces the exporter leaves behind.

    The result is the opset: the one asked for, or the best that the engine runs.
    """
    for candidate in _OPSETS if opset is None else (opset,):
        _export(network, file, candidate, output)
        _check_opset(file, candidate)
        if _runs(file, output):
            _strip(file)
            return candidate
    raise NotSupported(
        "ONNX Runtime cannot run the exported network",
        detail=f"ONNX Runtime is {onnxruntime.__version__}, the opset {opset or _OPSETS[-1]}.",
        hint="Leave the option opset out: then the best that runs is taken." if opset else "",
    )


def _export(network: Any, file: Path, opset: int, output: str) -> None:
    token_ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    axes = {0: "batch", 1: "tokens"}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # It misses torchvision each time.
            logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
            program = torch.onnx.export(
                Graph(network).eval(),
                (token_ids, mask),
                dynamo=True,
                opset_version=opset,
                input_names=["input_ids", "attention_mask"],
                output_names=[output],
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                verbose=False,
            )
            program.save(str(file), external_data=True)
    except Exception as error:  # the exporter raises what the network's own code makes it raise
        raise NotSupported(
            "the network cannot be exported to ONNX", detail=f"{type(error).__name__}: {error}"
        ) from error


def _check_opset(file: Path, asked: int) -> None:
    """Refuse what the exporter could not bring to the opset: it says so in its log only, and writes another."""
    imports = onnx.load(str(file), load_external_data=False).opset_import
    written = next(entry.version for entry in imports if entry.domain == "")
    if written != asked:
        raise NotSupported(
            f"the network cannot be exported with opset {asked}",
            detail=f"Its operators need opset {written}.",
            hint=f'Ask for it: {{"opset": {written}}}, or leave the option out for the best that runs.',
        )


def _runs(file: Path, output: str) -> bool:
    """Whether the engine can run the file, on another shape than it was exported with."""
    try:
        OnnxRuntime(file, 1, output).run(np.full((3, 4), 5), np.ones((3, 4), np.int64))
    except Exception:  # ONNX Runtime has a dozen unrelated classes
        return False
    return True


def _strip(file: Path) -> None:
    model = onnx.load(str(file))
    for holder in (model, model.graph, *model.functions):
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.ClearField("doc_string")
    save(model, file)
