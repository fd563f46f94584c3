"""Which ways of running a network are tried, which is taken, and what becomes of one that cannot be."""

import json
import logging

import numpy as np
import pytest

from pgml_tune.engine import encoder, machine, openvino
from pgml_tune.engine.choice import Machine, Measured, candidates, choose, present_way
from pgml_tune.engine.turns import InTurns
from pgml_tune.engine.way import ENGINES, Way
from pgml_tune.errors import NotSupported
from pgml_tune.serving import hosted
from pgml_tune.serving.choices import Choice, read_choices
from pgml_tune.serving.hosted import Models
from tests.unit.serving_parts import Network, publish_model

CPU_ONLY = Machine(4, {"onnxruntime", "openvino"})
OPENVINO = Way.of("openvino", 1, 2, 8)


def measured(way=OPENVINO, **changes):
    figures = {"texts_per_second": 500.0, "gain": 1.3, "latency_ms": 2.0, "agreement": 1.0, "invariance": 1.0}
    return Measured(way, **figures | changes)


def test_each_engine_is_tried_on_each_division_of_the_cores():
    shapes = {(way.name, way.threads, way.lanes) for way in candidates(CPU_ONLY, None, 32)}
    assert shapes == {(name, *shape) for name in CPU_ONLY.engines for shape in ((1, 4), (2, 2), (4, 1))}
    assert {way.batch_size for way in candidates(CPU_ONLY, None, 32)} == {8, 32}
    assert {way.batch_size for way in candidates(CPU_ONLY, None, 4)} == {4}


def test_only_engines_that_are_wanted_and_there_are_tried():
    assert {way.name for way in candidates(CPU_ONLY, ["openvino", "cuda"], 32)} == {"openvino"}


def test_the_present_way_is_a_thread_for_each_core_or_the_gpu():
    assert present_way(CPU_ONLY, 32) == Way.of("onnxruntime", 1, 4, 32)
    assert present_way(Machine(8, {"onnxruntime", "cuda"}), 32) == Way.of("cuda", 1, 2, 32)


def test_the_fastest_that_keeps_the_vectors_is_taken():
    fast, faster = measured(gain=1.2), measured(gain=2.0, agreement=0.99995)
    assert choose([fast, faster], 0.99999, is_invariant=True) == fast
    assert choose([fast, faster], 0.9999, is_invariant=True) == faster


@pytest.mark.parametrize(
    "changes",
    [{"gain": 1.04}, {"agreement": float("nan")}, {"invariance": 0.9}, {"problem": "it cannot be loaded"}],
    ids=["too small a gain", "no numbers", "depends on its neighbours", "cannot run"],
)
def test_a_way_that_is_not_worth_it_is_not_taken(changes):
    assert choose([measured(**changes)], 0.99999, is_invariant=True) is None


def test_a_version_that_depends_on_its_neighbours_anyway_may_do_so_in_another_way():
    assert choose([measured(invariance=0.9)], 0.99999, is_invariant=False) is not None


@pytest.mark.parametrize("name", ENGINES)
def test_a_way_is_what_was_written_down(name):
    way = Way.of(name, 2, 3, 32)
    assert Way.from_json(json.loads(json.dumps(way.to_json()))) == way
    assert way.name == name


@pytest.mark.parametrize("wrong", [{"engine": "rubbish"}, {"threads": 0}, {"lanes": True}, {"precision": "fp8"}])
def test_what_is_no_way_is_refused(wrong):
    with pytest.raises(ValueError):
        Way.from_json(OPENVINO.to_json() | wrong)
    with pytest.raises(ValueError):
        Way.from_json({})


def test_a_way_takes_no_more_threads_than_there_are():
    assert Way.of("openvino", 2, 4, 8).within(4) == Way.of("openvino", 2, 2, 8)
    assert Way.of("openvino", 8, 1, 8).within(2) == Way.of("openvino", 2, 1, 8)
    assert Way.of("cuda", 1, 2, 8).within(1) == Way.of("cuda", 1, 2, 8)


def test_the_machine_is_told_in_words():
    words = machine.fingerprint()
    assert "cores" in words and "onnxruntime" in words
    assert words == machine.fingerprint()


def test_a_batch_on_several_threads_waits_for_the_one_before():
    running = []

    class Counting:
        def run(self, token_ids, attention_mask):
            running.append(1)
            assert len(running) == 1
            running.pop()
            return token_ids

    assert InTurns(Counting(), 1).run(np.ones((1, 1)), None).shape == (1, 1)


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "OnnxRuntime", Network)
    return Models(tmp_path, 1 << 40)


def missing(*arguments):
    raise NotSupported("Python package \"openvino\" cannot be loaded")


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_where_a_library_is_missing_or_the_machine_another_one_the_own_engine_runs_and_the_log_says_so(
    tmp_path, monkeypatch, caplog, models, place
):
    monkeypatch.setattr(openvino, "OpenVinoRuntime", missing)
    digest = publish_model(tmp_path)
    chosen_on = machine.fingerprint() if place == "here" else "another machine"
    models.choices = {digest: Choice(chosen_on, OPENVINO)}
    with caplog.at_level(logging.WARNING, hosted.log.name):
        model = models.open(digest, 2)
    models.keep(model)
    assert (model.way, model.engine, len(caplog.records)) == (None, "onnxruntime", 1)
    assert models.outdated() == []  # it is not tried again and again


def test_a_model_is_opened_in_the_way_that_was_chosen_and_again_when_that_changes(tmp_path, monkeypatch, models):
    monkeypatch.setattr(openvino, "OpenVinoRuntime", Network)
    digest = publish_model(tmp_path)
    models.keep(models.open(digest, 2))
    own = models.loaded[digest]
    own.users, own.calls = 1, 7
    models.choices = {digest: Choice(machine.fingerprint(), OPENVINO)}
    assert models.outdated() == [digest]
    models.keep(models.open(digest, 2))
    chosen = models.loaded[digest]
    assert (chosen.way, chosen.engine, chosen.most_texts(32), models.outdated()) == (OPENVINO, "openvino", 8, [])
    assert (chosen.users, chosen.calls) == (1, 7)  # whoever has begun with the other one ends here
    models.choices = {}
    assert models.outdated() == [digest]


def test_a_model_that_is_opened_in_another_way_needs_no_room_beside_itself(tmp_path, models):
    digest = publish_model(tmp_path)
    models.keep(models.open(digest, 2))
    models.pins, models.budget_bytes = frozenset({digest}), models.loaded[digest].bytes
    models.make_room(digest)
    assert (models._bytes, digest in models.loaded) == (models.opening[digest], True)


def test_what_ran_while_the_process_crashed_and_what_cannot_be_read_run_by_their_own_engine():
    told = {"machine": "here", "way": OPENVINO.to_json()}
    wrong = [{}, {"machine": "here"}, {"machine": "here", "way": 7}, {"machine": "here", "way": {"engine": "x"}}, None]
    ways = {"a": told, "b": told} | {str(number): values for number, values in enumerate(wrong)}
    assert read_choices(ways, {"b"}) == {"a": Choice("here", OPENVINO)}


def test_without_the_library_an_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(openvino.importlib, "import_module", raising)
    with pytest.raises(NotSupported) as refusal:
        openvino.load_library()
    assert refusal.value.hint == "make install-openvino"


def raising(name):
    raise ImportError(f"No module named {name!r}")
