"""The TensorRT engine: runs a plan that was built for this GPU, by TensorRT or by TensorRT-RTX.

Both libraries have one API here; neither is imported before a plan is loaded, and no training library ever is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgml_tune.engine.contract import TokenArray, VectorArray
from pgml_tune.engine.cuda import Device, Driver
from pgml_tune.engine.files import open_plain
from pgml_tune.errors import ArtifactDamaged, NotReady, NotSupported, OutOfMemory, SystemFault

ENGINE = "tensorrt"
PACKAGES = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx"}  # by library, what to install
IDS, MASK = "input_ids", "attention_mask"


def load_library(name: str) -> Any:
    """The module of a library, whose wheels may also come as bindings alone."""
    reasons = []
    for module in (name, f"{name}_bindings"):
        try:
            return importlib.import_module(module)
        except (ImportError, OSError) as error:  # OSError: one of its shared libraries
            reasons.append(f"{error}")
    raise NotSupported(
        f'Python package "{name}" cannot be loaded',
        detail="; ".join(dict.fromkeys(reasons)) + ".",
        hint=f"Install it into the environment of pgml_tune: pip install {PACKAGES[name]}",
    )


def identity(library: Any, name: str, device: Device) -> dict[str, str]:
    """What a plan is bound to."""
    return {"library": name, "library_version": str(library.__version__), **device.to_json()}


def check_identity(built: Mapping[str, Any], here: Mapping[str, str]) -> None:
    """Refuse a plan of another library version or device, or one that a newer driver built."""
    # A plan of TensorRT-RTX is compiled to the end where it runs: the generation of the device is what counts.
    bound = ["library_version", "compute_capability"] + (["device"] if here["library"] == "tensorrt" else [])
    others = [name for name in bound if built.get(name) != here[name]]
    if _version(here["driver"]) < _version(str(built.get("driver", ""))):
        others.append("driver")
    if others:
        differences = ", ".join(f"{name} is {here[name]}, it was {built.get(name)}" for name in others)
        raise NotReady(
            "the TensorRT plan of the model was built on another machine or by another version",
            detail=f"Here {differences}.",
            hint="Build it here: CALL export_tensorrt(...) with the version it was made from.",
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


class TensorRtRuntime:
    """A plan on the first GPU, with one stream and buffers that are kept."""

    def __init__(self, plan: Path, built: Any, output: str) -> None:
        name = built.get("library") if isinstance(built, Mapping) else None
        if name not in PACKAGES:
            raise ArtifactDamaged("the configuration of the model does not say which library built its plan")
        library = load_library(name)
        self._driver = Driver()
        check_identity(built, identity(library, name, self._driver.device()))
        with os.fdopen(open_plain(plan), "rb") as file:
            content = file.read()
        self._logger = library.Logger(library.Logger.ERROR)
        self._library_runtime = library.Runtime(self._logger)
        self._engine = self._library_runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise ArtifactDamaged("TensorRT cannot load the plan of the model")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise OutOfMemory("the GPU has too little free memory", detail="TensorRT could make no execution context.")
        self._check_tensors(library, output)
        self._output = output
        least, _, most = self._engine.get_tensor_profile_shape(IDS, 0)
        self._least, self._most = tuple(least), tuple(most)
        self._stream = self._driver.stream()
        self._lock = threading.Lock()

    def _check_tensors(self, library: Any, output: str) -> None:
        engine = self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        types = {name: engine.get_tensor_dtype(name) for name in found}
        wanted = {IDS: library.int64, MASK: library.int64, output: library.float32}
        if types != wanted:
            raise ArtifactDamaged(
                "the plan does not have the inputs and the output of a text encoder",
                detail=f"It has {', '.join(sorted(found))}.",
            )

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        step = self._most[0]
        with self._lock:  # one context, one stream and its buffers, whichever thread asks
            self._driver.use()
            parts = [
                self._run(token_ids[start : start + step], attention_mask[start : start + step])
                for start in range(0, len(token_ids), step)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        rows, tokens = token_ids.shape
        if tokens > self._most[1]:
            raise NotSupported(f"the plan takes {self._most[1]} tokens, the text has {tokens}")
        shape = (max(rows, self._least[0]), max(tokens, self._least[1]))
        inputs = {IDS: _enlarged(token_ids, shape), MASK: _enlarged(attention_mask, shape)}
        for name, array in inputs.items():
            if not self._context.set_input_shape(name, shape):
                raise SystemFault("TensorRT refuses the shape of a batch", detail=f"{name} is {shape}.")
            self._context.set_tensor_address(name, self._stream.upload(name, array))
        found = np.empty(tuple(self._context.get_tensor_shape(self._output)), np.float32)
        self._context.set_tensor_address(self._output, self._stream.buffer(self._output, found.nbytes))
        if not self._context.execute_async_v3(self._stream.handle):
            raise SystemFault("TensorRT cannot run the plan of the model")
        self._stream.download(self._output, found)
        self._stream.wait()
        return found[:rows]

    def __del__(self) -> None:
        # At the end of the process the driver may be gone already, and all memory with it.
        if hasattr(self, "_stream"):
            with contextlib.suppress(SystemFault):
                self._stream.close()


def _enlarged(array: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """The array with padding to the least shape that the plan takes; 0 is no token where the mask is 0."""
    if array.shape == shape:
        return np.ascontiguousarray(array)
    larger = np.zeros(shape, np.int64)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger
