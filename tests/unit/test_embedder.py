"""What a model must do before it is trusted; the network is a stand-in, the tokenizer is real."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from pgml_tune.engine import embedder, encoder
from pgml_tune.engine.artifact import new_artifact, publish
from pgml_tune.errors import ArtifactDamaged, TuneError
from tests.unit.test_records import CONFIG

POSITIONS, VOCABULARY = 8, {"a": 0, "longer": 1, "text": 2, "[UNK]": 3}


class Network:
    """Returns the dimensions that CONFIG promises, and fails as ONNX Runtime does beyond its tables."""

    def __init__(self, model_file, threads, output):
        pass

    def run(self, token_ids, attention_mask):
        if token_ids.shape[1] > POSITIONS or token_ids.max() >= len(VOCABULARY):
            raise ArtifactDamaged("ONNX Runtime cannot run the model")
        return np.ones((len(token_ids), 4), np.float32)


def publish_model(model_root, **changes):
    """An artifact with a real tokenizer, whose config.json has some other values."""
    with new_artifact(model_root) as folder:
        tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "model.onnx").write_bytes(b"")
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))
        return publish(model_root, folder)


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Loads a model whose config.json has some other values."""
    monkeypatch.setattr(encoder, "OnnxRuntime", Network)
    return lambda **changes: embedder.Embedder(publish_model(tmp_path, **changes), 1)


def test_a_sound_model_passes(loaded):
    loaded(max_tokens=POSITIONS, pad_token_id=3, prompt_query="").try_out()


@pytest.mark.parametrize(
    "changes", [{"dimensions": 3}, {"max_tokens": POSITIONS + 1}, {"pad_token_id": len(VOCABULARY)}], ids=repr
)
def test_a_configuration_that_does_not_fit_the_network_is_found(loaded, changes):
    with pytest.raises(ArtifactDamaged):
        loaded(**changes).try_out()


def test_a_long_text_is_cut_and_counted(loaded):
    model, work = loaded(), encoder.Work()
    text = "longer text " * 10_000
    assert model.embed([text, "a"], "passage", work).shape == (2, 4)
    assert model.embed([text], "passage", work).shape == (1, 4)
    assert (work.truncated, work.tokens) == (2, 2 * POSITIONS + 1)
    assert model.count_tokens(text) == 20_000


def test_an_unknown_engine_is_not_supported(loaded):
    with pytest.raises(TuneError) as caught:
        loaded(engine="magic")
    assert caught.value.sqlstate == "0A000"
