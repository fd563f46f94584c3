"""What the worker decides about the process that serves models."""

import os
import signal

import pytest

from pgml_tune.engine.way import Way
from pgml_tune.ipc.note import Note, read_note
from pgml_tune.records import ModelReference
from pgml_tune.settings import Limits
from pgml_tune.store.engine_choice import EngineChoice
from pgml_tune.worker.suspicion import Suspicion
from pgml_tune.worker.wishes import Wish, Wishes, combined

ONE, OTHER = "1" * 64, "2" * 64


def test_a_model_is_not_run_any_more_after_three_crashes():
    suspicion = Suspicion()
    for _ in range(2):
        assert suspicion.ended(-signal.SIGSEGV, {ONE})
    assert (suspicion.suspects, suspicion.quarantined) == ([ONE], [])
    suspicion.ended(-signal.SIGABRT, {ONE})
    assert (suspicion.suspects, suspicion.quarantined) == ([], [ONE])


def test_a_neighbour_of_a_crash_is_a_suspect_only():
    suspicion = Suspicion()
    suspicion.ended(-signal.SIGSEGV, {ONE, OTHER})
    suspicion.ended(-signal.SIGSEGV, {ONE})
    suspicion.ended(-signal.SIGSEGV, {ONE})
    assert (suspicion.suspects, suspicion.quarantined) == ([OTHER], [ONE])


def test_an_end_from_outside_is_no_crash():
    suspicion = Suspicion()
    for status in (-signal.SIGKILL, -signal.SIGTERM, 0, 1):
        for _ in range(5):
            assert not suspicion.ended(status, {ONE})
    assert (suspicion.suspects, suspicion.quarantined) == ([], [])


def test_where_databases_differ_the_smallest_limit_counts_and_the_models_of_all():
    rows = ({"batch_size": "64"}, {"batch_size": "48", "serve_threads": "3"}, {})
    wishes = [Wish.of(Limits.from_rows(row), [digest]) for row, digest in zip(rows, (ONE, OTHER, ONE), strict=True)]
    order = combined(wishes)
    assert (order["batch_size"], order["serve_threads"], order["max_wait_ms"]) == (48, 3, 100)
    assert order["pins"] == [ONE, OTHER]


def choosing(engine, measured_at, agreement=1.0):
    """A database that has version ONE and has chosen a way for it; None: it has not."""
    way = Way.of(engine, 1, 2, 32).to_json() if engine else None
    choices = [EngineChoice(ONE, ModelReference("m", "v1"), "here", way, agreement, measured_at)] if way else []
    return Wish.of(Limits.from_rows({}), [], choices, [ONE])


def chosen_of(wishes, **options):
    ways = combined(wishes, **options)["ways"]
    return ways[ONE]["way"]["precision"] if ways else None


def test_of_ways_that_databases_have_chosen_the_newest_counts():
    assert chosen_of([choosing("openvino", 2.0), choosing("openvino_bf16", 1.0)]) == "fp32"
    assert chosen_of([choosing("openvino", 1.0), choosing(None, 0)]) == "fp32"
    assert chosen_of([choosing(None, 0)]) is None


def test_a_way_that_changes_vectors_counts_only_where_every_database_that_has_the_version_has_one():
    lossy, exact, none = choosing("openvino_bf16", 2.0, 0.9999), choosing("openvino", 1.0), choosing(None, 0)
    assert chosen_of([lossy]) == chosen_of([lossy, lossy]) == "bf16"
    assert chosen_of([lossy, Wish.of(Limits.from_rows({}), [OTHER], [], [OTHER])]) == "bf16"
    assert chosen_of([lossy, none]) is None
    assert chosen_of([lossy, exact]) == "fp32"
    assert chosen_of([lossy], is_whole=False) is None


def test_a_way_that_changes_vectors_waits_until_all_databases_have_told():
    wishes, lossy = Wishes(), choosing("openvino_bf16", 2.0, 0.9999)
    wishes.tell("app", lossy)
    assert wishes.order()["ways"] == {}
    wishes.expect(["app", "other", "without"])
    assert wishes.order()["ways"] == {}
    wishes.tell("other", lossy)
    wishes.forget("without")
    assert ONE in wishes.order()["ways"]


def test_a_database_that_is_not_served_any_more_wants_nothing():
    wishes = Wishes()
    wishes.tell("app", Wish.of(Limits.from_rows({"batch_size": "1"}), [ONE]))
    assert wishes.order()["pins"] == [ONE]
    wishes.forget("app")
    assert (wishes.order()["pins"], wishes.order()["batch_size"]) == ([], 32)


def test_a_note_is_no_link_to_a_file_of_somebody(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("of value")
    (tmp_path / "worker.note").symlink_to(kept)
    with pytest.raises(OSError):
        Note(tmp_path / "worker.note", 2)
    assert kept.read_text() == "of value"


def test_what_a_former_process_ran_is_not_held_against_a_model(tmp_path):
    path = tmp_path / "worker.note"
    note = Note(path, 2)
    begun_at = path.stat().st_mtime
    with note.running(1, ONE):
        assert read_note(path, begun_at) == [ONE]
        os.utime(path, (begun_at - 5, begun_at - 5))
        assert read_note(path, begun_at) == []
    assert read_note(path, 0.0) == []
