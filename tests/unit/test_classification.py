"""classify() as a session sees it; registry and network are stand-ins."""

import numpy as np
import pytest

from pgml_tune.engine import classifier
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, LimitExceeded
from pgml_tune.records import ArtifactConfig
from pgml_tune.service.calls import Calls
from pgml_tune.service.classification import Classification
from pgml_tune.service.counters import Counters
from pgml_tune.service.local_runtime import LocalRuntime
from pgml_tune.service.routing import Router
from pgml_tune.service.runtime import Runtimes
from pgml_tune.settings import Limits
from pgml_tune.store.registry import Destination, Split, Target
from tests.unit.test_records import CONFIG, LABELS


class Classifier:
    """Finds the second and the last label equally probable, and counts texts of more than ten characters as cut."""

    config = ArtifactConfig.from_json(CONFIG | {"task": "classification", "labels": LABELS})

    def classify(self, texts, work, checkpoint):
        work.tokens += 5
        work.truncated += len(texts[0]) > 10
        return np.array([[0.1, 0.4, 0.1, 0.4]])

    best, _most_probable = classifier.Classifier.best, classifier.Classifier._most_probable


class Models:
    """Artifact "damaged" cannot be loaded."""

    load_count, most_sessions = 0, 0

    def get(self, kind, digest, threads):
        if digest == "damaged":
            raise ArtifactDamaged("cannot be loaded")
        return Classifier()


class Worker:
    """Is not asked."""

    load_count = 0


class Rules:
    """Every name means the same version; the settings are what the test says."""

    limits = Limits.from_rows({})
    split = None

    def follow(self, db, model, task):
        assert task == "classification"
        return Destination(Target(7, model, "v1", "d", 4), self.split), self.limits


class Session:
    def checkpoint(self):
        pass

    def preference(self, name):
        return None


class Table:
    flushes = 0

    def flush_if_due(self, db):
        self.flushes += 1


@pytest.fixture
def counters():
    return Counters()


class Log:
    def __init__(self):
        self.ended = []

    def begin(self, db, start):
        pass

    def end(self, db, record):
        self.ended.append(record)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def classification(counters, log, monkeypatch):
    models = Models()
    runtimes = Runtimes(lambda: LocalRuntime(models), Worker(), lambda: "in_process", models)
    calls = Calls(runtimes, counters, Table(), log)
    monkeypatch.setattr(calls, "_rules", Rules())
    return Classification(runtimes, calls, Router(calls))


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


def test_a_call_is_logged_with_its_labels_and_one_that_fails_always(classification, log, monkeypatch):
    monkeypatch.setattr(Rules, "limits", Limits.from_rows({"log_sample": "1"}))
    classification.classify(Session(), "text", "intents", 2)
    monkeypatch.setattr(Rules, "limits", Limits.from_rows({"log_sample": "0", "long_input": "error"}))
    classification.classify(Session(), "text", "intents", 2)
    with pytest.raises(LimitExceeded):
        classification.classify(Session(), "a long text", "intents", 2)
    well, ill = log.ended
    assert (well.task, well.model, well.version, well.output_count, well.sqlstate) == (
        "classify",
        "intents",
        "v1",
        2,
        None,
    )
    assert (ill.sqlstate, ill.sample_rate, ill.input_bytes, ill.input_text) == ("54000", 1.0, 11, None)
    assert well.call_id < ill.call_id


@pytest.mark.parametrize(("digest", "answered_by", "failure"), [("d2", "v2", None), ("damaged", "v1", "XX001")])
def test_a_candidate_classifies_and_where_it_fails_the_serving_version(
    classification, log, monkeypatch, digest, answered_by, failure
):
    monkeypatch.setattr(Rules, "split", Split(1, 1, 10_000, "salt", Target(8, "intents", "v2", digest, 4)))
    assert classification.classify(Session(), "text", "intents", 1)
    (row,) = log.ended
    assert (row.version, row.exposure.variant, row.sqlstate, row.answer) == (
        answered_by,
        "candidate",
        failure,
        LABELS[1],
    )


def test_the_limits_of_an_input_hold(classification, monkeypatch):
    with pytest.raises(LimitExceeded):
        classification.classify(Session(), "é" * 600_000, "intents", 1)
    monkeypatch.setattr(Rules, "limits", Limits.from_rows({"long_input": "error"}))
    with pytest.raises(LimitExceeded):
        classification.classify(Session(), "a long text", "intents", 1)
    assert classification.classify(Session(), "text", "intents", 1)
