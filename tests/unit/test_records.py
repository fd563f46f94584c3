import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.records import ArtifactConfig, ModelReference, is_digest, is_valid_name

BAD_NAMES = [
    "", " ", "a" * 64, "A", "ä", "mini lm", "-a", ".a", "_a", "a..b", "a/b", "/etc", "a@b", "a\n", "a\0b",
    "1.0.0; drop", "\uff4dinilm", "a'b", 'a"b',
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_be_a_path_or_a_statement_is_refused(name):
    assert not is_valid_name(name)


@pytest.mark.parametrize("name", ["a", "minilm", "v1", "1.0", "a-b_c.d", "0" * 63])
def test_a_plain_name_is_accepted(name):
    assert is_valid_name(name)


def test_a_reference_is_a_name_with_or_without_a_version():
    assert ModelReference.parse("minilm") == ModelReference("minilm", None)
    assert ModelReference.parse("minilm@v1") == ModelReference("minilm", "v1")
    assert str(ModelReference("minilm", "v1")) == "minilm@v1"


@pytest.mark.parametrize("text", ["minilm@", "@v1", "a@b@c", "minilm@../x", ""])
def test_a_malformed_reference_is_refused(text):
    with pytest.raises(InvalidArgument):
        ModelReference.parse(text)


def test_a_digest_is_64_lower_case_hexadecimal_digits():
    assert is_digest("0" * 64)
    assert not is_digest("0" * 63)
    assert not is_digest("G" * 64)
    assert not is_digest("0" * 64 + "\n")


CONFIG = {
    "task": "embedding", "engine": "onnxruntime", "dimensions": 4, "max_tokens": 8, "pooling": "mean",
    "is_normalized": True, "prompt_query": "query: ", "prompt_passage": "", "pad_token_id": 0, "storage": "fp32",
    "space_id": "x", "is_batch_invariant": True,
}  # fmt: skip


def test_a_configuration_survives_its_json_form():
    config = ArtifactConfig.from_json(CONFIG)
    assert ArtifactConfig.from_json(config.to_json()) == config
    assert config.prompt("query") == "query: "
    assert config.prompt("passage") == ""


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {}}, {"task": "magic"}, {"task": None}, {"task": ["embedding"]},
        {"dimensions": 0}, {"dimensions": "4"}, {"dimensions": 4.0}, {"dimensions": 16001}, {"dimensions": None},
        {"max_tokens": True}, {"max_tokens": 1}, {"max_tokens": 10**6 + 1},
        {"pad_token_id": -1}, {"pad_token_id": 2**31}, {"pad_token_id": []},
        {"engine": 1}, {"engine": "e" * 64}, {"pooling": None}, {"space_id": "a\0b"}, {"storage": {}},
        {"prompt_query": "a\0"}, {"prompt_query": None}, {"prompt_passage": "x" * 10_001}, {"prompt_passage": "\ud800"},
        {"is_normalized": 1}, {"is_batch_invariant": "true"}, {"is_batch_invariant": None},
        {"metrics": []}, {"metrics": None}, {"source": "x"}, {"metrics": {"a": float("nan")}},
        {"metrics": {"a": [float("inf")]}}, {"source": {"name": "a\0"}}, {"source": {"a\0": 1}}, {"source": nested(20)},
        {"labels": ["a"]}, {"labels": None}, {"task": "classification"},
    ],
    ids=lambda change: repr(change)[:40],
)  # fmt: skip
def test_a_configuration_with_wrong_values_or_unknown_fields_is_refused(change):
    with pytest.raises(InvalidArgument):
        ArtifactConfig.from_json(CONFIG | change)


@pytest.mark.parametrize(
    "change", [{"max_tokens": 2}, {"metrics": nested(10)}, {"source": {"a": [1, 0.5, None, True]}}]
)
def test_a_configuration_with_unusual_values_is_taken(change):
    defaults = {"metrics": {}, "source": {}, "labels": [], "generation": {}}
    assert ArtifactConfig.from_json(CONFIG | change).to_json() == CONFIG | defaults | change


LABELS = ["yes", "no", "Ja, gerne", "也许"]


def test_a_classifier_has_as_many_labels_as_its_output():
    config = CONFIG | {"task": "classification", "labels": LABELS}
    assert ArtifactConfig.from_json(config).labels == LABELS


@pytest.mark.parametrize(
    "labels",
    [LABELS[:3], [*LABELS, "more"], [*LABELS[:3], "yes"], [*LABELS[:3], ""], [*LABELS[:3], "a\0"], [*LABELS[:3], 1],
     [*LABELS[:3], []], [*LABELS[:3], "x" * 1001], tuple(LABELS)],
    ids=lambda labels: repr(labels)[:50],
)  # fmt: skip
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(InvalidArgument):
        ArtifactConfig.from_json(CONFIG | {"task": "classification", "labels": labels})


def test_a_configuration_that_lacks_a_field_is_refused():
    with pytest.raises(InvalidArgument):
        ArtifactConfig.from_json({"task": "embedding"})
