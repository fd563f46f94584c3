"""Distillation, on tiny models with random weights."""

import json

import numpy as np
import pytest

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.runner import Runner
from tests.unit.labelled_rows import COLUMNS, WORDS, labelled_rows

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
PARAMETERS = {
    "temperature": 4.0, "alpha": 0.7, "vocabulary": "full", "new_model": None, "new_version": None, "epochs": 6,
    "batch_size": 8, "learning_rate": 1e-3, "seed": 42, "max_seq_length": None, "warmup": 0.1, "weight_decay": 0.01,
    "eval_share": None, "early_stopping": 0, "precision": "fp32", "device": "cpu", "threads": 1, "description": None,
}  # fmt: skip
TEXTS = [text for text, _ in labelled_rows(40)]
SPEED = {"latency_ms", "texts_per_second", "bytes"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model root with two tiny embedding models and a classifier, and their digests."""
    from job_folder import import_tiny

    from tests.unit.test_jobs_classifier import finetune

    home = tmp_path_factory.mktemp("site")
    root = home / "models"
    digests = {"tiny": import_tiny(root, home / "base"), "dense": import_tiny(root, home / "dense", dense=16)}
    _, digests["classifier"], _ = finetune(home / "job", root, digests["tiny"], labelled_rows(40), labelled_rows(5))
    return root, digests


def distill(folder, site, teacher, train, evaluation=None, student=None, recipe="layers:1", **changes):
    """The result of a job, the artifact that it made, and what it measured of teacher and student."""
    from job_folder import lay_out, run

    root, digests = site
    models = {"teacher": (f"{teacher}@v1", digests[teacher])}
    parameters = PARAMETERS | changes | {"student": recipe}
    if student is not None:
        models["student"] = (f"{student}@v1", digests[student])
        parameters |= {"student": f"{student}@v1"}
    rows = {"train": train} | ({} if evaluation is None else {"eval": evaluation})
    result, events = run(lay_out(folder, "distill_model", root, parameters, models, rows))
    (made,) = [event["digest"] for event in events if event["event"] == "artifact"]
    evaluations = {event["of"]: event for event in events if event["event"] == "evaluation"}
    assert set(evaluations) == {f"{teacher}@v1", "new"}
    assert (evaluations[f"{teacher}@v1"]["digest"], evaluations["new"]["digest"]) == (digests[teacher], made)
    return result, Artifact(root, made), evaluations


def labelled(count, seed=1):
    return "text_label", COLUMNS, labelled_rows(count, seed)


def texts(listed=TEXTS):
    return "text", ("body",), [(text,) for text in listed]


def outputs(artifact, listed):
    return Runner(artifact.folder, artifact.config(), 1).embed(listed, 8)


def test_some_layers_of_a_classifier_learn_what_the_whole_says(site, tmp_path):
    result, artifact, evaluations = distill(tmp_path / "job", site, "classifier", labelled(40), labelled(10, 2))
    config = artifact.config()
    assert (config.task, config.labels) == ("classification", sorted(WORDS))
    assert result["student"]["accuracy"] > 70
    for role, of in (("teacher", "classifier@v1"), ("student", "new")):
        assert SPEED | {"accuracy", "macro_f1"} <= set(result[role])
        assert evaluations[of]["part"] == "eval"
        assert {name: evaluations[of]["figures"][name] for name in result[role]} == result[role]
    assert result["student"]["bytes"] < result["teacher"]["bytes"]
    assert config.source["made_by"]["base"] == "classifier@v1"
    assert "accuracy" in result["summary"]
    assert "latency" in result["summary"]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_labels_alone_and_the_teacher_alone_can_be_learned_from(site, tmp_path, alpha):
    result, _, _ = distill(
        tmp_path / "job", site, "classifier", labelled(20), labelled(5, 2), alpha=alpha, epochs=1, temperature=1.0
    )
    assert np.isfinite(result["last_loss"])


def test_the_loss_is_that_of_hinton():
    """Its gradient by the student's logits, for labels and probabilities that are known."""
    import torch

    from pgml_tune.jobs.lessons import distillation_loss

    student = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    teacher, label, temperature, alpha = torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([2]), 4.0, 0.7
    distillation_loss(student, teacher, label, temperature, alpha).backward()
    soft = torch.softmax(student.detach() / temperature, 1) - torch.softmax(teacher / temperature, 1)
    hard = torch.softmax(student.detach(), 1) - torch.tensor([[0.0, 0.0, 1.0]])
    expected = alpha * temperature * soft + (1 - alpha) * hard
    assert torch.allclose(student.grad, expected, atol=1e-6)


def test_an_embedding_model_becomes_a_classifier_with_the_labels_of_its_teacher(site, tmp_path):
    _, artifact, _ = distill(tmp_path / "job", site, "classifier", labelled(20), student="dense", epochs=1)
    assert artifact.config().labels == sorted(WORDS)


def test_a_label_that_the_teacher_does_not_know_is_refused(site, tmp_path):
    rows = "text_label", COLUMNS, [*labelled_rows(10), ("a", "other"), ("b", "other")]
    with pytest.raises(InvalidArgument):
        distill(tmp_path / "job", site, "classifier", rows)


def test_some_layers_of_an_embedding_model_aim_at_its_space(site, tmp_path):
    result, artifact, evaluations = distill(tmp_path / "job", site, "tiny", texts())
    teacher = Artifact(site[0], site[1]["tiny"])
    config = artifact.config()
    assert (config.dimensions, config.is_normalized) == (teacher.config().dimensions, True)
    assert config.space_id != teacher.config().space_id
    cosines = (outputs(artifact, TEXTS[:20]) * outputs(teacher, TEXTS[:20])).sum(axis=1)
    assert cosines.mean() > 0.8
    assert result["metric"] == "teacher_cosine"
    assert result["student"]["teacher_cosine"] == evaluations["new"]["figures"]["teacher_cosine"] > 80
    assert (evaluations["new"]["part"], evaluations["new"]["rows"]) == ("train", result["eval_rows"])


def test_a_student_of_other_dimensions_gets_those_of_its_teacher(site, tmp_path):
    scores = "pair_score", ("a", "b", "score"), [(TEXTS[n], TEXTS[n + 40], n / 10) for n in range(10)]
    result, artifact, evaluations = distill(tmp_path / "job", site, "tiny", texts(), scores, student="dense", epochs=1)
    assert artifact.config().dimensions == 32
    assert (result["metric"], evaluations["new"]["part"]) == ("spearman", "eval")
    assert {"spearman", "pearson"} <= set(result["teacher"]) & set(result["student"])


def test_a_reduced_vocabulary_keeps_the_tokens_of_the_rows_and_takes_any_text(site, tmp_path):
    words = texts(["list of string", "passage of query", "number value"] * 10)
    result, artifact, _ = distill(tmp_path / "job", site, "tiny", words, vocabulary="rows", epochs=1, eval_share=0.0)
    teacher = Artifact(site[0], site[1]["tiny"])
    sizes = result["vocabulary"]
    assert sizes["after"] < sizes["before"]
    described = {
        each: json.loads(each.path("tokenizer.json").read_text())["model"]["vocab"] for each in (artifact, teacher)
    }
    assert len(described[artifact]) == sizes["after"]
    assert "the" not in described[artifact]
    for text in ("list of string", "the object", "删除 of x9?", "ÿ", "[SEP] list"):
        found, former = (
            [names[number] for number in TextTokenizer(each.path("tokenizer.json"), 48).encode([text])[0].ids]
            for each in (artifact, teacher)
            for names in [dict(map(reversed, described[each].items()))]
        )
        assert text.count("the") or found == former
        assert found.count("[UNK]") == former.count("[UNK]")
    assert artifact.size_bytes < teacher.size_bytes


def test_a_vocabulary_that_is_no_wordpiece_is_not_reduced():
    from tokenizers import Tokenizer, models

    from pgml_tune.jobs.vocabulary import choose_tokens

    for model in (models.BPE(), models.Unigram([("a", 0.0)]), models.WordLevel({"a": 0}, unk_token="a")):
        with pytest.raises(NotSupported):
            choose_tokens(Tokenizer(model).to_str(), ["a"])


@pytest.mark.parametrize("recipe", ["layers:2", "layers:99"])
def test_a_student_has_fewer_layers_than_its_teacher(site, tmp_path, recipe):
    with pytest.raises(InvalidArgument):
        distill(tmp_path / "job", site, "tiny", texts(), recipe=recipe)


def test_layers_are_evenly_spaced():
    from pgml_tune.jobs.student import spaced

    assert [spaced(count, 6) for count in (1, 2, 3, 5)] == [[0], [0, 5], [0, 2, 5], [0, 1, 2, 4, 5]]
    assert spaced(6, 12) == [0, 2, 4, 7, 9, 11]
