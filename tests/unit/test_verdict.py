"""What follows from what was seen of two variants."""

import json
import math
from dataclasses import replace

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.ab_test import Sample
from pgml_tune.service.evidence import Arm, Evidence, Phase, combine
from pgml_tune.service.guardrails import Guardrails, units_needed
from pgml_tune.service.verdict import judge

GUARDRAILS = Guardrails()


def arm(units, failed=0, slow=0, ln_ms=1.0, score=None, deviation=0.9):
    return Arm(
        units=units, entered=units, newcomers=units, failed=failed, first_failed=failed, slow=slow, first_slow=slow,
        latency=Sample(units, ln_ms, deviation**2), score=None if score is None else Sample(units, score, 0.2),
    )  # fmt: skip


def evidence(serving, candidate, share=5000, **more):
    return Evidence([Phase(1, share, serving, candidate, **more)])


def findings(verdict):
    return {finding.metric: finding for finding in verdict.findings}


def test_a_candidate_like_the_serving_version_passes_once_enough_is_seen():
    assert judge(evidence(arm(200), arm(200)), GUARDRAILS).outcome == "inconclusive"
    assert judge(evidence(arm(6000), arm(6000)), GUARDRAILS).outcome == "pass"


def test_a_slow_candidate_fails():
    verdict = judge(evidence(arm(3000), arm(3000, ln_ms=1 + math.log(1.2))), GUARDRAILS)
    assert (verdict.outcome, findings(verdict)["latency"].outcome) == ("fail", "fail")
    assert findings(verdict)["latency"].effect == pytest.approx(0.2)
    assert findings(verdict)["latency"].e_value > 1 / GUARDRAILS.alpha_each


def test_a_candidate_that_is_slower_by_less_than_the_margin_passes():
    verdict = judge(evidence(arm(40_000), arm(40_000, ln_ms=1 + math.log(1.05))), GUARDRAILS)
    assert findings(verdict)["latency"].interval_low > 0
    assert verdict.outcome == "pass"


def test_errors_of_the_candidate_fail_it_before_anything_else_can_be_judged():
    verdict = judge(evidence(arm(60), arm(60, failed=25)), GUARDRAILS)
    assert (verdict.outcome, findings(verdict)["error_rate"].outcome) == ("fail", "fail")


def test_errors_of_the_serving_version_are_not_held_against_the_candidate():
    assert judge(evidence(arm(6000, failed=300), arm(6000, failed=10)), GUARDRAILS).outcome == "pass"


def test_equal_error_rates_pass_when_the_ratio_is_known_well():
    verdict = judge(evidence(arm(9000, failed=900), arm(9000, failed=900)), GUARDRAILS)
    assert findings(verdict)["error_rate"].interval_high < 0.5
    assert verdict.outcome == "pass"


def test_a_few_errors_that_are_surely_rare_pass():
    verdict = judge(evidence(arm(6000, failed=3), arm(6000, failed=4)), GUARDRAILS)
    assert findings(verdict)["error_rate"].interval_high > 0.5
    assert verdict.outcome == "pass"


def test_worse_scores_fail_and_no_feedback_holds_nothing_up():
    assert findings(judge(evidence(arm(6000), arm(6000)), GUARDRAILS))["quality"].outcome == "no_data"
    verdict = judge(evidence(arm(6000, score=0.8), arm(6000, score=0.75)), GUARDRAILS)
    assert (verdict.outcome, findings(verdict)["quality"].outcome) == ("fail", "fail")


def test_feedback_that_says_too_little_holds_the_step():
    verdict = judge(evidence(arm(6000, score=0.8), arm(6000, score=0.79)), GUARDRAILS)
    assert (verdict.outcome, findings(verdict)["quality"].outcome) == ("inconclusive", "inconclusive")


def test_a_promised_latency_is_a_guardrail_of_its_own_and_can_only_fail():
    promised = replace(GUARDRAILS, slo_ms=50.0)
    assert judge(evidence(arm(6000, slow=60), arm(6000, slow=240)), promised).outcome == "fail"
    assert judge(evidence(arm(9000, slow=60), arm(9000, slow=62)), promised).outcome == "pass"
    assert "slo" not in findings(judge(evidence(arm(6000), arm(6000)), GUARDRAILS))


def test_lost_units_are_a_mismatch_and_nothing_else_is_said():
    verdict = judge(evidence(arm(6000), arm(5400, failed=500)), GUARDRAILS)
    assert (verdict.outcome, [finding.metric for finding in verdict.findings]) == ("mismatch", ["sample_ratio"])


def test_a_unit_in_both_variants_is_a_mismatch():
    assert judge(evidence(arm(600), arm(600), in_both=1), GUARDRAILS).outcome == "mismatch"


@pytest.mark.parametrize("seen", [Evidence([]), evidence(Arm(), Arm())])
def test_nothing_seen_is_no_data(seen):
    assert judge(seen, GUARDRAILS).outcome == "no_data"


def test_a_candidate_that_nobody_was_sent_to_does_not_pass():
    verdict = judge(evidence(arm(900), Arm(), share=10), GUARDRAILS)
    assert (verdict.outcome, findings(verdict)["latency"].outcome) == ("inconclusive", "no_data")


def test_a_new_phase_does_not_pass_on_what_was_seen_before_it():
    seen = [Phase(1, 5000, arm(6000), arm(6000)), Phase(2, 5000, arm(50), arm(50))]
    assert judge(Evidence(seen[:1]), GUARDRAILS).outcome == "pass"
    assert judge(Evidence(seen), GUARDRAILS).outcome == "inconclusive"


def test_phases_are_compared_within_themselves():
    """Simpson's paradox: the candidate is slower on both days, and faster if they are thrown together."""
    quiet, busy = 0.0, 2.0
    days = [
        Phase(1, 5000, arm(5000, ln_ms=quiet), arm(5000, ln_ms=quiet + 0.3)),
        Phase(2, 100, arm(99_000, ln_ms=busy), arm(1000, ln_ms=busy + 0.3)),
    ]
    difference = combine(days, "latency", {})
    assert difference.estimate == pytest.approx(0.3)
    assert judge(Evidence(days), GUARDRAILS).outcome == "fail"


def test_units_that_come_back_in_a_later_phase_count_as_the_same():
    phases = [Phase(number, 5000, arm(100), arm(100)) for number in (1, 2)]
    squared_error = 2 * 0.9**2 / 100
    independent, same = (combine(phases, "latency", {(1, 2): covariance}) for covariance in (0, squared_error))
    assert independent.error == pytest.approx(math.sqrt(squared_error / 2))
    assert same.error == pytest.approx(math.sqrt(squared_error))


def test_a_verdict_is_json_with_all_its_numbers():
    verdict = judge(evidence(arm(6000, failed=3), arm(6000, failed=5000)), GUARDRAILS)
    values = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert [finding["metric"] for finding in values["findings"]] == ["sample_ratio", "error_rate", "latency", "quality"]
    assert values["findings"][1]["candidate_n"] == 6000


def test_guardrails_are_the_defaults_but_for_what_is_given():
    given = Guardrails.parse({"alpha": 0.1, "slo_ms": 20, "min_units": 50})
    assert given == Guardrails(alpha=0.1, slo_ms=20, min_units=50)
    assert Guardrails.parse(given.to_json()) == given
    assert (given.alpha_each, GUARDRAILS.alpha_each) == (0.025, 0.05 / 3)


@pytest.mark.parametrize(
    "values",
    [
        {"alfa": 0.05}, {"alpha": 0}, {"alpha": 1}, {"alpha": True}, {"alpha": "0.05"}, {"alpha": None},
        {"alpha": math.nan}, {"min_units": 1}, {"min_units": 10.5}, {"slo_ms": 0}, {"slo_ms": []},
        {"expected_units": 10**10}, {"latency_margin": -0.1}, {"quality_margin": 2}, {"error_tolerance": 1.5},
    ],
)  # fmt: skip
def test_guardrails_that_make_no_sense_are_refused(values):
    with pytest.raises(InvalidArgument):
        Guardrails.parse(values)


def test_the_units_needed_are_those_after_which_a_like_candidate_passes():
    total = units_needed(2000, GUARDRAILS)
    assert 8000 < total < 30_000
    serving, candidate = arm(0.8 * total), arm(0.2 * total)
    assert judge(evidence(serving, candidate, share=2000), GUARDRAILS).outcome == "pass"
    assert units_needed(100, GUARDRAILS) > 5 * total > units_needed(5000, GUARDRAILS)
    assert units_needed(5000, replace(GUARDRAILS, error_tolerance=1.0), deviation=0.01) == 2 * GUARDRAILS.min_units
    assert units_needed(10_000, GUARDRAILS) == 0


def test_the_units_needed_suffice_to_rule_errors_out():
    total = units_needed(5000, GUARDRAILS, deviation=0.01)
    steady = arm((total + 1) // 2, deviation=0.01)
    assert judge(evidence(steady, steady), GUARDRAILS).outcome == "pass"
    fewer = arm(int(0.45 * total), deviation=0.01)
    assert judge(evidence(fewer, fewer), GUARDRAILS).outcome == "inconclusive"
