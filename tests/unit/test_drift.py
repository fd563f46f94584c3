"""Whether calls differ from those before them."""

import base64

import numpy as np
import pytest

from pgml_tune.service.drift import compare_calls
from pgml_tune.store.drift import AskedCall

CALLS = 400


def calls(random, *, is_reference, longer=1.0, unknown=0.02, moved=0.0, count=CALLS):
    lengths = longer * random.lognormal(4, 0.5, count)
    direction = np.zeros(32)
    direction[0] = moved
    sketches = np.clip(np.round(20 * (random.standard_normal((count, 32)) + direction)), -127, 127).astype(np.int8)
    shares = random.beta(2, 2 / unknown, count)
    for length, share, sketch in zip(lengths.tolist(), shares.tolist(), sketches, strict=True):
        encoded = base64.b64encode(sketch.tobytes()).decode()
        yield AskedCall("v1", "space", is_reference, round(length), round(length / 4), share, encoded)


def report(random, **current):
    lines = compare_calls([*calls(random, is_reference=True), *calls(random, is_reference=False, **current)])
    return {line["metric"]: line for line in lines}


@pytest.mark.parametrize("seed", range(3))
def test_calls_like_those_before_are_stable(seed):
    found = report(np.random.default_rng(seed))
    assert [(metric, line["outcome"]) for metric, line in found.items()] == [
        ("input_bytes", "stable"), ("tokens", "stable"), ("unknown_share", "stable"), ("embedding", "stable"),
    ]  # fmt: skip
    assert all(line["versions"] == "v1" and line["current_n"] == CALLS for line in found.values())


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        ({"longer": 1.5}, {"input_bytes", "tokens"}),
        ({"unknown": 0.1}, {"unknown_share"}),
        ({"moved": 2.0}, {"embedding"}),
    ],
)
def test_what_has_changed_has_drifted_and_nothing_else(change, drifted):
    found = report(np.random.default_rng(6), **change)
    assert {metric for metric, line in found.items() if line["outcome"] == "drift"} == drifted
    for metric in drifted:
        assert found[metric]["p_value"] == 0.002
        assert found[metric]["effect"] > found[metric]["threshold"]


def test_a_small_change_is_significant_and_yet_no_drift():
    found = report(np.random.default_rng(7), moved=0.5, count=2000)["embedding"]
    assert found["p_value"] <= 0.01
    assert found["outcome"] == "stable"


def test_permutation_is_wrong_about_as_often_as_it_says():
    random = np.random.default_rng(8)
    reports = [report(random, count=150) for _ in range(20)]
    p_values = [found[metric]["p_value"] for found in reports for metric in ("tokens", "embedding")]
    assert 1 <= sum(p_value <= 0.1 for p_value in p_values) <= 11


def test_few_calls_say_nothing():
    found = report(np.random.default_rng(9), count=99)
    assert {line["outcome"] for line in found.values()} == {"no_data"}


def test_calls_that_all_look_the_same_are_stable():
    same = [AskedCall("v1", "space", number % 2 == 0, 10.0, 3.0, 0.0, None) for number in range(400)]
    found = {line["metric"]: line for line in compare_calls(same)}
    assert [line["outcome"] for line in found.values()] == ["stable", "stable", "stable", "no_data"]
    assert "log_sketch" in found["embedding"]["words"]
