"""Only a graph with the inputs and the output of a text encoder is run."""

import onnxruntime
import pytest

from pgml_tune.engine.onnx import OnnxRuntime
from pgml_tune.errors import ArtifactDamaged

pytestmark = pytest.mark.train  # graphs are made with package onnx
INPUTS = {"input_ids": "INT64", "attention_mask": "INT64"}


def write_graph(file, inputs, output="sentence_embedding", to="FLOAT"):
    """A network whose output is its first input in another type."""
    from onnx import TensorProto, helper

    types = {name: TensorProto.DataType.Value(kind) for name, kind in inputs.items()}
    kind = TensorProto.DataType.Value(to)
    graph = helper.make_graph(
        [helper.make_node("Cast", [next(iter(inputs))], [output], to=kind)],
        "graph",
        [helper.make_tensor_value_info(name, value, None) for name, value in types.items()],
        [helper.make_tensor_value_info(output, kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())
    return file


def test_a_text_encoder_is_run(tmp_path):
    import numpy as np

    for inputs in (INPUTS, INPUTS | {"token_type_ids": "INT64"}):
        runtime = OnnxRuntime(write_graph(tmp_path / "model.onnx", inputs), 1)
        ids = np.array([[1, 2]], np.int64)
        assert runtime.run(ids, np.ones_like(ids)).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "graph",
    [
        {"inputs": {"ids": "INT64", "attention_mask": "INT64"}},
        {"inputs": {"input_ids": "INT64"}},
        {"inputs": INPUTS | {"more": "INT64"}},
        {"inputs": {"input_ids": "INT32", "attention_mask": "INT64"}},
        {"inputs": INPUTS, "output": "another"},
        {"inputs": INPUTS, "to": "DOUBLE"},
        {"inputs": INPUTS, "to": "STRING"},
        {"inputs": INPUTS, "to": "INT32"},
    ],
    ids=str,
)
def test_another_network_is_refused(tmp_path, graph):
    with pytest.raises(ArtifactDamaged):
        OnnxRuntime(write_graph(tmp_path / "model.onnx", **graph), 1)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x01" * 50])
def test_a_file_that_is_no_network_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactDamaged):
        OnnxRuntime(tmp_path / "model.onnx", 1)


@pytest.mark.parametrize("gpu", [["CUDAExecutionProvider"], []])
@pytest.mark.filterwarnings("ignore:Specified provider")  # the installed ONNX Runtime has none for a GPU
def test_the_libraries_of_a_gpu_are_loaded_where_one_is_used(tmp_path, monkeypatch, gpu):
    loaded = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*gpu, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append("all"))
    OnnxRuntime(write_graph(tmp_path / "model.onnx", INPUTS), 1)
    assert loaded == ["all"] * len(gpu)
