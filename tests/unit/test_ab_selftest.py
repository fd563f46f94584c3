"""Tests of rollouts, tried on calls of one version."""

import numpy as np

from pgml_tune.service.ab_selftest import LOOKS, false_alarms, looks_at
from pgml_tune.service.guardrails import Guardrails
from pgml_tune.store.experiment import ServedCall

ROUNDS = 400


def calls(units=2000, per_unit=3, error_rate=0.05):
    random = np.random.default_rng(1)
    own = random.standard_normal(units)
    order = random.permutation(np.repeat(np.arange(units), per_unit)).tolist()
    return [
        ServedCall(unit, float(np.exp(own[unit] + 0.3 * random.standard_normal())), bool(random.random() < error_rate))
        for unit in order
    ]


def test_the_tests_keep_what_they_promise_and_a_t_test_at_each_look_does_not():
    alarms = {name: flags.mean() for name, flags in false_alarms(looks_at(calls()), ROUNDS, Guardrails()).items()}
    assert alarms["sample_ratio"] <= 0.01
    assert alarms["error_rate"] <= Guardrails().alpha_each
    assert alarms["latency"] <= Guardrails().alpha_each
    assert alarms["rollback"] <= Guardrails().alpha
    assert alarms["latency_welch_t"] > 2 * Guardrails().alpha_each


def test_a_unit_is_known_at_each_look_by_its_calls_so_far():
    looks = list(looks_at([ServedCall(7, 1.0, False), ServedCall(9, None, True)] * 25))
    assert len(looks) == LOOKS
    assert looks[0].is_seen.tolist() == [True, False]
    assert looks[-1].has_failed.tolist() == [False, True]
    assert np.nan_to_num(looks[-1].ln_ms, nan=-1).tolist() == [0, -1]
