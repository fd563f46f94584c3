"""Which files of a model folder are let in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pgml_tune.errors import TuneError
from pgml_tune.jobs.source import stage

_TENSORS = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
_WEIGHTS = len(_TENSORS).to_bytes(8, "little") + _TENSORS + bytes(4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(_WEIGHTS)
    return folder


def refusal(source: Path | str, tmp_path: Path) -> str:
    target = tmp_path / "staged"
    target.mkdir()
    with pytest.raises(TuneError) as caught:
        stage(str(source), target)
    return caught.value.sqlstate


def test_stage_copies_only_allowed_files(model: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("text")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    target = tmp_path / "staged"
    target.mkdir()
    stage(str(model), target)
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {"modules.json", "config.json", "1_Pooling/config.json", "model.safetensors"}


def test_stage_names_weights_by_their_content(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "staged"
    target.mkdir()
    line = f"{hashlib.sha256(_WEIGHTS).hexdigest()}  model.safetensors\n"
    assert stage(str(model), target).weights_sha256 == hashlib.sha256(line.encode()).hexdigest()


def test_stage_refuses_a_missing_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing", tmp_path) == "42704"


def test_stage_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", tmp_path) == "22023"


def test_stage_refuses_weights_in_pickle_only(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert refusal(model, tmp_path) == "0A000"


def test_stage_refuses_a_model_without_weights(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    assert refusal(model, tmp_path) == "22023"


def test_stage_refuses_code_files(model: Path, tmp_path: Path) -> None:
    (model / "modeling_custom.py").write_text("raise SystemExit")
    assert refusal(model, tmp_path) == "0A000"


def test_stage_refuses_a_configuration_that_names_code(model: Path, tmp_path: Path) -> None:
    (model / "config.json").write_text('{"auto_map": {"AutoModel": "org/code--modeling.Custom"}}')
    assert refusal(model, tmp_path) == "0A000"


@pytest.mark.parametrize("kind", ["os.system", "sentence_transformers.models.WordEmbeddings", "custom.Pooling"])
def test_stage_refuses_unknown_modules(model: Path, tmp_path: Path, kind: str) -> None:
    (model / "modules.json").write_text(json.dumps([{"path": "", "type": kind}]))
    assert refusal(model, tmp_path) == "0A000"


def test_stage_refuses_modules_outside_the_folder(model: Path, tmp_path: Path) -> None:
    modules = [{"path": "../other", "type": "sentence_transformers.models.Pooling"}]
    (model / "modules.json").write_text(json.dumps(modules))
    assert refusal(model, tmp_path) == "22023"


def test_stage_refuses_links_that_lead_out(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (model / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    assert refusal(model, tmp_path) == "22023"


def test_stage_follows_the_links_of_a_hub_cache(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    target = tmp_path / "staged"
    target.mkdir()
    stage(str(snapshot), target)
    assert (target / "model.safetensors").read_bytes() == _WEIGHTS


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_stage_refuses_damaged_weights(model: Path, tmp_path: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert refusal(model, tmp_path) == "XX001"


def test_stage_refuses_a_configuration_that_is_not_json(model: Path, tmp_path: Path) -> None:
    (model / "modules.json").write_text("[" * 100000)
    assert refusal(model, tmp_path) == "XX001"


def test_stage_refuses_an_adapter(model: Path, tmp_path: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    assert refusal(model, tmp_path) == "0A000"
