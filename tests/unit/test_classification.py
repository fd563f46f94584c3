"""classify() as a session sees it; registry and network are stand-ins."""

import numpy as np
import pytest

from pgml_tune.errors import InvalidArgument, LimitExceeded
from pgml_tune.records import ArtifactConfig
from pgml_tune.service.calls import Calls
from pgml_tune.service.classification import Classification
from pgml_tune.service.counters import Counters
from pgml_tune.settings import Limits
from pgml_tune.store.registry import Target
from tests.unit.test_records import CONFIG, LABELS


class Classifier:
    """Finds the second and the last label equally probable, and counts texts of more than ten characters as cut."""

    config = ArtifactConfig.from_json(CONFIG | {"task": "classification", "labels": LABELS})

    def classify(self, texts, work, checkpoint):
        work.tokens += 5
        work.truncated += len(texts[0]) > 10
        return np.array([[0.1, 0.4, 0.1, 0.4]])


class Models:
    def get(self, kind, digest, threads):
        return Classifier()


class Rules:
    """Every name means the same version; the settings are what the test says."""

    limits = Limits.from_rows({})

    def read(self, db, model, task):
        assert task == "classification"
        return Target(7, "d", 4), self.limits


class Session:
    def checkpoint(self):
        pass


class Table:
    flushes = 0

    def flush_if_due(self, db):
        self.flushes += 1


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def classification(counters, monkeypatch):
    calls = Calls(counters, Table())
    monkeypatch.setattr(calls, "_rules", Rules())
    return Classification(Models(), calls)


def test_labels_come_most_probable_first_and_equal_ones_in_their_order(classification):
    found = classification.classify(Session(), "text", "intents", 3)
    assert found == [(LABELS[1], 0.4), (LABELS[3], 0.4), (LABELS[0], 0.1)]
    assert classification.classify(Session(), "text", "intents", 1) == found[:1]
    assert len(classification.classify(Session(), "text", "intents", 100)) == len(LABELS)


@pytest.mark.parametrize("top_k", [None, 0, -1, -(2**31)])
def test_a_top_k_below_one_is_refused(classification, top_k):
    with pytest.raises(InvalidArgument):
        classification.classify(Session(), "text", "intents", top_k)


def test_calls_are_counted_and_numbered(classification, counters):
    classification.classify(Session(), "text", "intents", 1)
    first = classification._calls.last_id
    classification.classify(Session(), "a long text", "intents", 1)
    assert classification._calls.last_id == first + 1
    (row,) = counters.rows()
    assert (row["model_version_id"], row["calls"], row["texts"], row["tokens"], row["truncated"]) == (7, 2, 2, 10, 1)


def test_the_limits_of_an_input_hold(classification, monkeypatch):
    with pytest.raises(LimitExceeded):
        classification.classify(Session(), "é" * 600_000, "intents", 1)
    monkeypatch.setattr(Rules, "limits", Limits.from_rows({"long_input": "error"}))
    with pytest.raises(LimitExceeded):
        classification.classify(Session(), "a long text", "intents", 1)
    assert classification.classify(Session(), "text", "intents", 1)
