"""The ONNX Runtime engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from pgml_tune.engine.artifact import PLANS, WEIGHTS
from pgml_tune.engine.contract import OUTPUTS, TYPES, TokenArray, VectorArray, check_graph
from pgml_tune.engine.files import open_plain
from pgml_tune.engine.way import CPU as ON_CPU
from pgml_tune.engine.way import CUDA, TENSORRT
from pgml_tune.errors import ArtifactDamaged, NotSupported

# On the CPU these two take longer than the operators they replace (13 % for fp32, 30 % for dynamic INT8).
SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
CPU = "CPUExecutionProvider"
PROVIDERS = {TENSORRT: "TensorrtExecutionProvider", CUDA: "CUDAExecutionProvider", ON_CPU: CPU}  # the fastest first
ENGINE = "onnxruntime"
OUTPUT = OUTPUTS["embedding"]
_FAILURES = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)


def choose_providers(available: Sequence[str], cache: Path) -> list[tuple[str, dict[str, str]]]:
    """Where the network runs: on what an ONNX Runtime for GPUs reports, each falling back on the next."""
    kept = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    known = {
        "TensorrtExecutionProvider": kept,
        "CUDAExecutionProvider": {"use_tf32": "0"},  # 10 bits of a factor: not the vectors that a version stands for
        CPU: {},
    }
    return [(name, options) for name, options in known.items() if name in available]


def behind(provider: str | None, available: Sequence[str]) -> list[str]:
    """Of the providers that are there this one and those that it falls back on; all of them for None."""
    names = list(PROVIDERS.values())
    wanted = names[0 if provider is None else list(PROVIDERS).index(provider) :]
    if provider is not None and PROVIDERS[provider] not in available:
        raise NotSupported(
            f"the installed ONNX Runtime has no {PROVIDERS[provider]}",
            detail=f"It has {', '.join(available)}.",
            hint="Install onnxruntime-gpu in place of onnxruntime.",
        )
    return [name for name in wanted if name in available]


class OnnxRuntime:
    """An ONNX Runtime session on the CPU, or on a GPU where the installed ONNX Runtime is one for GPUs."""

    def __init__(self, model_file: Path, threads: int, output: str = OUTPUT, provider: str | None = None) -> None:
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
        # The artifact's folder is never written to; plans that are made on the way lie beside all artifacts.
        available = behind(provider, onnxruntime.get_available_providers())
        providers = choose_providers(available, model_file.parent.with_name(PLANS))
        if providers[0][0] != CPU:
            onnxruntime.preload_dlls()  # those of CUDA that pip has installed lie where no loader looks
        try:
            self._session = onnxruntime.InferenceSession(
                str(model_file),
                sess_options=options,
                providers=providers,
                disabled_optimizers=SLOW_FUSIONS if providers[0][0] == CPU else None,
            )
        except _FAILURES as error:
            raise ArtifactDamaged("ONNX Runtime cannot load the model", detail=str(error)) from None
        if provider is not None and self._session.get_providers()[0] != PROVIDERS[provider]:
            raise NotSupported(
                f"ONNX Runtime has no device for {PROVIDERS[provider]}",
                detail=f"It would compute with {self._session.get_providers()[0]}.",
            )
        inputs = {entry.name: entry.type for entry in self._session.get_inputs()}
        outputs = {entry.name: entry.type for entry in self._session.get_outputs()}
        is_typed = set(inputs.values()) == {"tensor(int64)"} and outputs.get(output) == "tensor(float)"
        check_graph(inputs, output, is_typed=is_typed)
        self._wants_types = TYPES in inputs
        self._output = output

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        feed = {"input_ids": token_ids, "attention_mask": attention_mask}
        if self._wants_types:
            feed[TYPES] = np.zeros_like(token_ids)
        try:
            vectors: VectorArray = self._session.run([self._output], feed)[0]
        except _FAILURES as error:
            raise ArtifactDamaged("ONNX Runtime cannot run the model", detail=str(error)) from None
        return vectors
