"""Import of whole models, tiny ones with random weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs import checks
from pgml_tune.jobs.importing import import_model
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.source import stage
from pgml_tune.jobs.texts import retrieval_texts
from pgml_tune.records import STORAGE_SUFFIXES

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
Importer = Callable[..., list[dict[str, Any]]]
_TEXTS = ["return the string", "如何删除字符串的空格", "a", "x " * 100]


@pytest.fixture
def imported(tmp_path: Path) -> Importer:
    def run(folder: Path, *methods: str) -> list[dict[str, Any]]:
        stream = io.StringIO()
        import_model(str(folder), "embedding", methods, Site(tmp_path / "models", "", 1, Reporter(stream)))
        events = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [event for event in events if event["event"] == "artifact"]

    return run


@pytest.fixture
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, documents = retrieval_texts()
    monkeypatch.setattr(checks, "retrieval_texts", lambda: (questions[:20], documents[:100]))


def build(folder: Path, **options: Any) -> Path:
    import tiny_model

    return tiny_model.build(folder, **options)


def vectors(model_root: Path, digest: str, texts: list[str]) -> Any:
    artifact = Artifact(model_root, digest)
    return Runner(artifact.folder, artifact.config(), 1).embed(texts, 2)


def expected(folder: Path, texts: list[str], **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, **options)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_import_reproduces_the_pooling_of_the_model(tmp_path: Path, imported: Importer, pooling: str) -> None:
    folder = build(tmp_path / "tiny", pooling=pooling)
    (event,) = imported(folder)
    found = vectors(tmp_path / "models", event["digest"], _TEXTS)
    assert event["config"]["pooling"] == pooling
    assert np.allclose(found, expected(folder, _TEXTS), atol=1e-5)


def test_import_takes_everything_from_the_model(tmp_path: Path, imported: Importer) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    folder = build(tmp_path / "tiny", dense=8, prompts=prompts)
    (event,) = imported(folder)
    config = event["config"]
    assert (config["prompt_query"], config["prompt_passage"]) == ("query: ", "passage: ")
    assert (config["dimensions"], config["max_tokens"], config["is_normalized"]) == (8, 48, True)
    assert (config["storage"], config["is_batch_invariant"]) == ("fp32", True)
    assert config["metrics"]["export"]["cosine_min"] >= 0.9999
    found = vectors(tmp_path / "models", event["digest"], ["query: " + text for text in _TEXTS])
    assert np.allclose(found, expected(folder, _TEXTS, prompt_name="query"), atol=1e-5)


def test_import_of_the_same_files_makes_no_second_artifact(tmp_path: Path, imported: Importer) -> None:
    folder = build(tmp_path / "tiny")
    first, second = imported(folder)[0], imported(folder)[0]
    assert (first["existed"], second["existed"]) == (False, True)
    assert first["digest"] == second["digest"]


def test_other_prompts_open_another_space(tmp_path: Path) -> None:
    from pgml_tune.jobs import model

    spaces = []
    for name, prompts in (("plain", {}), ("again", {}), ("prompted", {"query": "q: "})):
        staged = tmp_path / f"staged-{name}"
        staged.mkdir()
        spaces.append(model.load(stage(str(build(tmp_path / name, prompts=prompts)), staged)).space_id)
    assert spaces[0] == spaces[1] != spaces[2]


@pytest.mark.usefixtures("few_texts")
def test_quantized_artifacts_keep_the_space(
    tmp_path: Path, imported: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights tell nothing about the loss of real ones.
    monkeypatch.setattr(checks, "SPACE_COSINE", 0.5)
    monkeypatch.setattr(checks, "SPACE_OVERLAP", 0.1)
    original, dynamic, block = imported(build(tmp_path / "tiny"), "int8_dynamic", "int8_block")
    for event, method in ((dynamic, "int8_dynamic"), (block, "int8_block")):
        assert event["storage"] == event["config"]["storage"] == method
        assert event["suffix"] == STORAGE_SUFFIXES[method]
        assert event["config"]["space_id"] == original["config"]["space_id"]
        assert event["config"]["metrics"]["space_parity"]["overlap_at_10"] > 0.1
    assert block["config"]["is_batch_invariant"]


@pytest.mark.usefixtures("few_texts")
def test_quantization_that_changes_the_vectors_is_refused(
    tmp_path: Path, imported: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SPACE_OVERLAP", 1.01)
    folder = build(tmp_path / "tiny")
    with pytest.raises(NotSupported):
        imported(folder, "int8_dynamic")
    (original,) = imported(folder)
    assert original["existed"]
    assert [path.name for path in (tmp_path / "models").glob(".building-*")] == []


def test_an_export_that_differs_is_refused(tmp_path: Path, imported: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "EXPORT_COSINE", 1.01)
    with pytest.raises(NotSupported):
        imported(build(tmp_path / "tiny"))
    assert list((tmp_path / "models").iterdir()) == []


def test_pooling_without_the_prompt_is_refused(tmp_path: Path, imported: Importer) -> None:
    folder = build(tmp_path / "tiny", prompts={"query": "query: "}, include_prompt=False)
    with pytest.raises(NotSupported):
        imported(folder)


def test_incomplete_weights_are_refused(tmp_path: Path, imported: Importer) -> None:
    from safetensors.torch import load_file, save_file

    folder = build(tmp_path / "tiny")
    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if "layer.1.output.dense" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InvalidArgument):
        imported(folder)
