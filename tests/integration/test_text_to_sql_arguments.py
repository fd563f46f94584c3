"""What text_to_sql() takes, and what it refuses."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from sql_script import COUNT, ask, candidates, open_shop, prompts, say

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's session as alice, in schema shop, whose model follows a script."""
    return open_shop(db)


@pytest.mark.parametrize(
    ("tables", "state"),
    [
        ("{}", "22023"),
        ("{NULL}", "22023"),
        ("{orders,NULL}", "22023"),
        ("{shop.payroll}", "42501"),
        ("{orders,shop.payroll}", "42501"),
        ("{pg_class}", "42501"),
        ("{pgml_tune.model}", "42501"),
        ("{customer_pkey}", "42501"),
        ("{no_such_table}", "42P01"),
        ("{2147483647}", "42501"),
    ],
)
def test_tables_that_cannot_be_asked_about_are_refused(
    session: psycopg.Connection[Any], tables: str, state: str
) -> None:
    say(session, [COUNT])
    with refused(state):
        session.execute("SELECT text_to_sql('how many?', tables => %s::text::regclass[])", (tables,))


def test_the_same_table_twice_is_one(session: psycopg.Connection[Any]) -> None:
    say(session, ["SELECT COUNT(*) FROM orders"])
    assert fetch_value(session, "SELECT text_to_sql('how many?', tables => '{{orders},{orders}}')")


def test_a_question_where_there_is_nothing_to_read_is_refused(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT])
    for path in ("public", "''", "nowhere"):
        session.execute(f"SET search_path = {path}")
        with refused("42P01"):
            session.execute("SELECT public.text_to_sql('how many?')")


def test_null_questions_have_null_answers(session: psycopg.Connection[Any]) -> None:
    assert ask(session, None) is None
    assert candidates(session, None) == []


@pytest.mark.parametrize("question", ["", " ", "\t\r\n", "\u3000"])
def test_blank_questions_are_refused(session: psycopg.Connection[Any], question: str) -> None:
    with refused("22023"):
        ask(session, question)
    with refused("22023"):
        candidates(session, question)


@pytest.mark.parametrize(
    "question",
    ["a" * 1048576, "中" * 300_000, "word " * 200_000, "'\"%\\$$<v0>|", "\u202e👩‍👩‍👧", "e\u0301" * 1000, "\x01"],
)
def test_odd_questions_are_answered(session: psycopg.Connection[Any], question: str) -> None:
    say(session, [COUNT], most_words=10_000_000)
    assert ask(session, question) == COUNT


def test_questions_beyond_the_limit_are_refused(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT])
    with refused("54000"):
        ask(session, "a" * 1048577)
    say(session, [COUNT], most_words=10)
    with refused("54000"):
        ask(session, "more words than this model reads " * 10)


@pytest.mark.parametrize(("k", "state"), [(None, "22023"), (0, "22023"), (-1, "22023"), (33, "54000")])
def test_numbers_of_candidates_that_make_no_sense_are_refused(
    session: psycopg.Connection[Any], k: int | None, state: str
) -> None:
    with refused(state):
        candidates(session, k=k)


@pytest.mark.parametrize(
    ("model", "state"),
    [("nothere", "42704"), ("scripted@v9", "42704"), ("minilm", "0A000"), ("", "22023"), ("../x", "22023")],
)
def test_models_that_write_no_sql_are_refused(session: psycopg.Connection[Any], model: str, state: str) -> None:
    with refused(state):
        ask(session, model=model)


def test_a_read_only_transaction_is_refused(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT])
    session.execute("BEGIN READ ONLY")
    with refused("25006"):
        ask(session)
    session.execute("ROLLBACK")
    assert ask(session) == COUNT


def test_settings_of_the_caller_are_as_they_were(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT])
    session.execute("BEGIN")
    session.execute("SET LOCAL pgml_tune.cache = session")
    ask(session)
    assert fetch_value(session, "SHOW search_path") == "shop, public"
    assert fetch_value(session, "SHOW pgml_tune.cache") == "session"
    session.execute("SAVEPOINT s")
    with refused("22023"):
        ask(session, " ")
    session.execute("ROLLBACK TO s")
    assert fetch_value(session, "SHOW search_path") == "shop, public"
    assert ask(session) == COUNT
    session.execute("COMMIT")


def test_names_that_need_quotes_are_quoted(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""CREATE TABLE shop."Odd ""Name" ("Größe" integer, "select" text)""")
    session.execute("""GRANT SELECT ON shop."Odd ""Name" TO alice""")
    statement = '''SELECT MAX("Größe") FROM "Odd ""Name" WHERE "select" = 'x' '''.strip()
    say(session, [statement])
    assert ask(session, "how big?") == statement
    assert '"Odd ""Name": "Größe" integer, "select" text' in prompts(session)[0]


def test_strangers_may_not_ask(connect: Connect) -> None:
    with refused("42501"):
        ask(connect("stranger"))


def test_odd_relations_are_no_hindrance(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""
        CREATE MATERIALIZED VIEW shop.empty_view AS SELECT city FROM shop.customer WITH NO DATA;
        CREATE VIEW shop.view AS SELECT city, count(*) FROM shop.customer GROUP BY city;
        CREATE TABLE shop.no_columns ();
        CREATE TABLE shop.wide (
            LIKE shop.customer, payload jsonb, place point, tags text[], moods shop.state[], raw bytea
        );
        CREATE TABLE shop.parts (id integer, city text) PARTITION BY RANGE (id);
        CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (10);
        CREATE UNLOGGED TABLE shop.unlogged (city varchar(10), code char(5));
        INSERT INTO shop.parts VALUES (1, 'Turin');
        INSERT INTO shop.unlogged VALUES ('Turin', 'x');
        CREATE TEMPORARY TABLE passing (city text);
        CREATE DOMAIN shop.town AS text CHECK (value <> '');
        CREATE TABLE shop.of_domain (town shop.town);
        GRANT SELECT ON ALL TABLES IN SCHEMA shop TO alice;
    """)
    session.execute("ALTER TABLE shop.wide DROP COLUMN city")
    say(session, ["SELECT 1"])
    assert ask(session, "who is in Turin?") == "SELECT 1"
    (prompt,) = prompts(session)
    assert "Turin parts.city unlogged.city" in prompt
    assert "of_domain: town text" in prompt
    assert "view: city text" in prompt
    for name in ("no_columns", "parts_1", "passing"):
        assert f"{name}:" not in prompt
