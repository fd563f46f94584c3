"""ab_selftest() and drift_report() on calls in the log."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from logged_calls import begin_rollout, forget_calls, log_calls

DOCUMENT = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()


@pytest.fixture
def connect(connect_shared: Connect) -> Connect:
    """Sessions in one database for the whole module, which each test finds without calls."""
    forget_calls(connect_shared())
    return connect_shared


def test_the_self_test_raises_no_more_false_alarms_than_it_may(db: psycopg.Connection[Any], connect: Connect) -> None:
    log_calls(db, None, 1500, calls=2, share=0, serving_errors=0.05)
    lines = connect("olga").execute("SELECT * FROM ab_selftest('minilm', 200)").fetchall()
    assert [line[0] for line in lines] == ["sample_ratio", "error_rate", "latency", "rollback", "latency_welch_t"]
    for metric, rounds, looks, units, false_alarms, rate, alpha, outcome, words in lines:
        assert (rounds, looks, units, rate) == (200, 50, 1500, false_alarms / 200)
        assert alpha <= 0.05
        assert words
        assert outcome == (None if metric == "latency_welch_t" else "pass")


def test_the_self_test_needs_calls_and_a_number_of_rounds(db: psycopg.Connection[Any], connect: Connect) -> None:
    with refused("55000"):
        db.execute("SELECT * FROM ab_selftest('minilm')")
    for rounds in (0, 10_001, None):
        with refused("22023"):
            db.execute("SELECT * FROM ab_selftest('minilm', %s)", (rounds,))
    with refused("42501"):
        connect("alice").execute("SELECT * FROM ab_selftest('minilm')")


def drift(session: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    lines = session.execute("SELECT versions, metric, outcome FROM drift_report('minilm')").fetchall()
    return {(versions, metric): outcome for versions, metric, outcome in lines}


def test_longer_texts_are_a_drift(db: psycopg.Connection[Any], connect: Connect) -> None:
    log_calls(db, None, 1000, share=0)
    db.execute("UPDATE pgml_tune.call_log SET logged_at = logged_at - interval '2 days' WHERE call_id / 30 % 2 = 0")
    olga = connect("olga")
    assert drift(olga) == {
        ("v1", "input_bytes"): "stable", ("v1", "tokens"): "stable", ("v1", "unknown_share"): "stable",
        ("v1", "embedding"): "no_data",
    }  # fmt: skip
    change = "UPDATE pgml_tune.call_log SET input_bytes = 2 * input_bytes, unknown_tokens = 1"
    db.execute(f"{change} WHERE call_id / 30 % 2 = 1")
    found = drift(olga)
    assert (found["v1", "input_bytes"], found["v1", "unknown_share"], found["v1", "tokens"]) == (
        "drift",
        "drift",
        "stable",
    )
    with refused("42501"):
        connect("alice").execute("SELECT * FROM drift_report('minilm')")


@pytest.mark.parametrize("is_other_space", [False, True])
def test_vectors_are_compared_within_their_space(db: psycopg.Connection[Any], is_other_space: bool) -> None:
    """Calls of v1 before, of v1-int8 since then: the same space, until one says otherwise."""
    log_calls(db, None, 800, share=0)
    db.execute(
        "UPDATE pgml_tune.call_log SET sketch = encode(sha256(call_id::text::bytea), 'base64'),"
        " version = CASE call_id % 2 WHEN 0 THEN 'v1' ELSE 'v1-int8' END,"
        " logged_at = logged_at - CASE call_id % 2 WHEN 0 THEN interval '2 days' ELSE interval '0' END"
    )
    if is_other_space:
        db.execute("UPDATE pgml_tune.call_log SET version = 'lost' WHERE version = 'v1'")
    found = drift(db)
    if is_other_space:
        assert {versions for versions, _ in found} == {"lost", "v1-int8"}
        assert set(found.values()) == {"no_data"}
    else:
        assert found["v1, v1-int8", "embedding"] == "stable"


def test_another_subject_is_a_drift_of_the_vectors(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '1'), configure('log_sketch', 'on')")
    ask = "SELECT count(embed(format(%s::text, g))) FROM generate_series(1, %s::integer) AS g"
    db.execute(ask, ("how do I rebuild index number %s of a table", 280))
    db.execute("SELECT pgml_tune._ingest_logs()")
    earlier = "UPDATE pgml_tune.call_log SET logged_at = logged_at - interval '2 days'"
    db.execute(f"{earlier} WHERE hashint8(call_id) % 2 = 0")
    same = drift(db)
    db.execute("DELETE FROM pgml_tune.call_log WHERE logged_at > now() - interval '1 day'")
    db.execute(ask, ("a recipe for soup with %s carrots and an onion", 120))
    other = drift(db)
    assert (same["v1", "embedding"], other["v1", "embedding"]) == ("stable", "drift")


def test_reports_hold_no_text_of_users(db: psycopg.Connection[Any]) -> None:
    log_calls(db, None, 300, share=0)
    db.execute("UPDATE pgml_tune.call_log SET input_text = 'kanarienvogel'")
    for function in ("_drift_calls('minilm', 1e6, 1e6, 9)", "_served_calls('minilm', 9)", "_rollout_units(1, 1)"):
        query = f"SELECT count(*) FROM pgml_tune.{function} AS c WHERE c::text LIKE '%kanarienvogel%'"
        assert fetch_value(db, query) == 0


def test_the_statements_of_the_documentation_run(db: psycopg.Connection[Any]) -> None:
    log_calls(db, begin_rollout(db), 600)
    ours = DOCUMENT.split("## Comparing two versions")[1].split("## Prometheus")[0]
    statements = [
        statement
        for block in re.findall(r"```sql\n(.*?)```", ours, re.DOTALL)
        for statement in re.sub(r"--.*", "", block).split(";")
        if statement.strip().startswith("SELECT")
    ]
    assert len(statements) == 8
    for statement in statements:
        assert db.execute(statement).fetchall() or "ab_" not in statement, statement
