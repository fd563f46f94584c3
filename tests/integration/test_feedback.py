"""Feedback of users on answers, and what is made of it."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from dumping import restored_copy
from job_workers import Installation
from logged_calls import begin_rollout, forget_calls, log_calls

COPIED = "SELECT model, version, task, variant FROM pgml_tune.feedback_rows"


@pytest.fixture
def connect(connect_shared: Connect) -> Connect:
    """Sessions in one database for the whole module, which each test finds without calls."""
    forget_calls(connect_shared())
    return connect_shared


@pytest.fixture
def calls(db: psycopg.Connection[Any]) -> list[int]:
    """Identifiers of calls that alice has made, some of them of a candidate."""
    log_calls(db, begin_rollout(db), 20, role="alice")
    return [row[0] for row in db.execute("SELECT call_id FROM pgml_tune.call_log ORDER BY call_id")]


def test_feedback_keeps_what_is_known_of_the_call(
    db: psycopg.Connection[Any], connect: Connect, calls: list[int]
) -> None:
    alice = connect("alice")
    alice.execute("SELECT record_feedback(%s, 1, input => 'a question')", (calls[0],))
    logged = db.execute("SELECT model, version, task, variant FROM pgml_tune.call_log WHERE call_id = %s", calls[:1])
    assert alice.execute(COPIED).fetchall() == logged.fetchall()
    unit = "SELECT f.unit = c.unit FROM pgml_tune.feedback AS f JOIN pgml_tune.call_log AS c USING (call_id)"
    assert fetch_value(db, unit)


def test_a_call_that_was_just_made_can_be_judged(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    alice = connect("alice")
    alice.execute("SELECT embed('what is a tuple')")
    alice.execute("SELECT record_feedback(last_call_id(), 0.5)")
    assert alice.execute(COPIED).fetchall() == [("minilm", "v1", "embed", None)]


def test_a_call_that_was_not_logged_can_be_judged_with_a_notice(connect: Connect) -> None:
    alice = connect("alice")
    notices: list[str] = []
    alice.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    alice.execute("SELECT record_feedback(4711, expected => 'a better text', input => 'a question')")
    assert alice.execute(COPIED).fetchall() == [(None, None, None, None)]
    assert [notice for notice in notices if "log_sample" in notice]


def test_only_the_role_of_the_call_and_operators_judge_it(connect: Connect, calls: list[int]) -> None:
    connect("olga").execute("SELECT record_feedback(%s, 0)", (calls[0],))
    bob = connect("bob")
    with refused("42501"):
        bob.execute("SELECT record_feedback(%s, 0)", (calls[0],))
    with refused("42501"):
        connect("stranger").execute("SELECT record_feedback(%s, 0)", (calls[0],))


def test_the_role_that_is_set_judges_and_not_the_one_that_logged_in(connect: Connect, calls: list[int]) -> None:
    superuser = connect()
    superuser.execute("SET ROLE bob")
    with refused("42501"):
        superuser.execute("SELECT record_feedback(%s, 0)", (calls[0],))


def test_feedback_is_read_by_whoever_gave_it_and_by_operators(connect: Connect, calls: list[int]) -> None:
    connect("alice").execute("SELECT record_feedback(%s, 1)", (calls[0],))
    counts = {role: fetch_value(connect(role), "SELECT count(*) FROM pgml_tune.feedback_rows") for role in
              ("alice", "bob", "olga", "adam")}  # fmt: skip
    assert counts == {"alice": 1, "bob": 0, "olga": 1, "adam": 1}
    with refused("42501"):
        connect("alice").execute("SELECT * FROM pgml_tune.feedback")


def test_nobody_gives_feedback_in_the_name_of_another(connect: Connect, calls: list[int]) -> None:
    bob = connect("bob")
    for column, value in {"given_by": "'alice'", "created_at": "'2020-01-01'", "model": "'minilm'"}.items():
        with refused("42501"):
            bob.execute(f"INSERT INTO pgml_tune.feedback_rows (call_id, score, {column}) VALUES (1, 1, {value})")
        with refused("42501"):
            bob.execute(f"UPDATE pgml_tune.feedback_rows SET {column} = {value}")


def test_who_inserts_past_the_function_meets_the_same_limits(connect: Connect) -> None:
    alice = connect("alice")
    for values in (
        "1, 2, NULL, NULL",
        "1, NULL, NULL, NULL",
        "1, 1, repeat('x', 1001), NULL",
        "1, 1, NULL, repeat('x', 4194305)",
    ):
        with refused("23514"):
            alice.execute(f"INSERT INTO pgml_tune.feedback_rows (call_id, score, label, expected) VALUES ({values})")


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ("NULL, 1", "22023"), ("1", "22023"), ("1, -0.1", "22023"), ("1, 1.1", "22023"), ("1, 'NaN'", "22023"),
        ("1, 'inf'", "22023"), ("1, label => repeat('x', 1001)", "54000"),
        ("1, expected => repeat('x', 1100000)", "54000"), ("1, 1, input => repeat('é', 600000)", "54000"),
    ],
)  # fmt: skip
def test_feedback_that_says_nothing_or_too_much_is_refused(connect: Connect, arguments: str, state: str) -> None:
    with refused(state):
        connect("alice").execute(f"SELECT record_feedback({arguments})")


def test_a_dump_brings_feedback_back_as_it_was(
    db: psycopg.Connection[Any], connect: Connect, calls: list[int], tmp_path: Any
) -> None:
    connect("alice").execute("SELECT record_feedback(%s, 1)", (calls[0],))
    rows = "SELECT f::text FROM pgml_tune.feedback AS f"
    with restored_copy(db, connect, tmp_path, "custom") as copy:
        assert copy.execute(rows).fetchall() == db.execute(rows).fetchall() != []


def quality(session: psycopg.Connection[Any], since: str = "1 day") -> dict[tuple[str, str, str | None], Any]:
    lines = session.execute("SELECT version, metric, label, value, interval_low, interval_high, n"
                            " FROM quality_report('minilm', %s)", (since,)).fetchall()  # fmt: skip
    return {(version, metric, label): rest for version, metric, label, *rest in lines}


def test_scores_are_averaged_by_version_with_an_interval(
    db: psycopg.Connection[Any], connect: Connect, calls: list[int]
) -> None:
    olga = connect("olga")
    for number, call_id in enumerate(calls):
        olga.execute("SELECT record_feedback(%s, %s)", (call_id, number % 2))
    olga.execute("SELECT record_feedback(%s, 1)", (calls[0],))  # the last word on a call counts
    found = quality(olga)
    last = "SELECT DISTINCT ON (call_id) * FROM pgml_tune.feedback ORDER BY call_id, feedback_id DESC"
    versions = db.execute(f"SELECT version, count(*), avg(score) FROM ({last}) AS f GROUP BY version").fetchall()
    assert {version for version, *_ in versions} == {"v1", "v1-int8"}
    for version, count, mean in versions:
        value, low, high, n = found[version, "score", None]
        assert (value, n) == (pytest.approx(mean), count)
        assert 0 <= low < value < high <= 1
    assert quality(olga, "1 microsecond") == {}


def test_labels_are_compared_with_the_answers(db: psycopg.Connection[Any], connect: Connect, calls: list[int]) -> None:
    db.execute("UPDATE pgml_tune.call_log SET version = 'v1', answer = CASE WHEN call_id % 2 = 0 THEN 'a' ELSE 'b' END")
    olga = connect("olga")
    for number, call_id in enumerate(calls):
        right = "a" if call_id % 2 == 0 else "b"
        olga.execute("SELECT record_feedback(%s, label => %s)", (call_id, "a" if number < 4 else right))
    found = quality(olga)
    wrong = sum(call_id % 2 for call_id in calls[:4])
    assert found["v1", "accuracy", None][0] == pytest.approx(1 - wrong / 20)
    assert found["v1", "precision", "a"][0] == 1
    assert found["v1", "recall", "a"] == [pytest.approx(10 / (10 + wrong)), None, None, 10 + wrong]
    assert found["v1", "recall", "b"][0] == 1
    precision, recall = (10 - wrong) / 10, 1.0
    assert found["v1", "f1", "b"][0] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["v1", "f1", None][0] == pytest.approx((found["v1", "f1", "a"][0] + found["v1", "f1", "b"][0]) / 2)


def test_the_answer_of_a_classifier_is_known_to_its_report(
    db: psycopg.Connection[Any], connect: Connect, server_home: Path
) -> None:
    digest = Installation(server_home).build_classifier()
    db.execute("SELECT register_model('sorter', %s, 'classification')", (digest,))
    db.execute("SELECT configure('log_sample', '1')")
    olga = connect("olga")
    answers = [fetch_value(olga, "SELECT label FROM classify(%s, 'sorter')", (text,)) for text in ("a", "b", "c")]
    last = fetch_value(olga, "SELECT last_call_id()")
    for number, answer in enumerate(answers):
        label = "something else" if number == 2 else answer
        olga.execute("SELECT record_feedback(%s, label => %s)", (last - 2 + number, label))
    accuracy = "SELECT value, n FROM quality_report('sorter') WHERE metric = 'accuracy'"
    assert olga.execute(accuracy).fetchall() == [(pytest.approx(2 / 3), 3)]


@pytest.mark.parametrize("since", ["0", "-1 day", "11 years", None])
def test_a_time_that_makes_no_sense_is_refused(connect: Connect, since: str | None) -> None:
    olga = connect("olga")
    for call in ("quality_report('minilm', %s)", "drift_report('minilm', %s)", "drift_report('minilm', '1 day', %s)"):
        with refused("22023"):
            olga.execute(f"SELECT * FROM {call}", (since,))
