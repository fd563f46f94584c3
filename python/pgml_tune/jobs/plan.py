"""Builds a plan of TensorRT or TensorRT-RTX out of an ONNX file; the two libraries have one API.

Networks are strongly typed: what is computed in 16 bits is what the file says, no flag of the builder's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import PLANS, WEIGHTS
from pgml_tune.engine.files import explained, hash_file, read_plain, written_aside
from pgml_tune.engine.tensorrt import IDS, MASK
from pgml_tune.errors import ArtifactDamaged, NotSupported

_MAX_CACHE_BYTES = 4 << 30
_WITHOUT_TIMINGS = "tensorrt_rtx"  # picks its kernels when it runs


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes [texts, tokens] of batches that a plan takes, and the one that it is tuned for."""

    least: tuple[int, int]
    tuned: tuple[int, int]
    most: tuple[int, int]

    @classmethod
    def of(cls, option: Mapping[str, Any]) -> Shapes:
        least, tuned, most = ((int(option[name][0]), int(option[name][1])) for name in ("min", "opt", "max"))
        return cls(least, tuned, most)


@dataclass(frozen=True, slots=True)
class Cache:
    """What building keeps below the model root: whole plans by what they are made of, and timings of kernels."""

    folder: Path
    bound_to: Mapping[str, str]  # library, its version, device

    @classmethod
    def below(cls, model_root: Path, bound_to: Mapping[str, str]) -> Cache:
        folder = model_root / PLANS
        with explained(model_root):
            folder.mkdir(mode=0o755, exist_ok=True)
        return cls(folder, bound_to)

    def plan(self, onnx_file: Path, shapes: Shapes, workspace_bytes: int) -> Path:
        """Where the plan of this network with these settings lies, if it has been built."""
        files = [hash_file(file) for file in (onnx_file, onnx_file.with_name(WEIGHTS)) if file.exists()]
        made_of = [files, shapes.least, shapes.tuned, shapes.most, workspace_bytes, sorted(self.bound_to.items())]
        return self.folder / f"{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()}.plan"

    def timings(self) -> Path:
        """Where the timings of this library on this device lie."""
        name = hashlib.sha256(json.dumps(sorted(self.bound_to.items())).encode()).hexdigest()
        return self.folder / f"{name}.timings"

    def read(self, path: Path) -> bytes:
        """What was kept, or nothing."""
        try:
            return read_plain(path, _MAX_CACHE_BYTES)
        except ArtifactDamaged:
            return b""

    def write(self, path: Path, content: bytes) -> None:
        with explained(self.folder), written_aside(self.folder, content) as file:
            file.rename(path)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan, and what it took to build it."""

    content: bytes
    seconds: float
    was_cached: bool


def build_plan(
    library: Any, onnx_file: Path, shapes: Shapes, workspace_bytes: int, cache: Cache, *, keeps_timings: bool
) -> Plan:
    """The plan of an ONNX file for the device that is there."""
    path = cache.plan(onnx_file, shapes, workspace_bytes)
    if content := cache.read(path):
        return Plan(content, 0.0, was_cached=True)
    started = time.perf_counter()
    log: list[str] = []
    logger = _logger(library, log.append)  # the library keeps one for all it makes
    builder = library.Builder(logger)
    network = builder.create_network()
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise NotSupported("TensorRT cannot read the network", detail="; ".join(reasons)[:2000])
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    profile = builder.create_optimization_profile()
    for name in (IDS, MASK):
        profile.set_shape(name, shapes.least, shapes.tuned, shapes.most)
    config.add_optimization_profile(profile)
    keeps_timings = keeps_timings and cache.bound_to["library"] != _WITHOUT_TIMINGS
    if keeps_timings:
        config.set_timing_cache(config.create_timing_cache(cache.read(cache.timings())), False)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise NotSupported("TensorRT cannot build a plan of the network", detail="; ".join(log)[-2000:])
    content = bytes(built)
    if keeps_timings:
        cache.write(cache.timings(), bytes(config.get_timing_cache().serialize()))
    cache.write(path, content)
    return Plan(content, time.perf_counter() - started, was_cached=False)


def _logger(library: Any, keep: Callable[[str], None]) -> Any:
    """Keeps what the library complains of: it returns no more than that it has failed."""

    class Kept(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.INTERNAL_ERROR, library.ILogger.Severity.ERROR):
                keep(message)

    return Kept()
