"""Quantizing and exporting anew: versions that compute what the one they are made from computes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument, NotReady, NotSupported

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
QUANTIZE = {"calibration_method": "minmax", "max_loss": 0.5, "new_version": None, "threads": 1, "description": None}
EXPORT = {"opset": None, "optimize": "none", "new_version": None, "threads": 1, "description": None}
WORDS = "the of and return string list query passage number value object a b c x y z".split()
Job = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


def texts(count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=6)) for _ in range(count)]


CALIBRATION = ("text", ["text"], [[text] for text in texts(40, 1)])
SCORES = (
    "pair_score",
    ["a", "b", "score"],
    [[a, b, place % 5] for place, (a, b) in enumerate(zip(texts(30, 2), texts(30, 3), strict=True))],
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    import job_folder

    folder = tmp_path_factory.mktemp("base")
    return folder / "models", job_folder.import_tiny(folder / "models", folder / "tiny")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from pgml_tune.jobs import checks, latency
    from pgml_tune.jobs.texts import retrieval_texts

    questions, documents = retrieval_texts()
    for module in (checks, latency):
        monkeypatch.setattr(module, "retrieval_texts", lambda: (questions[:20], documents[:60]))
    # Random weights tell nothing about the loss of real ones.
    monkeypatch.setattr(checks, "SPACE_COSINE", 0.5)
    monkeypatch.setattr(checks, "SPACE_OVERLAP", 0.1)
    yield


@pytest.fixture
def job(tmp_path: Path, base: tuple[Path, str]) -> Job:
    import job_folder

    numbers = iter(range(100))

    def run(kind: str, parameters: dict[str, Any], rows: Any = None, digest: str = base[1]) -> Any:
        models = {"model": ("tiny@v1", digest)}
        return job_folder.run(
            job_folder.lay_out(tmp_path / f"job-{next(numbers)}", kind, base[0], parameters, models, rows)
        )

    return run


def quantize(job: Job, method: str, rows: Any = None, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return job("quantize_model", QUANTIZE | {"method": method} | options, rows)


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


@pytest.mark.parametrize("method", ["int8_dynamic", "int8_static", "int8_block", "fp16"])
def test_a_quantized_version_keeps_the_space_and_says_what_it_gains(
    job: Job, base: tuple[Path, str], method: str
) -> None:
    result, events = quantize(job, method, {"calibration": CALIBRATION})
    (artifact,) = of_kind(events, "artifact")
    before, after = of_kind(events, "evaluation")
    config, original = artifact["config"], Artifact(base[0], base[1]).config()
    assert (artifact["suffix"], artifact["storage"]) == ("", method)
    assert config["space_id"] == original.space_id
    assert config["is_batch_invariant"] == (method != "int8_dynamic")
    assert (before["of"], before["digest"]) == ("tiny@v1", base[1])
    assert (after["of"], after["digest"], after["part"]) == ("new", artifact["digest"], None)
    assert set(after["figures"]) == {"latency_ms", "texts_per_second", "bytes"}
    assert config["metrics"]["speed"]["new"] == after["figures"]
    assert config["metrics"]["space_parity"]["cosine_mean"] > 0.5
    made_by = config["source"]["made_by"]
    assert (made_by["kind"], made_by["base"], made_by["calibration"]["count"]) == ("quantize_model", "tiny@v1", 40)
    assert result["summary"].startswith(method)
    assert not list(base[0].glob(".building-*"))


def test_the_loss_is_measured_on_the_rows(job: Job) -> None:
    result, events = quantize(job, "fp16", {"eval": SCORES})
    before, after = (event for event in of_kind(events, "evaluation") if event["part"] == "eval")
    assert set(before["figures"]) == {"spearman", "pearson"}
    assert after["figures"]["spearman"] == pytest.approx(before["figures"]["spearman"], abs=0.5)
    assert result["metrics"]["eval"]["rows"] == 30


def test_a_version_that_loses_too_much_is_refused(job: Job, base: tuple[Path, str]) -> None:
    there = set(base[0].iterdir())
    with pytest.raises(NotSupported) as refused:
        quantize(job, "int8_block", {"eval": SCORES}, max_loss=-1000)
    assert "spearman" in refused.value.detail
    assert set(base[0].iterdir()) == there


def test_a_version_of_another_space_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgml_tune.jobs import checks

    monkeypatch.setattr(checks, "SPACE_OVERLAP", 1.01)
    with pytest.raises(NotSupported):
        quantize(job, "int8_dynamic")


def test_static_quantization_needs_texts(job: Job) -> None:
    with pytest.raises(InvalidArgument):
        quantize(job, "int8_static")


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_each_way_to_calibrate_works(job: Job, method: str) -> None:
    result, _ = quantize(job, "int8_static", {"calibration": CALIBRATION}, calibration_method=method)
    assert result["is_batch_invariant"]


def test_what_is_derived_is_no_base(job: Job) -> None:
    _, events = quantize(job, "fp16")
    (artifact,) = of_kind(events, "artifact")
    with pytest.raises(NotReady) as refused:
        job("quantize_model", QUANTIZE | {"method": "int8_dynamic"}, digest=artifact["digest"])
    assert "tiny@v1" in refused.value.hint


def test_calibration_takes_rows_evenly_and_alternates_prompts(base: tuple[Path, str]) -> None:
    from dataclasses import replace

    from pgml_tune.jobs import calibration

    artifact = Artifact(base[0], base[1])
    config = replace(artifact.config(), prompt_query="query ")
    found = calibration.Calibration.of(["a b c"] * 3000, artifact.path("tokenizer.json"), config, "minmax")
    assert len(found.token_ids) == 1000
    assert len(found.token_ids[1]) == len(found.token_ids[0]) + 1


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_halving_leaves_no_detour_through_16_bits(tmp_path: Path, pooling: str) -> None:
    import job_folder
    import onnx

    from pgml_tune.jobs.half import halve
    from pgml_tune.jobs.runner import Runner

    artifact = Artifact(tmp_path / "m", job_folder.import_tiny(tmp_path / "m", tmp_path / "t", pooling=pooling))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "tokenizer.json").write_bytes(artifact.path("tokenizer.json").read_bytes())
    halve(artifact.path("model.onnx"), tmp_path / "half" / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "half" / "model.onnx"), full_check=True)
    graph = onnx.load(str(tmp_path / "half" / "model.onnx")).graph
    kinds = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    detours = [node for node in graph.node if node.op_type == "Cast" and kinds.get(node.input[0]) == 10]
    assert [node.name for node in detours if not node.input[0].startswith("_to_copy")] == []
    pair = [Runner(folder, artifact.config(), 1) for folder in (artifact.folder, tmp_path / "half")]
    left, right = (runner.embed(texts(8, 4), 4) for runner in pair)
    assert np.allclose(left, right, atol=0.02)


@pytest.mark.parametrize(("opset", "optimize", "suffix"), [(20, "none", "-opset20"), (23, "all", "-opset23-all")])
def test_an_export_keeps_the_space(job: Job, base: tuple[Path, str], opset: int, optimize: str, suffix: str) -> None:
    import onnx

    result, events = job("export_onnx", EXPORT | {"opset": opset, "optimize": optimize})
    (artifact,) = of_kind(events, "artifact")
    config = artifact["config"]
    assert (artifact["suffix"], artifact["storage"], artifact["existed"]) == (suffix, "fp32", False)
    assert config["space_id"] == Artifact(base[0], base[1]).config().space_id
    assert config["metrics"]["export"]["cosine_min"] >= 0.9999
    assert config["is_batch_invariant"]
    graph = onnx.load(str(base[0] / artifact["digest"] / "model.onnx"), load_external_data=False)
    assert next(entry.version for entry in graph.opset_import if entry.domain == "") == opset
    assert config["source"]["graph"]["optimize"] == optimize
    assert ("processor" in config["source"]["graph"]) == (optimize == "all")
    assert result["opset"] == opset


def test_an_export_under_a_name_has_no_suffix(job: Job) -> None:
    _, events = job("export_onnx", EXPORT | {"new_version": "v9"})
    assert of_kind(events, "artifact")[0]["suffix"] == ""


def test_an_opset_that_does_not_run_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgml_tune.jobs import export

    monkeypatch.setattr(export, "_runs", lambda file, output: False)
    with pytest.raises(NotSupported) as refused:
        job("export_onnx", EXPORT | {"opset": 23})
    assert "23" in refused.value.detail


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A classifier with random weights, as the transformers library saves one."""
    import io
    import json

    import tiny_model
    from transformers import AutoTokenizer, BertForSequenceClassification

    from pgml_tune.jobs.importing import import_model
    from pgml_tune.jobs.publishing import Site
    from pgml_tune.jobs.reports import Reporter

    folder = tmp_path_factory.mktemp("classifier")
    tiny_model.build(folder / "tiny")
    encoder, saved = folder / "tiny-encoder", folder / "saved"
    labels = {0: "billing", 1: "delivery", 2: "other"}
    BertForSequenceClassification.from_pretrained(encoder, id2label=labels, num_labels=3).save_pretrained(saved)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(saved)
    stream = io.StringIO()
    import_model(str(saved), "classification", (), Site(folder / "models", "", 1, Reporter(stream)))
    events = map(json.loads, stream.getvalue().splitlines())
    return folder / "models", next(event["digest"] for event in events if event["event"] == "artifact")


@pytest.mark.parametrize("method", ["int8_dynamic", "int8_static", "int8_block", "fp16"])
def test_a_quantized_classifier_keeps_its_labels(
    tmp_path: Path, classifier: tuple[Path, str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import job_folder

    from pgml_tune.jobs import label_checks

    monkeypatch.setattr(label_checks, "SPACE_DISTANCE", 0.5)
    labelled = ("text_label", ["text", "label"], [[text, "billing"] for text in texts(20, 5)])
    parameters = QUANTIZE | {"method": method, "max_loss": 100}
    rows = {"calibration": CALIBRATION, "eval": labelled}
    models = {"model": ("intent@v1", classifier[1])}
    job = job_folder.lay_out(tmp_path / "job", "quantize_model", classifier[0], parameters, models, rows)
    result, events = job_folder.run(job)
    (artifact,) = of_kind(events, "artifact")
    assert artifact["config"]["labels"] == ["billing", "delivery", "other"]
    assert artifact["config"]["metrics"]["space_parity"]["distance_mean"] <= 0.5
    assert "accuracy" in result["summary"]


def test_an_opset_that_the_network_cannot_be_written_in_is_refused(job: Job) -> None:
    with pytest.raises(NotSupported) as refused:
        job("export_onnx", EXPORT | {"opset": 17})
    assert "18" in refused.value.detail
