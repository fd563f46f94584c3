"""What rollout_tick() does about what is in the log."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from conftest import Connect
from logged_calls import log_calls

START = "SELECT rollout_model('minilm', 'v1-int8', 20, '{\"plan\": [20, 50, 100]}') ->> 'rollout_id'"
STATE = "SELECT state::text, candidate_percent::float, outcome FROM pgml_tune.rollouts WHERE rollout_id = %s"
SERVING = "SELECT serving_version FROM pgml_tune.models WHERE model = 'minilm'"


@pytest.fixture
def rollout_id(db: psycopg.Connection[Any]) -> int:
    """A rollout that its guardrails drive."""
    return int(fetch_value(db, START))


def tick(db: psycopg.Connection[Any], rollout_id: int) -> tuple[str, float, str]:
    """Where a rollout stands after a look."""
    db.execute("CALL rollout_tick()")
    row = db.execute(STATE, (rollout_id,)).fetchone()
    assert row is not None
    return row


def test_a_candidate_that_is_as_good_goes_through_its_plan(db: psycopg.Connection[Any], rollout_id: int) -> None:
    log_calls(db, rollout_id, 9000, share=2000)
    assert tick(db, rollout_id) == ("running", 50, "pass")
    # What was seen of the step before is not enough for the next one.
    assert tick(db, rollout_id) == ("running", 50, "inconclusive")
    log_calls(db, rollout_id, 1000, share=5000, phase=2, first=9000)
    assert tick(db, rollout_id)[0] == "promoted"
    assert fetch_value(db, SERVING) == "v1-int8"


def test_a_slow_candidate_is_rolled_back_and_the_numbers_say_why(
    db: psycopg.Connection[Any], connect: Connect, rollout_id: int
) -> None:
    log_calls(db, rollout_id, 9000, share=2000, slower=1.3)
    assert tick(db, rollout_id)[0] == "rolled_back"
    assert fetch_value(db, SERVING) == "v1"
    explained = fetch_value(connect("olga"), "SELECT rollout_explain(%s)", (rollout_id,))
    latency = next(finding for finding in explained["verdict"]["findings"] if finding["metric"] == "latency")
    assert (latency["outcome"], latency["effect"] > 0.2, latency["interval_low"] > 0.1) == ("fail", True, True)
    assert "Latency of the candidate" in explained["reason"]


def test_errors_roll_back_before_anything_else_is_known(db: psycopg.Connection[Any], rollout_id: int) -> None:
    log_calls(db, rollout_id, 200, share=2000, candidate_errors=1.0)
    assert tick(db, rollout_id)[0] == "rolled_back"


def test_lost_calls_pause_a_rollout(db: psycopg.Connection[Any], rollout_id: int) -> None:
    log_calls(db, rollout_id, 5000, share=2000, lost=0.5)
    assert tick(db, rollout_id) == ("paused", 20, "mismatch")


def test_without_enough_calls_a_step_is_held(db: psycopg.Connection[Any], rollout_id: int) -> None:
    assert tick(db, rollout_id) == ("running", 20, "no_data")
    log_calls(db, rollout_id, 500, share=2000)
    assert tick(db, rollout_id) == ("running", 20, "inconclusive")
