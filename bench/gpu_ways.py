"""The ways of running a network that are compared on a GPU, each opened by the engine that the worker has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_models import Subject

_CPU_BATCHES, _GPU_BATCHES = (32,), (32, 128)  # 32 is the setting batch_size; an administrator may allow more
_GPU_LANES = 2  # as many as the worker gives a GPU
_WORKSPACE_BYTES = 1 << 30
_SHAPES = {"min": [1, 8], "opt": [16, 64], "max": [64, 256]}  # the defaults of export_tensorrt()


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded network, and how many batches it is given at once."""

    runtime: Any
    lanes: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way under its name; opening it raises NotSupported or ImportError where the machine lacks something."""

    name: str
    open: Callable[[Subject, str], Opened]
    precision: str
    is_gpu: bool
    is_worker: bool  # whether the worker can run it; torch is here to compare with

    @property
    def batches(self) -> tuple[int, ...]:
        return _GPU_BATCHES if self.is_gpu else _CPU_BATCHES


class Torch:
    """torch behind the interface of the engines."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from pgml_tune.jobs.export import Graph

        dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
        network = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})
        self._torch, self._device = torch, device
        self._graph = Graph(network).eval()

    def run(self, token_ids: Any, attention_mask: Any) -> Any:
        torch = self._torch
        with torch.inference_mode():
            inputs = (torch.from_numpy(array).to(self._device) for array in (token_ids, attention_mask))
            return self._graph(*inputs).float().cpu().numpy()  # which waits for the GPU


def _open_torch_cpu(subject: Subject, precision: str) -> Opened:
    import torch

    from pgml_tune.jobs.job import available_threads

    torch.set_num_threads(available_threads())
    return Opened(Torch(subject.source, "cpu", precision), 1)


def _open_torch(subject: Subject, precision: str) -> Opened:
    from pgml_tune.jobs.device import choose_device

    return Opened(Torch(subject.source, choose_device("cuda", precision), precision), _GPU_LANES)


def _open_cpu(subject: Subject, precision: str) -> Opened:
    from pgml_tune.jobs.job import available_threads

    return _open_onnx(subject, "onnxruntime", precision, available_threads())


def _open_cuda(subject: Subject, precision: str) -> Opened:
    return _open_on_gpu(subject, "cuda", precision)


def _open_tensorrt(subject: Subject, precision: str) -> Opened:
    return _open_on_gpu(subject, "tensorrt", precision)


def _open_on_gpu(subject: Subject, provider: str, precision: str) -> Opened:
    import onnxruntime

    from pgml_tune.engine.machine import has_gpu
    from pgml_tune.engine.onnx import behind
    from pgml_tune.errors import NotSupported

    behind(provider, onnxruntime.get_available_providers())  # before the network is written in 16 bits
    if not has_gpu():
        raise NotSupported("there is no NVIDIA GPU on this machine")
    return _open_onnx(subject, provider, precision, _GPU_LANES)


def _open_onnx(subject: Subject, engine: str, precision: str, lanes: int) -> Opened:
    from pgml_tune.engine.encoder import open_runtime
    from pgml_tune.engine.way import Way

    config, folder = _network(subject, precision)
    return Opened(open_runtime(config, folder, 1, Way.of(engine, 1, lanes, max(_GPU_BATCHES))), lanes)


def _open_plan(subject: Subject, precision: str) -> Opened:
    """What `export_tensorrt()` makes, without its comparison of neighbours: random weights would not pass it."""
    from pgml_tune.engine import tensorrt
    from pgml_tune.engine.artifact import GRAPH, PLAN
    from pgml_tune.engine.encoder import open_runtime
    from pgml_tune.errors import NotSupported
    from pgml_tune.jobs.plan import Cache, Shapes, build_plan
    from pgml_tune.jobs.tensorrt import find_machine

    _, library, bound_to = find_machine("auto")
    config, network = _network(subject, precision)
    cache = Cache.below(subject.model_root, bound_to)
    shapes = Shapes.of(_SHAPES)
    try:
        plan = build_plan(library, network / GRAPH, shapes, _WORKSPACE_BYTES, cache, keeps_timings=True)
    except NotSupported as error:  # all is there, so this is no lack of the machine
        raise RuntimeError(f"{error.message}: {error.detail}") from None
    config = replace(config, engine=tensorrt.ENGINE, source={**config.source, "tensorrt": bound_to})
    with tempfile.TemporaryDirectory(dir=subject.model_root) as folder:
        Path(folder, PLAN).write_bytes(plan.content)
        return Opened(open_runtime(config, Path(folder), 1), _GPU_LANES)


def _network(subject: Subject, precision: str) -> tuple[Any, Path]:
    """The configuration of the model and the folder of its network, as it was exported or in 16 bits."""
    from pgml_tune.engine.artifact import GRAPH, Artifact

    artifact = Artifact(subject.model_root, subject.digest)
    artifact.verify()
    if precision == "fp32":
        return artifact.config(), artifact.folder
    from pgml_tune.jobs.half import halve

    folder = subject.model_root / f"half-{subject.digest}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=subject.model_root) as unfinished:
            half = Path(unfinished, "half")
            half.mkdir()
            halve(artifact.path(GRAPH), half / GRAPH)
            half.rename(folder)
    return replace(artifact.config(), storage="fp16"), folder


WAYS = (
    Contestant("ONNX Runtime, CPU, fp32", _open_cpu, "fp32", False, True),
    Contestant("torch, CPU, fp32", _open_torch_cpu, "fp32", False, False),
    Contestant("torch, CUDA, fp32", _open_torch, "fp32", True, False),
    Contestant("torch, CUDA, fp16", _open_torch, "fp16", True, False),
    Contestant("ONNX Runtime, CUDA, fp32", _open_cuda, "fp32", True, True),
    Contestant("ONNX Runtime, CUDA, fp16", _open_cuda, "fp16", True, True),
    Contestant("ONNX Runtime, TensorRT, fp32", _open_tensorrt, "fp32", True, True),
    Contestant("ONNX Runtime, TensorRT, fp16", _open_tensorrt, "fp16", True, True),
    Contestant("plan of export_tensorrt, fp32", _open_plan, "fp32", True, True),
    Contestant("plan of export_tensorrt, fp16", _open_plan, "fp16", True, True),
)


def device_name() -> str:
    """The GPU, as its driver calls it, or that there is none."""
    from pgml_tune.engine.cuda import Driver
    from pgml_tune.errors import TuneError

    try:
        device = Driver().device()
    except TuneError as error:
        return f"no GPU ({error.message})"
    return f"{device.name} (compute capability {device.compute_capability}, CUDA {device.driver})"
