"""Ways of running a version, measured on a network that is made up."""

import numpy as np
import pytest

from pgml_tune.engine import encoder
from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.choice import Machine, present_way
from pgml_tune.engine.way import Way
from pgml_tune.jobs import tuning
from pgml_tune.jobs.racing import Race, Served
from tests.unit.serving_parts import Network, publish_model

PRESENT = present_way(Machine(2, {"onnxruntime"}), 32)
OTHER = Way.of("openvino", 1, 2, 8)


class Rounded(Network):
    """Computes a little else than the network it stands for."""

    def run(self, token_ids, attention_mask):
        found = super().run(token_ids, attention_mask)
        found[:, 0] *= 1.5
        return found


class Dependent(Network):
    """Its rows depend on how many others there are."""

    def run(self, token_ids, attention_mask):
        found = super().run(token_ids, attention_mask)
        found[:, 0] *= 1 + (len(token_ids) > 1)
        return found


@pytest.fixture
def race(tmp_path, monkeypatch):
    """Runs the race of a network against the version's own."""

    def run(network, **changes):
        def open_own(file, threads, output, provider=None):
            return Network(file, threads, output)

        monkeypatch.setattr(encoder, "OnnxRuntime", open_own)
        monkeypatch.setattr(encoder.openvino, "OpenVinoRuntime", network)
        artifact = Artifact(tmp_path, publish_model(tmp_path, **changes))
        return Race(artifact, PRESENT, Served(32, 8192), 0.01).run([OTHER])[0]

    return run


def test_a_way_that_computes_the_same_agrees(race):
    found = race(Network)
    assert found.agreement == pytest.approx(1) and found.invariance == pytest.approx(1)
    assert found.texts_per_second > 0 and found.gain > 0 and found.latency_ms > 0


def test_a_way_that_computes_something_else_does_not_agree(race):
    found = race(Rounded)
    assert found.agreement < 0.9999
    assert found.invariance == pytest.approx(1)


def test_a_way_whose_vectors_depend_on_their_neighbours_is_found_out(race):
    assert race(Dependent).invariance < 0.9999


def test_a_version_that_is_not_invariant_is_compared_text_by_text(race):
    found = race(Dependent, is_batch_invariant=False)
    assert found.agreement == pytest.approx(1)


def test_the_best_has_to_be_so_twice():
    fast, steady = (tuning.Measured(Way.of("openvino", threads, 1, 8), agreement=1, invariance=1, gain=gain)
                    for threads, gain in ((1, 3.0), (2, 1.2)))  # fmt: skip

    class Again:
        def run(self, ways):
            gain = 1.0 if ways == [fast.way] else 1.3
            return [tuning.Measured(ways[0], agreement=1, invariance=1, gain=gain)]

    measured = [tuning.Measured(PRESENT, gain=1.0), fast, steady]
    chosen = tuning._confirmed(Again(), measured, 0.99999, is_invariant=True)
    assert (chosen.way, chosen.gain) == (steady.way, 1.2)


def test_a_way_that_fails_is_told_with_its_reason(monkeypatch):
    class Failing:
        def run(self, ways):
            if ways[0] == OTHER:
                raise RuntimeError("no such operator\nat line 7")
            return [tuning.Measured(way, gain=1.0) for way in ways]

    class Report:
        def progress(self, *arguments, **values):
            pass

        def log(self, message):
            pass

    measured = tuning._measure(Failing(), [PRESENT, OTHER], Report())
    assert [each.problem for each in measured] == ["", "RuntimeError: no such operator"]
    assert np.isfinite(measured[0].gain)
