"""Fine-tuning of classifiers, on tiny models with random weights."""

import json

import numpy as np
import pytest

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.classifier import Classifier, softmax
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, NotSupported
from tests.unit.labelled_rows import COLUMNS, WORDS, labelled_rows

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
PARAMETERS = {
    "epochs": 8, "batch_size": 8, "learning_rate": 2e-3, "freeze_encoder": False, "new_version": None, "seed": 42,
    "max_seq_length": None, "warmup": 0.1, "weight_decay": 0.01, "eval_share": None, "early_stopping": 0,
    "precision": "fp32", "device": "cpu", "threads": 1, "description": None,
}  # fmt: skip
TEXTS = ["list object string", "number and value", "passage of query", "x", "如何删除字符串", "return " * 100]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model root with a tiny embedding model, and its digest."""
    from job_folder import import_tiny

    home = tmp_path_factory.mktemp("site")
    return home / "models", import_tiny(home / "models", home / "base")


def finetune(folder, model_root, digest, train, evaluation=None, **changes):
    """The result of a job, the digest of what it made, and what it reported."""
    from job_folder import lay_out, run

    rows = {"train": ("text_label", COLUMNS, train)}
    if evaluation is not None:
        rows["eval"] = ("text_label", COLUMNS, evaluation)
    models = {"model": ("tiny@v1", digest)}
    job = lay_out(folder, "finetune_classifier", model_root, PARAMETERS | changes, models, rows)
    result, events = run(job)
    (made,) = [event["digest"] for event in events if event["event"] == "artifact"]
    return result, made, events


@pytest.fixture(scope="module")
def tuned(site, tmp_path_factory):
    """A classifier that was trained with its figures."""
    folder = tmp_path_factory.mktemp("jobs") / "tuned"
    return finetune(folder, *site, labelled_rows(40), labelled_rows(10, seed=2))


def test_a_classifier_learns_and_says_how_well(site, tuned):
    result, digest, events = tuned
    config = Artifact(site[0], digest).config()
    assert (config.task, config.labels, config.dimensions) == ("classification", sorted(WORDS), 3)
    assert result["after"] > 80
    assert result["evaluation"]["accuracy"] == pytest.approx(result["after"], abs=1e-3)
    assert set(result["evaluation"]["labels"]) == set(WORDS)
    (evaluation,) = [event for event in events if event["event"] == "evaluation"]
    assert (evaluation["of"], evaluation["digest"], evaluation["part"]) == ("new", digest, "eval")
    assert {"accuracy", "macro_f1", "f1[lists]", "precision[lists]", "recall[lists]"} <= set(evaluation["figures"])
    assert config.source["made_by"]["base"] == "tiny@v1"
    assert config.source["made_by"]["train"]["count"] == 120


def test_what_serves_is_what_was_trained(site, tuned):
    from sentence_transformers import SentenceTransformer

    artifact = Artifact(site[0], tuned[1])
    checkpoint = site[0] / "checkpoints" / artifact.config().source["files_sha256"]
    expected = softmax(SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS))
    found = Classifier(artifact, 1).classify(TEXTS, Work())
    assert np.abs(expected - found).max() < 1e-5
    assert expected.argmax(axis=1).tolist() == found.argmax(axis=1).tolist()
    export = artifact.config().metrics["export"]
    assert export["probability_difference_max"] < 1e-3
    assert export["same_label"] == 1


def test_the_same_seed_and_rows_make_the_same_files(site, tuned, tmp_path):
    _, digest, events = finetune(tmp_path / "again", *site, labelled_rows(40), labelled_rows(10, seed=2))
    assert digest == tuned[1]
    assert [event["existed"] for event in events if event["event"] == "artifact"] == [True]


def test_a_classifier_is_continued_with_a_further_label_and_keeps_the_others(site, tuned, tmp_path):
    more = labelled_rows(20, words={"lists": WORDS["lists"], "answers": ["7", "8", "9"]})
    result, digest, events = finetune(tmp_path / "more", site[0], tuned[1], more, labelled_rows(5, seed=3), epochs=4)
    assert Artifact(site[0], digest).config().labels == [*sorted(WORDS), "answers"]
    before, after = [event for event in events if event["event"] == "evaluation"]
    assert (before["of"], after["of"]) == ("tiny@v1", "new")
    assert result["before"] == pytest.approx(before["figures"]["accuracy"], abs=1e-3)
    probabilities = Classifier(Artifact(site[0], digest), 1).classify(["7 8 9 9 8 7"], Work())
    assert probabilities[0].argmax() == 3


def test_a_share_is_held_out_and_the_frozen_encoder_stays(site, tmp_path):
    import safetensors.numpy

    result, digest, events = finetune(
        tmp_path / "frozen", *site, labelled_rows(20), freeze_encoder=True, learning_rate=None, epochs=2
    )
    assert result["held_out"]
    assert (result["train_rows"] + result["eval_rows"], result["learning_rate"]) == (60, 2e-3)
    (evaluation,) = [event for event in events if event["event"] == "evaluation"]
    assert (evaluation["part"], evaluation["rows"]) == ("train", result["eval_rows"])
    folders = [
        site[0] / "checkpoints" / Artifact(site[0], made).config().source["files_sha256"] for made in (site[1], digest)
    ]
    before, after = (safetensors.numpy.load_file(folder / "model.safetensors") for folder in folders)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_training_stops_early_and_texts_that_are_cut_are_counted(site, tmp_path):
    rows = [*labelled_rows(10), ("list " * 100, "lists"), ("value " * 100, "numbers")]
    result, _, events = finetune(
        tmp_path / "early", *site, rows, labelled_rows(5, seed=2), early_stopping=1, epochs=50, learning_rate=1e-8
    )
    assert result["steps"] == 2 * 4
    assert result["truncated_texts"] == 2
    assert any("longer than the 48 tokens" in event.get("message", "") for event in events)


def test_whole_numbers_may_be_labels(site, tmp_path):
    numbers = {label: place for place, label in enumerate(WORDS)}
    rows = [(text, numbers[label]) for text, label in labelled_rows(10)]
    _, digest, _ = finetune(tmp_path / "numbers", *site, rows, epochs=1)
    assert Artifact(site[0], digest).config().labels == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        ([*labelled_rows(10), ("a", "x" * 1001)], {}),
        ([*labelled_rows(10), ("a", "")], {}),
        ([(text, "one") for text, _ in labelled_rows(10)], {}),
        (labelled_rows(10), {"max_seq_length": 49}),
    ],
    ids=["long label", "empty label", "one label", "too many tokens"],
)
def test_what_cannot_be_trained_is_refused(site, tmp_path, rows, changes):
    with pytest.raises(InvalidArgument):
        finetune(tmp_path / "bad", *site, rows, **changes)
    assert not list(site[0].glob(".building*"))


def test_a_training_whose_loss_is_no_number_ends(site, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(InvalidArgument):
        finetune(tmp_path / "nan", *site, labelled_rows(10))


def test_a_gpu_and_half_precision_are_refused_where_they_are_missing(site, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name, changes in (("cuda", {"device": "cuda"}), ("fp16", {"precision": "fp16"})):
        with pytest.raises(NotSupported):
            finetune(tmp_path / name, *site, labelled_rows(10), **changes)


@pytest.fixture
def with_own_head(tmp_path):
    """A folder with a BertForSequenceClassification of three labels."""
    import tiny_model

    return tiny_model.build_classifier(tmp_path / "own", sorted(WORDS))


def import_folder(folder, model_root, task="classification"):
    import io

    from pgml_tune.jobs.importing import import_model
    from pgml_tune.jobs.publishing import Site
    from pgml_tune.jobs.reports import Reporter

    stream = io.StringIO()
    import_model(str(folder), task, (), Site(model_root, "", 1, Reporter(stream)))
    lines = map(json.loads, stream.getvalue().splitlines())
    return next(event["digest"] for event in lines if event["event"] == "artifact")


def test_a_checkpoint_of_transformers_is_imported_and_trained_further(site, with_own_head, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    digest = import_folder(with_own_head, site[0])
    artifact = Artifact(site[0], digest)
    assert (artifact.config().labels, artifact.config().pooling) == (sorted(WORDS), "none")
    tokenizer = AutoTokenizer.from_pretrained(str(with_own_head))
    model = AutoModelForSequenceClassification.from_pretrained(str(with_own_head)).eval()
    for text in TEXTS[:5]:
        expected = softmax(model(**tokenizer(text, return_tensors="pt")).logits.detach().numpy())
        assert np.abs(expected - Classifier(artifact, 1).classify([text], Work())).max() < 1e-5
    more = [*labelled_rows(10), *labelled_rows(10, words={"answers": ["7", "8", "9"]})]
    _, tuned, _ = finetune(tmp_path / "more", site[0], digest, more, epochs=6)
    assert Artifact(site[0], tuned).config().labels == [*sorted(WORDS), "answers"]
    assert Classifier(Artifact(site[0], tuned), 1).classify(["7 8 9 9 8 7"], Work())[0].argmax() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"problem_type": "multi_label_classification"}, {"id2label": {"0": "a"}}, {"architectures": ["BertModel"]},
        {"id2label": {"0": "a", "1": "a", "2": "b"}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_classifier_of_one_label_is_not_imported_as_one(site, with_own_head, change):
    file = with_own_head / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises((InvalidArgument, NotSupported)):
        import_folder(with_own_head, site[0])


def test_an_embedding_model_is_not_imported_as_a_classifier(site):
    with pytest.raises((InvalidArgument, NotSupported)):
        import_folder(site[0].parent / "base", site[0])
