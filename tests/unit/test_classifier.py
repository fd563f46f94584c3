"""What a classifier does with the output of its network."""

import numpy as np
import pytest

from pgml_tune.engine import encoder
from pgml_tune.engine.classifier import Classifier, softmax
from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, NotSupported
from tests.unit.test_embedder import publish_model
from tests.unit.test_records import LABELS

LOGITS = np.array([[1.0, 3.0, 2.0, -900.0]], np.float32)


class Network:
    """Returns the same logits for each text."""

    logits = LOGITS

    def __init__(self, model_file, threads, output):
        self.output = output

    def run(self, token_ids, attention_mask):
        assert self.output == "logits"
        return np.repeat(self.logits, len(token_ids), axis=0)


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "OnnxRuntime", Network)
    return publish_model(tmp_path, task="classification", labels=LABELS, pad_token_id=3)


def test_probabilities_are_those_of_softmax_and_add_up_to_one(artifact):
    work = Work()
    alone = Classifier(artifact, 1).classify(["a longer text"], work)
    assert alone.shape == (1, len(LABELS))
    assert alone.sum() == pytest.approx(1.0, abs=1e-12)
    assert alone[0].tolist() == pytest.approx([0.0900306, 0.6652410, 0.2447285, 0.0], abs=1e-6)
    assert (work.tokens, work.truncated) == (3, 0)
    assert Classifier(artifact, 1).classify(["a", "a longer text"], work).tolist() == [alone[0].tolist()] * 2


def test_a_classifier_is_tried_out_and_does_not_embed(artifact):
    from pgml_tune.engine.trial import try_out

    try_out(artifact)
    with pytest.raises(NotSupported):
        Embedder(artifact, 1)


def test_an_embedding_model_does_not_classify(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "OnnxRuntime", Network)
    with pytest.raises(NotSupported):
        Classifier(publish_model(tmp_path), 1)


def test_logits_that_are_not_finite_are_refused(artifact, monkeypatch):
    for number in (np.nan, np.inf, -np.inf):
        monkeypatch.setattr(Network, "logits", np.array([[number, 0, 0, 0]], np.float32))
        with pytest.raises(InvalidArgument):
            Classifier(artifact, 1).classify(["a"], Work())


def test_great_logits_do_not_overflow():
    assert softmax(np.array([[3e38, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]
