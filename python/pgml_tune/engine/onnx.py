"""The ONNX Runtime engine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from pgml_tune.engine.artifact import WEIGHTS
from pgml_tune.engine.contract import TokenArray, VectorArray
from pgml_tune.engine.files import open_plain
from pgml_tune.errors import ArtifactDamaged

# On the CPU these two take longer than the operators they replace (13 % for fp32, 30 % for dynamic INT8).
_SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
_INPUTS, _TYPES = frozenset({"input_ids", "attention_mask"}), "token_type_ids"
OUTPUT = "sentence_embedding"
_FAILURES = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)


class OnnxRuntime:
    """An ONNX Runtime session on the CPU."""

    def __init__(self, model_file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait in a loop would take the cores from other backends.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        weights = model_file.with_name(WEIGHTS)
        if weights.exists():
            # Out of memory of our own: a mapped file that somebody overwrites would end the whole server.
            with os.fdopen(open_plain(weights), "rb") as file:
                content = file.read()
            options.add_external_initializers_from_files_in_memory([WEIGHTS], [content], [len(content)])
        try:
            self._session = onnxruntime.InferenceSession(
                str(model_file),
                sess_options=options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOW_FUSIONS,
            )
        except _FAILURES as error:
            raise ArtifactDamaged("ONNX Runtime cannot load the model", detail=str(error)) from None
        inputs = {entry.name: entry.type for entry in self._session.get_inputs()}
        outputs = {entry.name: entry.type for entry in self._session.get_outputs()}
        names_fit = _INPUTS <= set(inputs) <= {*_INPUTS, _TYPES}
        if not names_fit or set(inputs.values()) != {"tensor(int64)"} or outputs.get(OUTPUT) != "tensor(float)":
            raise ArtifactDamaged(
                "the model does not have the inputs and the output of a text encoder",
                detail=f"Inputs are {', '.join(sorted(_INPUTS))} and perhaps {_TYPES}, the output is {OUTPUT}.",
            )
        self._wants_types = _TYPES in inputs

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        feed = {"input_ids": token_ids, "attention_mask": attention_mask}
        if self._wants_types:
            feed[_TYPES] = np.zeros_like(token_ids)
        try:
            vectors: VectorArray = self._session.run([OUTPUT], feed)[0]
        except _FAILURES as error:
            raise ArtifactDamaged("ONNX Runtime cannot run the model", detail=str(error)) from None
        return vectors
