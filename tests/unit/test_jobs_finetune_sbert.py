"""Fine-tuning of a tiny embedding model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument, NotReady, TuneError

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
WORDS = "the of and return string list query passage number value object a b c x y z".split()
Finetuner = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


def texts(count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=5)) for _ in range(count)]


def pair(shape: str, count: int = 40) -> tuple[str, list[str], list[list[Any]]]:
    """Rows in which a text and its reverse belong together."""
    left, right = texts(count, 1), texts(count, 2)
    reverse = [" ".join(reversed(text.split())) for text in left]
    if shape == "pair":
        return shape, ["q", "d"], [list(row) for row in zip(left, reverse, strict=True)]
    if shape == "triplet":
        return shape, ["q", "d", "n"], [list(row) for row in zip(left, reverse, right, strict=True)]
    rows: list[list[Any]] = []
    for number, (text, same, other) in enumerate(zip(left, reverse, right, strict=True)):
        rows.append([text, same if number % 2 else other, float(number % 2)])
    return shape, ["a", "b", "label" if shape == "pair_label" else "score"], rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    import job_folder

    folder = tmp_path_factory.mktemp("base")
    return folder / "models", job_folder.import_tiny(folder / "models", folder / "tiny")


@pytest.fixture
def finetune(tmp_path: Path, base: tuple[Path, str]) -> Finetuner:
    import job_folder

    model_root, digest = base
    numbers = iter(range(100))

    def run(rows: Any, evaluation: Any = None, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        parts = {"train": rows} | ({"eval": evaluation} if evaluation else {})
        job = job_folder.lay_out(
            tmp_path / f"job-{next(numbers)}", "finetune_sbert", model_root, job_folder.TRAINING | options,
            {"model": ("tiny@v1", digest)}, parts,
        )  # fmt: skip
        return job_folder.run(job)

    return run


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch, base: tuple[Path, str]) -> None:
    """Leaves out what takes longest: of no matter to what is trained."""
    from pgml_tune.jobs import finetune_sbert

    monkeypatch.setattr(finetune_sbert, "publish_trained", lambda *arguments: Artifact(*base))


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_training_makes_a_version_in_a_space_of_its_own(finetune: Finetuner, base: tuple[Path, str]) -> None:
    model_root, digest = base
    result, events = finetune(pair("pair_score"), learning_rate=1e-3, epochs=2)
    (artifact,) = of_kind(events, "artifact")
    before, after = of_kind(events, "evaluation")
    config, original = artifact["config"], Artifact(model_root, digest).config()
    assert artifact["suffix"] == ""
    assert config["space_id"] != original.space_id
    assert config["metrics"]["export"]["cosine_min"] >= 0.9999
    assert (before["of"], before["digest"], after["of"]) == ("tiny@v1", digest, "new")
    assert (before["part"], before["rows"]) == ("train", 4)
    assert (result["train_rows"], result["eval_rows"], result["held_out"], result["steps"]) == (36, 4, True, 10)
    assert (result["metric"], result["after"]) == ("spearman", after["figures"]["spearman"])
    made_by = config["source"]["made_by"]
    assert (made_by["kind"], made_by["base"], made_by["train"]["count"]) == ("finetune_sbert", "tiny@v1", 40)
    assert made_by["parameters"]["learning_rate"] == 1e-3
    steps = [event for event in of_kind(events, "progress") if event["phase"] == "training"]
    assert (steps[-1]["step"], steps[-1]["steps"]) == (10, 10)
    assert steps[-1]["loss"] is not None
    assert (model_root / "checkpoints" / config["source"]["files_sha256"] / "model.safetensors").exists()
    assert not list(model_root.glob(".building-*"))


def test_the_same_seed_gives_the_same_files(finetune: Finetuner) -> None:
    rows = pair("pair_score", 12)
    (first,), (second,) = (of_kind(finetune(rows, eval_share=0.0)[1], "artifact") for _ in range(2))
    assert first["digest"] == second["digest"]
    assert (first["existed"], second["existed"]) == (False, True)


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("shape", "loss", "chosen", "metric"),
    [
        ("pair_score", "cosent", "cosent", "spearman"),
        ("pair_label", None, "contrastive", "accuracy"),
        ("pair", None, "mnrl", "ndcg@10"),
        ("pair", "cached_mnrl", "cached_mnrl", "ndcg@10"),
        ("triplet", None, "mnrl", "accuracy"),
        ("triplet", "triplet", "triplet", "accuracy"),
    ],
)
def test_the_shape_chooses_loss_and_metric(
    finetune: Finetuner, shape: str, loss: str | None, chosen: str, metric: str
) -> None:
    result, _ = finetune(pair(shape), pair(shape, 8), loss=loss)
    assert (result["loss"], result["metric"], result["held_out"]) == (chosen, metric, False)
    assert result["last_loss"] is not None


def test_training_learns(finetune: Finetuner) -> None:
    rows = pair("pair")
    result, _ = finetune(rows, rows, epochs=6, learning_rate=3e-3)
    assert result["after"] > result["before"]


def test_lora_trains_few_weights_and_is_merged(finetune: Finetuner, base: tuple[Path, str]) -> None:
    result, events = finetune(pair("pair"), lora={"r": 2}, learning_rate=1e-2)
    (artifact,) = of_kind(events, "artifact")
    model_root, digest = base
    assert 0 < result["trained_parameters"] < 0.1 * result["parameters"]
    checkpoint = model_root / "checkpoints" / artifact["config"]["source"]["files_sha256"]
    assert not list(checkpoint.glob("*adapter*"))
    assert (
        Artifact(model_root, artifact["digest"]).files["model.onnx"]["size"]
        == (Artifact(model_root, digest).files["model.onnx"]["size"])
    )


@pytest.mark.usefixtures("unexported")
def test_bf16_trains(finetune: Finetuner) -> None:
    result, _ = finetune(pair("pair_score"), precision="bf16")
    assert 0 < result["last_loss"] < 4


@pytest.mark.usefixtures("unexported")
def test_matryoshka_makes_the_first_dimensions_useful(finetune: Finetuner) -> None:
    result, _ = finetune(pair("pair_score"), matryoshka=[8, 16], learning_rate=1e-3)
    assert result["last_loss"] is not None
    with pytest.raises(InvalidArgument):
        finetune(pair("pair_score"), matryoshka=[1000])


@pytest.mark.usefixtures("unexported")
def test_hard_negatives_are_mined_from_pairs_only(finetune: Finetuner) -> None:
    result, events = finetune(pair("pair"), hard_negatives=2)
    assert result["last_loss"] is not None
    assert any("hard negatives were mined" in event["message"] for event in of_kind(events, "log"))
    with pytest.raises(InvalidArgument):
        finetune(pair("triplet"), hard_negatives=2)


@pytest.mark.usefixtures("unexported")
def test_early_stopping_ends_a_training_that_gains_nothing(finetune: Finetuner) -> None:
    rows = pair("pair_score")
    with pytest.raises(InvalidArgument):
        finetune(rows, eval_share=0.0, early_stopping=1)
    result, events = finetune(rows, pair("pair_score", 10), early_stopping=1, epochs=20, learning_rate=1e-8)
    assert result["steps"] < 20 * 5
    assert any(event["metric"] == "spearman" for event in of_kind(events, "progress"))


@pytest.mark.usefixtures("unexported")
def test_texts_that_are_cut_are_counted(finetune: Finetuner) -> None:
    shape, columns, rows = pair("pair_score")
    rows[0][0] = "x " * 100
    result, events = finetune((shape, columns, rows))
    assert result["truncated_texts"] == 1
    assert any(event["message"].startswith("1 of 80 texts") for event in of_kind(events, "log"))


@pytest.mark.parametrize(
    "options",
    [{"loss": "triplet"}, {"max_seq_length": 8000}, {"lora": {"target_modules": ["none"]}}, {"precision": "fp16"},
     {"device": "cuda"}, {"loss": "cosent"}],
    ids=["loss", "length", "modules", "fp16", "cuda", "astray"],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    finetune: Finetuner, options: dict[str, Any], base: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentence_transformers.sentence_transformer.losses.CoSENTLoss.forward", not_a_number)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = set(base[0].iterdir())
    with pytest.raises(TuneError) as caught:
        finetune(pair("pair_score"), **options)
    assert caught.value.sqlstate in ("22023", "0A000")
    assert set(base[0].iterdir()) == before


def not_a_number(self: Any, features: Any, labels: Any) -> Any:
    return self.model(list(features)[0])["sentence_embedding"].sum() * np.nan


def test_a_missing_checkpoint_is_named(finetune: Finetuner, base: tuple[Path, str], tmp_path: Path) -> None:
    kept = base[0] / "checkpoints"
    kept.rename(tmp_path / "aside")
    try:
        with pytest.raises(NotReady):
            finetune(pair("pair_score"))
    finally:
        (tmp_path / "aside").rename(kept)


def test_a_changed_checkpoint_is_found_out(finetune: Finetuner, base: tuple[Path, str]) -> None:
    files_sha256 = Artifact(*base).config().source["files_sha256"]
    file = base[0] / "checkpoints" / files_sha256 / "config.json"
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content + b" ")
    try:
        with pytest.raises(TuneError) as caught:
            finetune(pair("pair_score"))
    finally:
        file.write_bytes(content)
    assert caught.value.sqlstate == "XX001"
