"""The TensorRT engine as far as it goes without a GPU; what needs the vendor's libraries is skipped without them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgml_tune.engine import cuda, tensorrt
from pgml_tune.engine.cuda import Device
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, NotReady, NotSupported

HERE = {
    "library": "tensorrt",
    "library_version": "11.4",
    "device": "A",
    "compute_capability": "9.0",
    "driver": "13.0",
}
# Every name of the library that engine/tensorrt.py and jobs/plan.py use.
NAMES = """ILogger.log ILogger.Severity.ERROR ILogger.Severity.INTERNAL_ERROR Logger.ERROR MemoryPoolType.WORKSPACE
Builder.create_network Builder.create_builder_config Builder.create_optimization_profile
Builder.build_serialized_network
OnnxParser.parse_from_file OnnxParser.num_errors OnnxParser.get_error ParserError.desc
IBuilderConfig.set_memory_pool_limit IBuilderConfig.add_optimization_profile IBuilderConfig.create_timing_cache
IBuilderConfig.set_timing_cache IBuilderConfig.get_timing_cache ITimingCache.serialize IOptimizationProfile.set_shape
Runtime.deserialize_cuda_engine ICudaEngine.create_execution_context ICudaEngine.get_tensor_profile_shape
ICudaEngine.get_tensor_name ICudaEngine.num_io_tensors ICudaEngine.get_tensor_dtype IExecutionContext.set_input_shape
IExecutionContext.set_tensor_address IExecutionContext.get_tensor_shape IExecutionContext.execute_async_v3
int64 float32 __version__""".split()


def library(name: str) -> Any:
    try:
        return tensorrt.load_library(name)
    except NotSupported as error:
        pytest.skip(f"not installed: {name} ({error.detail})")


def has_gpu() -> bool:
    try:
        return bool(cuda.Driver())
    except NotSupported:
        return False


def test_a_plan_runs_where_it_was_built() -> None:
    tensorrt.check_identity(HERE, HERE)
    tensorrt.check_identity(HERE, HERE | {"driver": "13.1"})
    of_rtx = HERE | {"library": "tensorrt_rtx"}
    tensorrt.check_identity(of_rtx, of_rtx | {"device": "B"})


@pytest.mark.parametrize(
    "other",
    [{"library_version": "11.3.0"}, {"device": "B"}, {"compute_capability": "8.9"}, {"driver": "12.9"}],
    ids=str,
)
def test_a_plan_of_another_machine_is_refused(other: dict[str, str]) -> None:
    with pytest.raises(NotReady):
        tensorrt.check_identity(HERE, HERE | other)


@pytest.mark.parametrize("built", [None, "x", [], {}, {"library": "onnx"}, {"library": 5}], ids=str)
def test_a_plan_of_an_unknown_library_is_refused(tmp_path: Path, built: Any) -> None:
    with pytest.raises(ArtifactDamaged):
        tensorrt.TensorRtRuntime(tmp_path / "model.plan", built, "sentence_embedding")


def test_identity_names_library_and_device() -> None:
    found = tensorrt.identity(SimpleNamespace(__version__="11.4"), "tensorrt", Device("A", "9.0", "13.0"))
    assert found == HERE


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
@pytest.mark.parametrize("builder", ["auto", "tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_an_export_says_all_that_is_missing(builder: str) -> None:
    from pgml_tune.jobs.tensorrt import find_machine

    with pytest.raises(NotSupported) as missing:
        find_machine(builder)
    assert "NVIDIA" in missing.value.detail
    for name in tensorrt.PACKAGES if builder == "auto" else (builder,):
        if not (find_spec(name) or find_spec(f"{name}_bindings")):
            assert f'"{name}"' in missing.value.detail or builder == "auto"
    assert missing.value.hint


def test_the_engine_loads_neither_tensorrt_nor_a_training_library_by_itself() -> None:
    code = (
        "import sys, pgml_tune.engine.tensorrt; print(sorted({'torch', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_batch_is_enlarged_to_the_least_shape() -> None:
    import numpy as np

    ids = np.array([[5, 6, 7]], np.int64)
    assert tensorrt._enlarged(ids, (1, 3)).tolist() == [[5, 6, 7]]
    assert tensorrt._enlarged(ids, (2, 4)).tolist() == [[5, 6, 7, 0], [0, 0, 0, 0]]


def test_a_plan_shorter_than_the_model_is_refused() -> None:
    from pgml_tune.jobs.plan import Shapes
    from pgml_tune.jobs.tensorrt import _check_length

    shapes = Shapes.of({"min": [1, 8], "opt": [16, 64], "max": [64, 256]})
    assert (shapes.least, shapes.tuned, shapes.most) == ((1, 8), (16, 64), (64, 256))
    _check_length(SimpleNamespace(max_tokens=256), shapes)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        _check_length(SimpleNamespace(max_tokens=512), shapes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(tensorrt.PACKAGES))
def test_the_library_has_every_name_that_is_used(name: str) -> None:
    module = library(name)
    for path in NAMES:
        found = module
        for part in path.split("."):
            assert hasattr(found, part), path
            found = getattr(found, part)
    signatures = {
        "IOptimizationProfile.set_shape": ("input: str", "min:", "opt:", "max:"),
        "IBuilderConfig.set_timing_cache": ("cache:", "ignore_mismatch: bool"),
        "IExecutionContext.set_tensor_address": ("name: str", "memory:"),
        "IExecutionContext.execute_async_v3": ("stream_handle:",),
    }
    for path, arguments in signatures.items():
        owner, method = path.split(".")
        assert all(argument in getattr(getattr(module, owner), method).__doc__ for argument in arguments), path


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_tensorrt_rtx_builds_a_plan_for_a_gpu_that_is_elsewhere(tmp_path: Path) -> None:
    """Building needs no GPU where the generation of the GPU is named; only this test names one."""
    import job_folder

    from pgml_tune.engine.artifact import Artifact
    from pgml_tune.jobs.half import halve
    from pgml_tune.jobs.plan import Cache, Shapes, build_plan

    rtx = library("tensorrt_rtx")

    class Builder(rtx.Builder):  # type: ignore[misc]
        def create_builder_config(self) -> Any:
            config = super().create_builder_config()
            config.num_compute_capabilities = 1
            assert config.set_compute_capability(rtx.ComputeCapability.SM89, 0)
            return config

    ahead = SimpleNamespace(**(vars(rtx) | {"Builder": Builder}))
    artifact = Artifact(tmp_path / "m", job_folder.import_tiny(tmp_path / "m", tmp_path / "t"))
    (tmp_path / "half").mkdir()
    network = tmp_path / "half" / "model.onnx"
    halve(artifact.path("model.onnx"), network)
    shapes = Shapes((1, 8), (8, 16), (16, 48))
    cache = Cache.below(tmp_path / "m", HERE | {"library": "tensorrt_rtx"})
    first = build_plan(ahead, network, shapes, 1 << 28, cache, keeps_timings=True)
    again = build_plan(ahead, network, shapes, 1 << 28, cache, keeps_timings=True)
    other = build_plan(ahead, network, Shapes((1, 8), (8, 16), (32, 48)), 1 << 28, cache, keeps_timings=True)
    assert (first.was_cached, again.was_cached, other.was_cached) == (False, True, False)
    assert first.content == again.content
    network.write_bytes(b"garbage")
    with pytest.raises(NotSupported):
        build_plan(ahead, network, shapes, 1 << 28, cache, keeps_timings=True)
    if not has_gpu():
        runtime = importlib.import_module(rtx.__name__).Runtime(rtx.Logger(rtx.Logger.INTERNAL_ERROR))
        assert runtime.deserialize_cuda_engine(first.content) is None


@pytest.mark.parametrize(
    ("files", "is_sound"), [({"model.plan"}, True), ({"model.plan", "model.onnx"}, False), (set(), False)]
)
def test_an_artifact_holds_a_plan_or_a_graph(tmp_path: Path, files: set[str], is_sound: bool) -> None:
    import json

    from pgml_tune.engine.artifact import new_artifact, publish
    from tests.unit.test_records import CONFIG

    with new_artifact(tmp_path) as folder:
        for name, content in {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}"}.items():
            (folder / name).write_text(content)
        for name in files:
            (folder / name).write_bytes(b"x")
        if is_sound:
            assert set(publish(tmp_path, folder).files) == {"config.json", "tokenizer.json", *files}
        else:
            with pytest.raises(ArtifactDamaged):
                publish(tmp_path, folder)


def test_providers_are_those_that_are_reported(tmp_path: Path) -> None:
    from pgml_tune.engine.onnx import choose_providers

    def names(*available: str) -> list[str]:
        return [name for name, _ in choose_providers(available, tmp_path)]

    assert names("AzureExecutionProvider", "CPUExecutionProvider") == ["CPUExecutionProvider"]
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert names(*every) == every
    assert names(*every[1:]) == every[1:]
    options = dict(choose_providers(every, tmp_path))
    assert options["TensorrtExecutionProvider"]["trt_engine_cache_path"] == str(tmp_path)
    assert options["CUDAExecutionProvider"]["use_tf32"] == "0"
    assert options["CPUExecutionProvider"] == {}
