"""The OpenVINO engine: runs the ONNX file of a version on the CPU, in fp32 or bf16; optional, never in a backend."""

from __future__ import annotations

import importlib
import os
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pgml_tune.engine.artifact import WEIGHTS
from pgml_tune.engine.contract import TYPES, TokenArray, VectorArray, check_graph
from pgml_tune.engine.files import open_plain
from pgml_tune.engine.way import BF16, FP32, Way
from pgml_tune.errors import ArtifactDamaged, NotSupported

_REPORTER = "openvino_telemetry"  # which importing the library would call
_PRECISIONS = {FP32: "f32", BF16: "bf16"}


def load_library() -> Any:
    """The module of the library; what reports its use to its maker, if it is installed, is kept from being loaded."""
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries
        raise NotSupported(
            'Python package "openvino" cannot be loaded', detail=f"{error}.", hint="make install-openvino"
        ) from None


class OpenVinoRuntime:
    """A network on the CPU, with as many requests as batches are computed at once; one more waits."""

    def __init__(self, model_file: Path, way: Way, output: str) -> None:
        library = load_library()
        core = library.Core()
        # Weights in memory of our own, and nothing kept on disk: a mapped file that is cut would end the process.
        core.set_property({"ENABLE_MMAP": False, "CACHE_DIR": ""})
        for file in (model_file, model_file.with_name(WEIGHTS)):
            if file == model_file or file.exists():
                os.close(open_plain(file))
        options = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[way.precision],
            "INFERENCE_NUM_THREADS": way.threads * way.lanes,
            "NUM_STREAMS": way.lanes,
            "ENABLE_CPU_PINNING": False,  # the cores are those of the server, too
        }
        try:
            network = core.compile_model(core.read_model(str(model_file)), "CPU", options)
        except RuntimeError as error:
            raise ArtifactDamaged("OpenVINO cannot load the model", detail=_first_line(error)) from None
        inputs = {entry.any_name: entry.element_type.get_type_name() for entry in network.inputs}
        outputs = {entry.any_name for entry in network.outputs}
        check_graph(inputs, output, is_typed=set(inputs.values()) == {"i64"} and output in outputs)
        self._wants_types = TYPES in inputs
        self._output = network.output(output)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(way.lanes):
            self._free.put(network.create_infer_request())

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        feed = {"input_ids": token_ids, "attention_mask": attention_mask}
        if self._wants_types:
            feed[TYPES] = np.zeros_like(token_ids)
        request = self._free.get()
        try:
            request.infer(feed, share_inputs=True)
            # The next batch is written over what is returned.
            return np.array(request.get_tensor(self._output).data, np.float32)
        except RuntimeError as error:
            raise ArtifactDamaged("OpenVINO cannot run the model", detail=_first_line(error)) from None
        finally:
            self._free.put(request)


def _first_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
