"""text_to_sql(): from the question of a role to SQL that this role may run."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from sql_script import ALONE, COUNT, ask, candidates, follow, open_shop, prompts, say

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's session as alice, in schema shop, whose model follows a script."""
    return open_shop(db)


def test_the_first_candidate_that_the_server_accepts_is_the_answer(session: psycopg.Connection[Any]) -> None:
    say(session, ["SELECT nothing FROM", "SELECT name FROM nowhere", "select count(*) from customer;", "SELECT 1"])
    assert ask(session) == COUNT


def test_candidates_shows_all_with_reason_and_cost(session: psycopg.Connection[Any]) -> None:
    say(session, ["DELETE FROM customer", "SELECT pg_sleep(9)", "SELECT COUNT(*) FROM customer"])
    rows = candidates(session)
    assert [row[0] for row in rows] == [1, 2, 3]
    assert [row[1] for row in rows] == ["DELETE FROM customer", "SELECT PG_SLEEP(9)", COUNT]
    assert [round(row[2], 3) for row in rows] == [0, -0.1, -0.2]
    assert [row[3] for row in rows] == [False, False, True]
    assert [row[4] is None for row in rows] == [False, False, True]
    assert [row[5] is None for row in rows] == [True, True, False]


def test_without_a_valid_candidate_the_error_lists_each_with_its_reason(session: psycopg.Connection[Any]) -> None:
    say(session, ["DELETE FROM customer", "SELECT salary FROM payroll"])
    with refused("22023") as failure:
        ask(session)
    detail = failure.value.diag.message_detail or ""
    assert [line[:3] for line in detail.splitlines()] == ["1. ", "2. "]
    assert "text_to_sql_candidates" in (failure.value.diag.message_hint or "")


def test_only_so_many_candidates_are_tried_as_the_setting_says(session: psycopg.Connection[Any]) -> None:
    say(session, ["SELECT a", "SELECT b", COUNT])
    session.execute("RESET ROLE")
    session.execute("SELECT configure('sql_attempts', '2')")
    session.execute("SET ROLE alice")
    with refused("22023"):
        ask(session)
    assert len(candidates(session, k=3)) == 3


def test_a_model_that_writes_nothing_is_an_error(session: psycopg.Connection[Any]) -> None:
    say(session, [])
    with refused("22023"):
        ask(session)
    assert candidates(session) == []


def test_a_prompt_holds_what_the_caller_may_read_and_no_more(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT])
    ask(session)
    (prompt,) = prompts(session)
    assert "customer: id* integer, name text, city text [Berlin, New York, Paris]" in prompt
    assert "orders (what customers have bought): id* integer, customer_id integer, total numeric (in euros)" in prompt
    assert "customer_id -> customer(id)" in prompt
    assert "payroll" not in prompt
    assert "salary" not in prompt
    assert "secret_note" not in prompt


def test_frequent_values_are_left_out_where_the_setting_says_so(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("SELECT configure('sql_values', 'off')")
    say(session, [COUNT])
    ask(session)
    assert "Berlin" not in prompts(session)[0]


def test_values_that_the_question_names_are_shown_with_their_columns(session: psycopg.Connection[Any]) -> None:
    say(session, ["select count(*) from customer where city = <v0> and name = <v1>"], form=ALONE)
    assert ask(session, "who in new york is ada 3?") == (
        "SELECT COUNT(*) FROM customer WHERE city = 'New York' AND name = 'Ada 3'"
    )
    assert prompts(session) == ["who in <v0> is <v1> ? | <v0> city ; <v1> name"]


def test_a_misspelt_value_is_taken_for_the_one_that_is_meant(session: psycopg.Connection[Any]) -> None:
    say(session, {"<v0>": ["select count(*) from customer where city = <v0>"], "": [COUNT]}, form=ALONE)
    assert [row[1] for row in candidates(session, "who is in Berlinn?")] == [f"{COUNT} WHERE city = 'Berlin'", COUNT]
    assert prompts(session) == ["who is in <v0> ? | <v0> city", "who is in berlinn?"]


def test_labels_of_enumerations_are_values(session: psycopg.Connection[Any]) -> None:
    say(session, ["select count(*) from orders where state = <v0>"], form=ALONE)
    assert ask(session, "orders that are Shipped") == "SELECT COUNT(*) FROM orders WHERE state = 'shipped'"


def test_a_value_that_no_row_has_is_corrected_first(session: psycopg.Connection[Any]) -> None:
    wrong = "SELECT COUNT(*) FROM customer WHERE city = 'Pariss'"
    right = "SELECT COUNT(*) FROM customer WHERE city = 'Paris'"
    say(session, [wrong])
    assert ask(session) == right
    assert [(row[1], row[3]) for row in candidates(session)] == [(right, True), (wrong, True)]


def test_a_value_in_other_case_is_found_among_many(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("CREATE TABLE shop.many AS SELECT 'name number ' || g AS name FROM generate_series(1, 12000) AS g")
    session.execute("GRANT SELECT ON shop.many TO alice")
    statement = "SELECT COUNT(*) FROM many WHERE name = '{}'"
    say(session, [statement.format("Name number 55"), statement.format("nome numbers 7")])
    assert [row[1] for row in candidates(session)] == [
        statement.format("name number 55"), statement.format("Name number 55"), statement.format("nome numbers 7")
    ]  # fmt: skip


def test_tables_limit_what_a_question_is_about(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT, "SELECT COUNT(*) FROM orders"])
    assert ask(session, tables=["shop.orders"]) == "SELECT COUNT(*) FROM orders"
    (prompt,) = prompts(session)
    assert "customer:" not in prompt
    assert "->" not in prompt
    rows = candidates(session, tables=["orders"])
    assert [row[3] for row in rows] == [False, True]


def test_tables_outside_of_the_search_path_are_written_with_their_schema(session: psycopg.Connection[Any]) -> None:
    session.execute("SET search_path = public")
    say(session, ["SELECT COUNT(*) FROM shop.orders"])
    assert ask(session, tables=["shop.orders"]) == "SELECT COUNT(*) FROM shop.orders"
    assert "shop.orders (what" in prompts(session)[0]


def test_the_same_question_is_generated_once_for_role_path_and_schema(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT], form=ALONE)

    def is_new() -> bool:
        assert ask(session) == COUNT
        return bool(prompts(session))

    assert [is_new(), is_new()] == [True, False]
    session.execute("SET ROLE bob")
    assert [is_new(), is_new()] == [True, False]
    session.execute("SET search_path = shop")
    session.execute("SET ROLE alice")
    session.execute("SET search_path = shop, public, pg_temp, pgml_tune")
    assert [is_new(), is_new()] == [True, False]
    session.execute("RESET ROLE")
    session.execute("CREATE TABLE shop.another (id integer); GRANT SELECT ON shop.another TO alice")
    session.execute("SET ROLE alice")
    assert [is_new(), is_new()] == [True, False]
    session.execute("SET pgml_tune.cache = off")
    assert [is_new(), is_new()] == [True, True]
    session.execute("RESET pgml_tune.cache")
    assert not is_new()


def test_other_sessions_of_a_role_share_what_was_generated(
    session: psycopg.Connection[Any], connect: Connect
) -> None:
    say(session, [COUNT], form=ALONE)
    ask(session)
    other = connect()
    other.execute("SET search_path = shop, public")
    say(other, ["SELECT 2"], form=ALONE)
    assert ask(other) == COUNT
    assert prompts(other) == []


def test_only_the_nearest_tables_are_shown_where_not_all_fit(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute(
        "DO $$ BEGIN FOR n IN 1 .. 150 LOOP EXECUTE format('CREATE TABLE shop.stock_%s (id integer, amount integer,"
        " place text, day date)', n); END LOOP; END $$; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO alice;"
        " CREATE TABLE shop.zebra (id integer, stripes integer); GRANT SELECT ON shop.zebra TO alice"
    )
    say(session, ["SELECT MAX(stripes) FROM zebra"], most_words=120)
    assert ask(session, "how many stripes do zebras have?") == "SELECT MAX(stripes) FROM zebra"
    (prompt,) = prompts(session)
    assert "zebra: id integer, stripes integer" in prompt
    assert len(prompt.split()) <= 120


def test_the_serving_version_answers_where_the_candidate_of_a_rollout_fails(
    session: psycopg.Connection[Any], connect: Connect
) -> None:
    session.execute("RESET ROLE")
    session.execute("SELECT configure('candidate_failures', '1')")
    session.execute("""SELECT rollout_model('scripted', 'v1-int8', 99, '{"untracked": "accept"}')""")
    broken = fetch_value(
        session, "SELECT artifact_sha256 FROM pgml_tune.model_versions WHERE model = 'scripted' AND version = 'v1-int8'"
    )
    say(session, [COUNT], broken=broken)
    for number in range(5):
        assert ask(session, f"question {number}") == COUNT
    session.execute("RESET ROLE")
    calls = session.execute(
        "SELECT version, outcome, sqlstate FROM pgml_tune.inference_logs WHERE variant = 'candidate'"
    ).fetchall()
    assert set(calls) == {("v1", "fallback", "XX001")}
    follow(session, {"": [COUNT]})
    fresh = connect()
    fresh.execute("SET search_path = shop, public")
    say(fresh, [COUNT])
    assert ask(fresh, "question 7", model="scripted@v1-int8") == COUNT


def test_a_cancel_ends_a_model_that_writes(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT], is_endless=True)
    session.execute("SET statement_timeout = '200ms'")
    with refused("57014"):
        ask(session)
    session.execute("RESET statement_timeout")
    say(session, [COUNT])
    assert ask(session) == COUNT
