"""What ab_report() says of calls in the log."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from logged_calls import begin_rollout, forget_calls, log_calls

Report = dict[tuple[int | None, str], dict[str, Any]]


@pytest.fixture
def connect(connect_shared: Connect) -> Connect:
    """Sessions in one database for the whole module, which each test finds without calls."""
    forget_calls(connect_shared())
    return connect_shared


def report(db: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute("SELECT * FROM ab_report('minilm')").fetchall()


def by_metric(lines: list[dict[str, Any]]) -> Report:
    return {(line["phase"], line["metric"]): line for line in lines}


def test_two_like_versions_pass_and_every_figure_is_there(db: psycopg.Connection[Any]) -> None:
    rollout_id = begin_rollout(db)
    log_calls(db, rollout_id, 9000)
    lines = report(db)
    assert [line["metric"] for line in lines] == [
        "sample_ratio", "verdict", "error_rate", "latency", "quality",
        "sample_ratio", "requests", "failed_requests", "mean_ms", "p50_ms", "p95_ms", "p99_ms",
        "error_rate", "latency", "quality", "latency_welch_t",
    ]  # fmt: skip
    found = by_metric(lines)
    assert found[None, "verdict"]["outcome"] == "pass"
    assert found[None, "verdict"]["days_to_decision"] == 0
    assert {line["rollout_id"] for line in lines} == {rollout_id}
    latency = found[1, "latency"]
    assert latency["interval_low"] < 0 < latency["interval_high"] < latency["margin"] == 0.1
    assert (
        latency["serving_n"] + latency["candidate_n"]
        == found[1, "requests"]["serving_n"] + found[1, "requests"]["candidate_n"]
        == 9000
    )
    assert found[1, "p50_ms"]["serving_value"] == pytest.approx(latency["serving_value"], rel=0.05)
    assert (
        found[1, "p50_ms"]["serving_value"] < found[1, "p95_ms"]["serving_value"] < found[1, "p99_ms"]["serving_value"]
    )
    assert "not valid when peeking" in found[1, "latency_welch_t"]["words"]
    assert found[1, "latency_welch_t"]["outcome"] is None


def test_a_slow_candidate_fails_with_its_interval_above_the_margin(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 9000, slower=1.2)
    found = by_metric(report(db))
    assert (found[None, "verdict"]["outcome"], found[None, "latency"]["outcome"]) == ("fail", "fail")
    assert found[None, "latency"]["effect"] == pytest.approx(0.2, abs=0.05)
    assert found[None, "latency"]["interval_low"] > 0.1


def test_lost_calls_of_the_candidate_are_a_mismatch_and_nothing_else_is_shown(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 20_000, lost=0.1, candidate_errors=0.5)
    lines = report(db)
    assert [line["metric"] for line in lines] == ["sample_ratio", "verdict", "sample_ratio"]
    assert {line["outcome"] for line in lines} == {"mismatch"}


def test_the_days_to_a_decision_follow_from_the_calls_a_day(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 500)
    verdict = by_metric(report(db))[None, "verdict"]
    assert verdict["outcome"] == "inconclusive"
    assert 0.5 < verdict["days_to_decision"] < 10


def test_phases_are_shown_by_themselves_and_judged_together(db: psycopg.Connection[Any]) -> None:
    rollout_id = begin_rollout(db, share=5000, phase=2)
    log_calls(db, rollout_id, 4000, phase=1, share=2000, slower=1.3)
    log_calls(db, rollout_id, 4000, phase=2, share=5000, slower=1.3, first=2000)
    found = by_metric(report(db))
    assert {phase for phase, _ in found} == {None, 1, 2}
    assert (found[1, "latency"]["share_percent"], found[2, "latency"]["share_percent"]) == (20, 50)
    # The 2,000 units that came back count once.
    ratio = found[None, "sample_ratio"]
    assert ratio["serving_n"] + ratio["candidate_n"] == 6000
    assert ratio["outcome"] == "pass"
    assert found[None, "latency"]["outcome"] == "fail"


def test_units_that_come_back_widen_the_interval(db: psycopg.Connection[Any]) -> None:
    widths = []
    for first in (1500, 0):
        forget_calls(db)
        rollout_id = begin_rollout(db, phase=2)
        log_calls(db, rollout_id, 1500, calls=2)
        log_calls(db, rollout_id, 1500, calls=2, phase=2, first=first)
        latency = by_metric(report(db))[None, "latency"]
        widths.append(latency["interval_high"] - latency["interval_low"])
    assert widths[1] > 1.2 * widths[0]


def test_a_new_phase_is_inconclusive_until_it_has_been_seen(db: psycopg.Connection[Any]) -> None:
    rollout_id = begin_rollout(db, phase=2)
    log_calls(db, rollout_id, 9000, phase=1)
    found = by_metric(report(db))
    assert found[None, "verdict"]["outcome"] == "inconclusive"
    assert found[2, "sample_ratio"]["outcome"] == "no_data"


def test_the_running_rollout_comes_before_the_last_one_that_ended(db: psycopg.Connection[Any]) -> None:
    ended = []
    for _ in range(2):
        ended.append(begin_rollout(db))
        db.execute("UPDATE pgml_tune.rollout SET state = 'rolled_back', ended_at = now() WHERE ended_at IS NULL")
    running = begin_rollout(db)
    assert list(dict.fromkeys(line["rollout_id"] for line in report(db))) == [running, ended[1]]
    assert {line["days_to_decision"] for line in report(db)} == {None}


def test_a_unit_that_fails_again_and_again_counts_once_where_it_failed_first(db: psycopg.Connection[Any]) -> None:
    rollout_id = begin_rollout(db, phase=2)
    log_calls(db, rollout_id, 40, calls=2, share=1000)
    log_calls(db, rollout_id, 40, calls=2, phase=2, share=9000)
    # Units that only the second phase gave to the candidate, and that fail in both.
    db.execute("UPDATE pgml_tune.call_log SET sqlstate = '54000' WHERE unit % 10000 BETWEEN 1000 AND 8999")
    moved = fetch_value(db, "SELECT count(DISTINCT unit) FROM pgml_tune.call_log WHERE sqlstate IS NOT NULL")
    found = by_metric(report(db))
    errors = {phase: found[phase, "error_rate"] for phase in (None, 1, 2)}
    failed = {
        phase: (line["serving_value"] * line["serving_n"], line["candidate_value"] * line["candidate_n"])
        for phase, line in errors.items()
    }
    assert moved > 20
    assert failed == {None: (moved, 0), 1: (moved, 0), 2: (0, moved)}


def test_a_fallback_is_an_error_of_the_candidate(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 100)
    db.execute("UPDATE pgml_tune.call_log SET is_fallback = true, version = 'v1' WHERE variant = 'candidate'")
    errors = by_metric(report(db))[None, "error_rate"]
    assert (errors["serving_value"], errors["candidate_value"], errors["outcome"]) == (0, 1, "fail")


def test_a_cancelled_call_is_no_error_and_counts_where_a_time_was_promised(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db, guardrails='{"slo_ms": 1000}'), 300)
    db.execute("UPDATE pgml_tune.call_log SET sqlstate = '57014', latency_ms = 2000 WHERE variant = 'candidate'")
    found = by_metric(report(db))
    assert found[None, "error_rate"]["candidate_value"] == 0
    assert found[None, "latency"]["outcome"] == "no_data"
    assert (found[None, "slo"]["candidate_value"], found[None, "slo"]["outcome"]) == (1, "fail")


def test_a_unit_in_both_versions_is_a_mismatch(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 100, calls=2)
    db.execute("UPDATE pgml_tune.call_log SET variant = 'candidate' WHERE call_id = (SELECT min(call_id)"
               " FROM pgml_tune.call_log WHERE variant = 'serving')")  # fmt: skip
    ratio = by_metric(report(db))[None, "sample_ratio"]
    assert (ratio["outcome"], "both" in ratio["words"]) == ("mismatch", True)


def test_a_promised_latency_has_lines_of_its_own(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db, guardrails='{"slo_ms": 8}'), 9000, slower=1.5)
    slo = by_metric(report(db))[None, "slo"]
    assert (slo["outcome"], slo["candidate_value"] > 2 * slo["serving_value"] > 0) == ("fail", True)


def test_scores_of_users_are_judged_by_unit(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 9000)
    db.execute(
        "INSERT INTO pgml_tune.feedback (call_id, score, rollout_id, phase, variant, unit)"
        " SELECT call_id, CASE WHEN random() < CASE variant WHEN 'candidate' THEN 0.7 ELSE 0.8 END THEN 1 ELSE 0 END,"
        " rollout_id, phase, variant, unit FROM pgml_tune.call_log"
    )
    quality = by_metric(report(db))[None, "quality"]
    assert (quality["outcome"], quality["serving_n"] + quality["candidate_n"]) == ("fail", 9000)
    assert quality["effect"] == pytest.approx(-0.1, abs=0.03)


def test_a_model_without_a_rollout_has_an_empty_report(db: psycopg.Connection[Any]) -> None:
    assert report(db) == []


@pytest.mark.parametrize(
    ("name", "state"), [("nobody", "42704"), (None, "22023"), ("minilm@v1", "22023"), ("", "22023")]
)
def test_a_report_of_no_model_is_refused(db: psycopg.Connection[Any], name: str | None, state: str) -> None:
    with refused(state):
        db.execute("SELECT * FROM ab_report(%s)", (name,))


def test_operators_read_reports_and_users_do_not(db: psycopg.Connection[Any], connect: Connect) -> None:
    log_calls(db, begin_rollout(db), 500)
    assert fetch_value(connect("olga"), "SELECT count(*) FROM ab_report('minilm')") > 10
    with refused("42501"):
        connect("alice").execute("SELECT * FROM ab_report('minilm')")
