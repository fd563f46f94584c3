"""Where a rollout goes from here: any plan ends, and nobody is promoted for want of data."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.rollout_options import RolloutOptions, shares
from pgml_tune.service.rollout_plan import ALL, Position, next_action

OUTCOMES = ("fail", "pass", "inconclusive", "no_data", "mismatch")
PLANS = st.lists(st.floats(0.01, 100), min_size=1, max_size=100).map(
    lambda steps: sorted({round(step, 2) for step in steps})
)


def position(share, plan, state="running", on_expiry="rollback", is_expired=False):
    return Position(state, share, plan, on_expiry, is_expired)


@given(PLANS, st.integers(1, ALL - 1))
def test_a_candidate_that_always_passes_is_promoted_whatever_the_plan(plan, share):
    steps, looks = shares(plan), 0
    while (action := next_action(position(share, steps), "pass", "")).step != "promote":
        assert action.step == "share" and share < action.share < ALL
        share, looks = action.share, looks + 1
        assert looks <= len(steps)


@given(
    PLANS,
    st.integers(1, ALL - 1),
    st.lists(st.sampled_from(OUTCOMES), max_size=50),
    st.sampled_from(["rollback", "promote"]),
)
def test_any_plan_and_any_verdicts_end_by_the_time_the_rollout_expires(plan, share, outcomes, on_expiry):
    steps, state = shares(plan), "running"
    for number, outcome in enumerate([*outcomes, "inconclusive", "no_data"]):
        is_expired = number >= len(outcomes)
        action = next_action(position(share, steps, state, on_expiry, is_expired), outcome, "")
        if action.step in ("promote", "rollback"):
            return
        share, state = action.share or share, "paused" if action.step == "pause" else state
    raise AssertionError("stuck")


@pytest.mark.parametrize("state, is_expired", list(itertools.product(("running", "paused"), (False, True))))
def test_who_fails_goes_back_at_once(state, is_expired):
    assert next_action(position(500, [500, ALL], state, "promote", is_expired), "fail", "slow").step == "rollback"


@pytest.mark.parametrize("outcome", ["inconclusive", "no_data", "mismatch"])
def test_nobody_is_promoted_without_proof(outcome):
    for on_expiry, is_expired in itertools.product(("rollback", "hold"), (False, True)):
        action = next_action(position(500, [500, ALL], "running", on_expiry, is_expired), outcome, "")
        assert action.step in ("hold", "pause", "rollback")


def test_a_paused_rollout_waits_for_somebody():
    assert next_action(position(500, [500, ALL], "paused"), "pass", "").step == "hold"


def test_units_that_were_split_wrongly_promote_nobody():
    assert next_action(position(500, [500, ALL], "running", "promote", True), "mismatch", "").step == "rollback"


def test_without_a_plan_the_share_stays():
    assert next_action(position(500, None), "pass", "").step == "hold"


def test_a_plan_in_percent_becomes_shares_that_end_in_all():
    assert shares([1, 5, 25.5]) == [100, 500, 2550, ALL]
    assert shares([100]) == [ALL]


@pytest.mark.parametrize(
    "text",
    ['{"plan": []}', '{"plan": [5, 1]}', '{"plan": [0]}', '{"plan": [101]}', '{"plan": ["1"]}', '{"plan": "1"}',
     '{"plan": [true]}', '{"plan": [NaN]}', '{"plan": [1, 1]}', '{"guardrails": []}', '{"on_expiry": "never"}',
     '{"expires": 7}', '{"untracked": "yes"}', '{"dry_run": 1}', '{"colour": 1}', "[]", '{"reason": {}}'],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(text):
    with pytest.raises(InvalidArgument):
        RolloutOptions.parse(text)
