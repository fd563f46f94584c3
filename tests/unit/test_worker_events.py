"""What a job process says, whatever it says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgml_tune.store.job_run import Part
from pgml_tune.worker.events import Reports, parse_event, plain_line

DIGEST = "0" * 64
TRAIN = Part("train", "SELECT 1", 10, "f" * 64, ["a"], "text")


def reports(*events: object) -> Reports:
    said = Reports({"train": TRAIN})
    for event in events:
        parsed = parse_event(json.dumps(event))
        assert parsed is not None
        said.take(parsed)
    return said


@pytest.mark.parametrize("line", ["", "Epoch 1", "[]", "3", '{"event": 1}', '{"a": "b"}', "{" * 100_000, '{"event"'])
def test_what_is_no_event_is_told_apart(line: str) -> None:
    assert parse_event(line) is None


def test_what_postgresql_cannot_keep_is_left_out() -> None:
    event = parse_event('{"event": "result", "text": "a\\u0000b\\ud800", "score": NaN, "deep": [{"k": Infinity}]}')
    assert event == {"event": "result", "text": "ab?", "score": None, "deep": [{"k": None}]}


def test_progress_is_kept_as_far_as_it_has_the_types_of_the_table() -> None:
    said = reports({"event": "progress", "phase": "training", "step": 1 << 70, "steps": 3, "loss": 1, "metric": 7})
    assert said.progress == {
        "phase": "training", "step": None, "steps": 3, "loss": 1.0, "metric": None, "value": None,
    }  # fmt: skip


def test_each_phase_is_a_line_of_the_log() -> None:
    said = reports(*({"event": "progress", "phase": phase} for phase in ("loading", "training", "training")))
    assert said.lines == ["loading", "training"]


@pytest.mark.parametrize("change", [{"digest": "../x"}, {"digest": 3}, {"suffix": "/../x"}, {"suffix": "int8"}])
def test_an_artifact_of_a_strange_name_is_none(change: dict[str, object]) -> None:
    said = reports({"event": "artifact", "suffix": "-int8", "digest": DIGEST} | change)
    assert said.artifacts == [] and len(said.lines) == 1


def test_figures_keep_what_they_were_measured_on() -> None:
    event = {"event": "evaluation", "of": "new", "digest": DIGEST, "figures": {"spearman": 89.1}}
    said = reports(event | {"part": "train", "rows": 3}, event | {"part": "train"}, event | {"part": None})
    rows = [entry["dataset"] and entry["dataset"]["dataset_rows"] for entry in said.evaluations]
    assert rows == [3, 10, None]


def test_an_error_of_no_sqlstate_is_a_line_of_the_log() -> None:
    said = reports({"event": "error", "sqlstate": "no", "message": "x"})
    assert said.error is None and len(said.lines) == 1


def test_of_a_bar_that_overwrites_itself_the_last_state_is_kept() -> None:
    assert plain_line(" 0%|\r 50%|\r100%| done\n") == "100%| done"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["phase", "step", "steps", "loss", "metric", "value", "digest", "suffix", "of", "part", "rows", "figures",
     "sqlstate", "message", "detail", "hint"]
)  # fmt: skip


@given(st.sampled_from(["progress", "log", "artifact", "evaluation", "result", "error", "x"]),
       st.dictionaries(FIELDS, VALUES))  # fmt: skip
def test_nothing_that_a_process_says_disturbs_the_worker(kind: str, fields: dict[str, object]) -> None:
    said = reports(fields | {"event": kind})
    written = [said.progress, said.artifacts, said.evaluations, said.result, said.lines]
    assert "\\u0000" not in json.dumps(written, allow_nan=False)
    if said.error is not None:
        assert type(said.error.detail) is str and type(said.error.hint) is str
