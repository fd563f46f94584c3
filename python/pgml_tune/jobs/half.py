"""Stores an exported network in 16-bit floating point; its input and output stay as they are."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from pgml_tune.jobs.onnx_file import load, save

# Pooling and normalising add up squares of many numbers and divide by ones near 1e-12: beyond 16 bits either way.
_IN_FULL = ("Clip", "Div", "Pow", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Sqrt")
_FULL, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def halve(original: Path, file: Path) -> None:
    """Write the network with weights and most operators in 16 bits."""
    model = load(original)
    own = {node.name for node in model.graph.node}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line for each weight that is rounded to zero
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_FULL])
    _drop_round_trips(model.graph, own)
    OnnxModel(model).topological_sort()
    save(model, file)


def _drop_round_trips(graph: onnx.GraphProto, own: set[str]) -> None:
    """Let operators that stay in 32 bits pass their numbers on as they are, not through 16 bits.

    Only casts of the converter's go: one of the network's own may start from integers.
    """
    nodes = list({tuple(node.output): node for node in graph.node}.values())  # the converter repeats casts
    halved = {node.output[0]: node.input[0] for node in nodes if _casts_to(node, _HALF) and node.name not in own}
    outputs = {value.name for value in graph.output}
    same = {}
    for node in nodes:
        if _casts_to(node, _FULL) and node.input[0] in halved:
            before, after = halved[node.input[0]], node.output[0]
            same.update({before: after} if after in outputs else {after: before})
    kept = [node for node in nodes if not (_casts_to(node, _FULL) and node.input[0] in halved)]
    for node in kept:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = _followed(same, name)
    used = outputs.union(*(node.input for node in kept))
    kept = [node for node in kept if not _casts_to(node, _HALF) or node.name in own or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)


def _followed(same: dict[str, str], name: str) -> str:
    while name in same:
        name = same[name]
    return name


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return bool(node.op_type == "Cast" and any(entry.name == "to" and entry.i == kind for entry in node.attribute))
