"""Makes smaller files out of an exported one: 8-bit weights, or 16-bit floating point."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from pgml_tune.errors import InvalidArgument, NotSupported, TuneError
from pgml_tune.jobs import calibration, half
from pgml_tune.jobs.calibration import Calibration, CalibrationReader
from pgml_tune.jobs.onnx_file import load, save

_BLOCK = 32
_INT8_ACTIVATIONS = 4  # "accuracy level" of MatMulNBits: activations are rounded per block too
_MULTIPLIED = ("MatMul", "Gemm")  # attention multiplies two activations: it stays in fp32
_SMALLEST_TABLE = 1 << 16  # elements; below, 8 bits save nothing worth a node


def _int8_dynamic(original: Path, file: Path, _: Calibration | None) -> None:
    quantize_dynamic(
        load(original),
        str(file),
        op_types_to_quantize=[*_MULTIPLIED, "Gather"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    save(onnx.load(str(file)), file)


def _int8_static(original: Path, file: Path, rows: Calibration | None) -> None:
    if rows is None or not rows.token_ids:
        raise InvalidArgument(
            "int8_static needs texts to calibrate on",
            hint="Pass a query of one column: calibration_query => 'SELECT body FROM documents LIMIT 1000'.",
        )
    quantize_static(
        load(original),
        str(file),
        CalibrationReader(rows),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_MULTIPLIED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=calibration.METHODS[rows.method],
        use_external_data_format=True,
        # What goes into a product is rounded; rounding what comes out too costs 5 points of cosine and gains no time.
        extra_options={"CalibStridedMinMax": 1, "OpTypesToExcludeOutputQuantization": list(_MULTIPLIED)},
    )
    model = onnx.load(str(file))
    _quantize_tables(model.graph)
    save(model, file)


def _int8_block(original: Path, file: Path, _: Calibration | None) -> None:
    config = DefaultWeightOnlyQuantConfig(
        bits=8, block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_ACTIVATIONS, op_types_to_quantize=("MatMul",)
    )
    quantizer = MatMulNBitsQuantizer(load(original), algo_config=config)
    quantizer.process()
    model = quantizer.model.model
    _quantize_tables(model.graph)
    save(model, file)


def _quantize_tables(graph: onnx.GraphProto) -> None:
    """Store embedding tables as 8-bit rows with a scale each; what a lookup returns is scaled back."""
    tables = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if table is None or axis != 0 or not _is_worth_it(table) or _users(graph, table.name) != 1:
            nodes.append(node)
            continue
        rows = numpy_helper.to_array(table)
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
        name, lookup = table.name, node.output[0]
        table.CopyFrom(numpy_helper.from_array(np.rint(rows / scales).astype(np.int8), name))
        graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scale"))
        nodes += [
            helper.make_node("Gather", [name, node.input[1]], [f"{lookup}_rows"], f"{node.name}_rows"),
            helper.make_node("Gather", [f"{name}_scale", node.input[1]], [f"{lookup}_scale"], f"{node.name}_scale"),
            helper.make_node(
                "Cast", [f"{lookup}_rows"], [f"{lookup}_float"], f"{node.name}_float", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{lookup}_float", f"{lookup}_scale"], [lookup], f"{node.name}_scaled"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_worth_it(table: onnx.TensorProto) -> bool:
    return bool(table.data_type == onnx.TensorProto.FLOAT and table.dims[0] * table.dims[1] >= _SMALLEST_TABLE)


def _users(graph: onnx.GraphProto, name: str) -> int:
    return sum(name in node.input for node in graph.node)


def _fp16(original: Path, file: Path, _: Calibration | None) -> None:
    half.halve(original, file)


METHODS: dict[str, Callable[[Path, Path, Calibration | None], None]] = {
    "int8_dynamic": _int8_dynamic,
    "int8_static": _int8_static,
    "int8_block": _int8_block,
    "fp16": _fp16,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library tells of each operator and of each batch out of the job's log."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantize(original: Path, file: Path, method: str, rows: Calibration | None = None) -> None:
    """Write the smaller form of an exported model; `rows` is what int8_static calibrates on."""
    try:
        with _quiet():
            METHODS[method](original, file, rows)
    except TuneError:
        raise
    except Exception as error:  # the quantizer raises what an unusual graph makes it raise
        raise NotSupported(
            f"the model cannot be quantized by {method}", detail=f"{type(error).__name__}: {error}"
        ) from error
