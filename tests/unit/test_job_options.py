"""Options of jobs: every default fits its own range, and what does not fit is refused before anything is queued."""

import json
from typing import Any

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.job_options import OPTIONS, check_parameters, parse_job_options


@pytest.mark.parametrize("kind", OPTIONS)
def test_no_options_are_the_defaults_and_defaults_fit(kind: str) -> None:
    values = parse_job_options(kind, None)
    assert list(values) == [option.name for option in OPTIONS[kind]]
    for option in OPTIONS[kind]:
        assert values[option.name] == option.default
        assert option.default in (None, []) or option.fits(option.default)


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_names_of_options_are_unique_and_explained(kind: str) -> None:
    names = [option.name for option in OPTIONS[kind]]
    assert len(set(names)) == len(names)
    assert all(option.meaning.endswith(".") and option.valid for option in OPTIONS[kind])


@pytest.mark.parametrize("kind", OPTIONS)
def test_null_means_the_default(kind: str) -> None:
    nulls = {option.name: None for option in OPTIONS[kind]}
    assert parse_job_options(kind, json.dumps(nulls)) == parse_job_options(kind, "{}")


WRONG: list[tuple[str, str, Any]] = [
    ("finetune_sbert", "epochs", 0),
    ("finetune_sbert", "epochs", 10**9),
    ("finetune_sbert", "epochs", 1.5),
    ("finetune_sbert", "epochs", True),
    ("finetune_sbert", "epochs", "1"),
    ("finetune_sbert", "batch_size", 0),
    ("finetune_sbert", "learning_rate", 0),
    ("finetune_sbert", "learning_rate", 1e400),
    ("finetune_sbert", "learning_rate", "NaN"),
    ("finetune_sbert", "eval_share", 1.5),
    ("finetune_sbert", "seed", 2**63 - 1),
    ("finetune_sbert", "seed", -1),
    ("finetune_sbert", "loss", "mse"),
    ("finetune_sbert", "lora", {"rank": 8}),
    ("finetune_sbert", "lora", {"r": 0}),
    ("finetune_sbert", "lora", {"target_modules": []}),
    ("finetune_sbert", "lora", [8]),
    ("finetune_sbert", "matryoshka", []),
    ("finetune_sbert", "matryoshka", [0]),
    ("finetune_sbert", "matryoshka", 128),
    ("finetune_sbert", "device", "cuda:0; rm"),
    ("finetune_sbert", "description", "x" * 10_001),
    ("finetune_classifier", "freeze_encoder", 1),
    ("finetune_classifier", "new_version", "../v2"),
    ("finetune_text_to_sql", "base", "scratch:huge"),
    ("finetune_text_to_sql", "base", "asker"),
    ("finetune_text_to_sql", "base", "asker@../v1"),
    ("finetune_text_to_sql", "refine", {"round": 1}),
    ("finetune_text_to_sql", "refine", {"rounds": 0}),
    ("finetune_text_to_sql", "refine", {"samples": [8]}),
    ("finetune_text_to_sql", "refine", 2),
    ("finetune_text_to_sql", "prompt", {"schema": "half"}),
    ("finetune_text_to_sql", "prompt", {"values": ["hint"]}),
    ("finetune_text_to_sql", "max_seconds", 1),
    ("finetune_text_to_sql", "vocabulary_size", 10),
    ("distill_model", "temperature", 0),
    ("distill_model", "alpha", 1.01),
    ("distill_model", "vocabulary", ["rows"]),
    ("quantize_model", "max_loss", -1),
    ("quantize_model", "eval_query", " "),
    ("export_onnx", "opset", 9),
    ("export_tensorrt", "shapes", {"min": [1, 8], "opt": [16, 64]}),
    ("export_tensorrt", "shapes", {"min": [8, 8], "opt": [4, 64], "max": [64, 256]}),
    ("export_tensorrt", "shapes", {"min": [1], "opt": [1], "max": [1]}),
    ("tune_engine", "min_cosine", 0.5),
    ("tune_engine", "engines", []),
    ("tune_engine", "engines", ["onnx"]),
    ("tune_engine", "engines", [["openvino"]]),
    ("tune_engine", "seconds", 0),
    ("tune_engine", "texts", 1),
    ("import_model", "quantize", ["fp16"]),
    ("import_model", "quantize", "int8_dynamic"),
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_value_that_does_not_fit_is_refused_with_what_would(kind: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f'"{name}"') as refusal:
        parse_job_options(kind, json.dumps({name: value}))
    assert refusal.value.detail.startswith("Valid are: ")


@pytest.mark.parametrize("key", ["epoch", "__class__", "trust_remote_code", "model_root"])
def test_an_unknown_key_is_refused_with_the_valid_ones(key: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_job_options("finetune_sbert", json.dumps({key: 1}))
    assert "epochs" in refusal.value.detail


@pytest.mark.parametrize("kind", OPTIONS)
def test_parameters_that_a_procedure_has_made_pass_and_others_do_not(kind: str) -> None:
    made = parse_job_options(kind, None)
    check_parameters(kind, made | {"target": None})
    missing = dict(list(made.items())[1:])
    for wrong in (missing, made | {next(iter(made)): object()}, {}):
        with pytest.raises(InvalidArgument):
            check_parameters(kind, wrong)
    with pytest.raises(InvalidArgument):
        check_parameters("maintain", made)
