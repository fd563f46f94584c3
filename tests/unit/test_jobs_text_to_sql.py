"""Training of models that write SQL: from scratch on a small shop, in seconds."""

from __future__ import annotations

import json
import random

import pytest

from pgml_tune.engine.artifact import LEXICON, Artifact
from pgml_tune.engine.generator import open_generator
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.service.prompt import PromptFormat, render, restore
from pgml_tune.service.schema import Schema
from pgml_tune.service.value_links import index, link
from tests.unit.sql_shop import SCHEMA_ROWS, VALUE_ROWS, SqliteCaller, pairs

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
PARAMETERS = {
    "base": "scratch:tiny", "epochs": 14, "batch_size": 8, "learning_rate": 4e-3, "max_seconds": None,
    "vocabulary_size": 400, "augment": True, "refine": None, "prompt": None, "seed": 42, "max_seq_length": None,
    "warmup": 0.1, "weight_decay": 0.01, "eval_share": None, "early_stopping": 0, "precision": "fp32", "device": "cpu",
    "threads": 1, "description": None,
}  # fmt: skip
SNAPSHOTS = {
    "schema": ("snapshot", ("path", "name", "comment", "columns", "foreign_keys"), SCHEMA_ROWS),
    "values": ("snapshot", ("path", "table_name", "column_name", "value"), VALUE_ROWS),
}
COLUMNS = ("question", "sql")


@pytest.fixture(autouse=True)
def database(monkeypatch):
    """SQLite in place of the database of the caller."""
    from pgml_tune.jobs import finetune_text_to_sql, sql_evaluating
    from pgml_tune.jobs.job import Access, Job

    monkeypatch.setattr(finetune_text_to_sql, "Caller", SqliteCaller)
    monkeypatch.setattr(sql_evaluating, "Caller", SqliteCaller)
    monkeypatch.setattr(Job, "access", Access("", "somebody"))


def finetune(folder, model_root, train, evaluation=None, models=None, **changes):
    """The result of a job, the digest of what it made, and what it reported."""
    from job_folder import lay_out, run

    rows = {"train": ("question_sql", COLUMNS, train), **SNAPSHOTS}
    if evaluation is not None:
        rows["eval"] = ("question_sql", COLUMNS, evaluation)
    job = lay_out(folder, "finetune_text_to_sql", model_root, PARAMETERS | changes, models, rows)
    result, events = run(job)
    (made,) = [event["digest"] for event in events if event["event"] == "artifact"]
    return result, made, events


def split_pairs():
    """Rows to train on in two languages, and rows to measure with, shuffled."""
    rows = pairs() + pairs(chinese=True)
    random.Random(1).shuffle(rows)
    return rows[8:], rows[:8]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model from scratch."""
    home = tmp_path_factory.mktemp("sql")
    with pytest.MonkeyPatch.context() as patch:
        from pgml_tune.jobs import finetune_text_to_sql
        from pgml_tune.jobs.job import Access, Job

        patch.setattr(finetune_text_to_sql, "Caller", SqliteCaller)
        patch.setattr(Job, "access", Access("", "somebody"))
        bad = [("how many dogs", "SELECT count(*) FROM dog"), ("remove all", "DELETE FROM customer")]
        train, evaluation = split_pairs()
        found = finetune(home / "job", home / "models", [*train, *bad], evaluation, refine={"rounds": 1, "samples": 4})
    return home, *found


def test_a_model_from_scratch_learns_and_says_how_well(trained):
    home, result, digest, events = trained
    assert result["after"] >= 75
    assert result["evaluation"]["valid_rate"] >= result["after"]
    (evaluation,) = [event for event in events if event["event"] == "evaluation"]
    assert (evaluation["of"], evaluation["digest"], evaluation["part"]) == ("new", digest, "eval")
    assert set(evaluation["figures"]) == {"execution_accuracy", "exact_match", "valid_rate"}
    config = Artifact(home / "models", digest).config()
    assert (config.task, config.engine, config.storage) == ("text_to_sql", "ctranslate2", "int8")
    assert config.source["made_by"]["train"]["count"] == len(split_pairs()[0]) + 2


def test_rows_whose_sql_does_not_run_are_left_out_and_told(trained):
    _, result, _, events = trained
    assert result["dropped_rows"] == 2
    told = [event["message"] for event in events if event["event"] == "log"]
    assert [text.split(":")[0] for text in told if "left out" in text] == [
        f"row {len(split_pairs()[0]) + number} of the train query is left out" for number in (1, 2)
    ]


def test_refine_tells_the_accuracy_of_each_round(trained):
    rounds = trained[1]["refine"]
    assert [entry["round"] for entry in rounds] == [0, 1]
    assert rounds[1]["right_samples"] > 50
    assert all(0 <= entry["execution_accuracy"] <= 100 for entry in rounds)


def test_the_version_answers_questions_about_values_it_has_never_seen(trained):
    home, _, digest, _ = trained
    artifact = Artifact(home / "models", digest)
    config = artifact.config()
    form = PromptFormat.from_json(config.generation["prompt"])
    assert form == PromptFormat(
        schema="none", values="placeholder", lower=True, columns=("customer.city", "customer.name", "product.name")
    )
    question = "how many customers live in Tokyo"
    matches = link(question, index([("customer", "city", "tokyo")]))
    prompt = render(question, Schema(()), matches, form)
    found = open_generator(artifact, 1).generate(prompt.text, 4, Work())
    assert "SELECT COUNT(*) FROM customer WHERE city = 'tokyo'" in [restore(one.text, prompt) for one in found]


def test_the_names_of_values_go_with_the_version(trained):
    home, result, digest, _ = trained
    lexicon = json.loads(Artifact(home / "models", digest).path(LEXICON).read_text())
    assert lexicon["巴黎"] == "paris"
    assert result["phrases"] == len(lexicon)


def test_what_conversion_changes_is_measured_and_kept(trained):
    home, _, digest, _ = trained
    metrics = Artifact(home / "models", digest).config().metrics
    assert metrics["conversion"]["mean"] < 0.01
    assert 0 < metrics["storage_parity"]["prompts"] <= 32
    assert metrics["storage_parity"]["same_first"] > 0.5


def test_the_same_seed_and_rows_make_the_same_weights(trained, tmp_path):
    train, evaluation = split_pairs()
    made = {
        finetune(tmp_path / f"job{number}", tmp_path / f"models{number}", train, evaluation, epochs=1)[1]
        for number in (1, 2)
    }
    assert len(made) == 1


def test_a_version_is_trained_further_as_it_is_asked(trained, tmp_path):
    home, _, digest, _ = trained
    models = {"model": ("shop@v1", digest)}
    train, evaluation = split_pairs()
    result, made, events = finetune(
        tmp_path / "job", home / "models", train, evaluation, models, base=None, epochs=1, learning_rate=1e-4
    )
    assert result["before"] >= 75
    assert result["after"] >= 75
    configs = [Artifact(home / "models", one).config() for one in (digest, made)]
    assert configs[0].generation["prompt"] == configs[1].generation["prompt"]
    assert configs[1].source["made_by"]["base"] == "shop@v1"
    assert {event["of"] for event in events if event["event"] == "evaluation"} == {"shop@v1", "new"}


def test_early_stopping_ends_training_and_a_share_is_held_out(tmp_path):
    result, _, _ = finetune(
        tmp_path / "job", tmp_path / "models", pairs(), epochs=40, early_stopping=1, learning_rate=1e-8
    )
    assert result["held_out"]
    assert result["eval_rows"] == round(len(pairs()) * 0.1)
    assert result["steps"] < 40 * -(-result["train_rows"] // 8)


def test_max_seconds_ends_training(tmp_path):
    result, _, _ = finetune(tmp_path / "job", tmp_path / "models", pairs(), epochs=1000, max_seconds=3)
    assert result["seconds"] < 60
    assert result["steps"] < 1000 * -(-result["train_rows"] // 8)


def test_too_few_rows_that_run_are_refused(tmp_path):
    rows = [(f"q{number}", "SELECT a FROM nowhere") for number in range(20)]
    with pytest.raises(InvalidArgument, match="of 20 rows of the train query the SQL of 0 runs"):
        finetune(tmp_path / "job", tmp_path / "models", rows)


def test_a_version_can_be_measured_again(trained, tmp_path):
    from job_folder import lay_out, run

    home, result, digest, _ = trained
    rows = {"eval": ("question_sql", COLUMNS, split_pairs()[1]), **SNAPSHOTS}
    models = {"model": ("shop@v1", digest)}
    parameters = {"k": 10, "batch_size": 32, "threads": 1, "metrics": ["execution_accuracy", "latency"]}
    job = lay_out(tmp_path / "job", "evaluate_model", home / "models", parameters, models, rows)
    measured, _ = run(job)
    assert set(measured["figures"]) == {"execution_accuracy", "latency_ms"}
    assert measured["figures"]["execution_accuracy"] == result["after"]


def test_a_decoder_alone_is_not_trained(trained, tmp_path, monkeypatch):
    from pgml_tune.jobs import finetune_text_to_sql

    home, _, digest, _ = trained
    monkeypatch.setattr(finetune_text_to_sql, "CT2", "another")
    with pytest.raises(NotSupported):
        finetune(tmp_path / "job", home / "models", pairs(), models={"model": ("shop@v1", digest)}, base=None)
