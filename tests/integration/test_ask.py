"""ask(): the rows that answer a question, for those who were given it."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from sql_script import COUNT, MODEL, SHOP, follow, open_shop, register, say

ASK = "SELECT * FROM ask('how many customers?', %s)"
CALLERS = {
    "superuser": "ALTER ROLE asker SUPERUSER",
    "bypasses row security": "ALTER ROLE asker BYPASSRLS",
    "reads files": "GRANT pg_read_server_files TO asker",
    "writes files": "GRANT pg_write_server_files TO asker",
    "runs programs": "GRANT pg_execute_server_program TO asker",
    "may become a superuser": "CREATE ROLE between SUPERUSER; GRANT between TO asker",
    "through another": "CREATE ROLE between; GRANT pg_read_server_files TO between; GRANT between TO asker",
}


class Recorder:
    """Keeps a statement in place of a session that would run it."""

    def __init__(self) -> None:
        self.sql = ""

    def execute(self, sql: str) -> None:
        self.sql = sql


def script(db: psycopg.Connection[Any], answers: list[str]) -> None:
    """Makes public.follow(), by which a session of anybody gets a model that answers so."""
    recorder: Any = Recorder()
    follow(recorder, {"": answers})
    head = "CREATE FUNCTION public.follow() RETURNS void LANGUAGE plpython3u AS"
    db.execute(recorder.sql.replace("DO LANGUAGE plpython3u", head))


@pytest.fixture
def asker(db: psycopg.Connection[Any], connect: Connect) -> Any:
    """Opens a session of alice, who may ask a model with these answers."""

    def open_session(answers: list[str], role: str = "alice") -> psycopg.Connection[Any]:
        db.execute("SET client_min_messages = warning")
        register(db)
        db.execute(SHOP)  # type: ignore[arg-type]
        script(db, answers)
        db.execute("SELECT grant_ask('alice')")
        session = connect(role)
        session.execute("SELECT public.follow()")
        session.execute("SET search_path = shop, public")
        return session

    return open_session


def test_ask_returns_each_row_as_an_object_by_column(asker: Any) -> None:
    session = asker(["SELECT id, name, id AS id, NULL AS none FROM customer ORDER BY id LIMIT 2"])
    rows = session.execute(ASK, (MODEL,)).fetchall()
    assert [(sorted(row), row["id"], row["id_2"], row["none"]) for (row,) in rows] == [
        (["id", "id_2", "name", "none"], number, number, None) for number in (1, 2)
    ]


def test_ask_keeps_every_digit_of_a_number(asker: Any) -> None:
    session = asker(["SELECT 0.12345678901234567890123 AS a, 10::numeric ^ 40 AS b, 'x, \"]' AS c"])
    text = fetch_value(session, "SELECT answer::text FROM ask('how much?', %s) AS answer", (MODEL,))
    assert "0.12345678901234567890123" in text and "1" + "0" * 40 in text and 'x, \\"]' in text


def test_ask_returns_no_rows_where_there_are_none(asker: Any) -> None:
    session = asker(["SELECT id FROM customer WHERE false"])
    assert session.execute(ASK, (MODEL,)).fetchall() == []


def test_ask_keeps_to_the_rights_of_its_caller(asker: Any) -> None:
    hidden = ["SELECT salary FROM payroll", "SELECT secret_note FROM customer"]
    session = asker([*hidden, "SELECT name FROM customer LIMIT 1"])
    assert list(fetch_value(session, ASK, (MODEL,))) == ["name"]


def test_ask_cuts_at_the_rows_and_bytes_that_are_allowed(asker: Any, db: psycopg.Connection[Any]) -> None:
    session = asker(["SELECT id FROM customer ORDER BY id"])
    notices: list[str] = []
    session.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    three = "SELECT answer -> 'id' FROM ask('q', %s, max_rows => 3) AS answer"
    assert session.execute(three, (MODEL,)).fetchall() == [(1,), (2,), (3,)]
    assert notices == ["there are more rows than the first 3"]
    db.execute("SELECT configure('sql_max_rows', '2')")
    assert session.execute(three, (MODEL,)).fetchall() == [(1,), (2,)]
    with refused("22023"):
        session.execute("SELECT ask('q', %s, max_rows => 0)", (MODEL,))


def test_ask_ends_what_takes_too_long(asker: Any, db: psycopg.Connection[Any]) -> None:
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"
    session = asker([endless])
    db.execute("SELECT configure('sql_seconds', '1')")
    with refused("54000"):
        session.execute(ASK, (MODEL,))
    assert fetch_value(session, "SELECT 1") == 1


def test_an_error_while_it_runs_is_told_without_its_own_state(asker: Any) -> None:
    session = asker(["SELECT 1 / (id - id) FROM customer"])
    with refused("22023"):
        session.execute(ASK, (MODEL,))


def test_no_level_includes_ask(asker: Any, connect: Connect) -> None:
    asker([COUNT])
    for role in ("bob", "olga", "adam", "stranger"):
        with refused("42501"):
            connect(role).execute("SELECT public.ask('q')")


@pytest.mark.parametrize("privilege", CALLERS)
def test_ask_refuses_whose_rights_a_model_must_not_have(
    asker: Any, db: psycopg.Connection[Any], connect: Connect, privilege: str
) -> None:
    asker([COUNT])
    try:
        db.execute("CREATE ROLE asker LOGIN")
        db.execute("SELECT grant_ask('asker')")
        db.execute("GRANT USAGE ON SCHEMA shop TO asker; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO asker")
        db.execute(CALLERS[privilege])  # type: ignore[arg-type]
        session = connect("asker")
        session.execute("SELECT public.follow()")
        session.execute("SET search_path = shop, public")
        with refused("42501"):
            session.execute(ASK, (MODEL,))
        db.execute("SELECT configure('ask_privileged', 'on')")
        assert fetch_value(session, ASK, (MODEL,)) == {"count": 30}
        session.close()
    finally:
        db.execute("DROP OWNED BY asker; DROP ROLE asker; DROP ROLE IF EXISTS between")


def test_ask_refuses_a_session_that_could_become_another_role(db: psycopg.Connection[Any]) -> None:
    session = open_shop(db)
    say(session, [COUNT])
    session.execute("RESET ROLE; SELECT grant_ask('alice'); SET ROLE alice")
    with refused("42501"):
        session.execute(ASK, (MODEL,))


def test_ask_refuses_a_transaction_that_is_read_only(asker: Any) -> None:
    session = asker([COUNT])
    session.execute("BEGIN READ ONLY")
    with refused("25006"):
        session.execute(ASK, (MODEL,))
    session.execute("ROLLBACK")


def test_ask_answers_nothing_for_no_question(asker: Any) -> None:
    assert asker([COUNT]).execute("SELECT ask(NULL)").fetchall() == []


def test_only_superusers_allow_ask_for_the_privileged(db: psycopg.Connection[Any], connect: Connect) -> None:
    adam = connect("adam")
    for call in ("configure('ask_privileged', 'on')", "configure('sql_functions', 'public.f()')",
                 "pgml_tune._write_setting('ask_privileged', 'on')",
                 "pgml_tune._write_superuser_setting('sql_functions', 'public.f()')"):  # fmt: skip
        with refused("42501"):
            adam.execute(f"SELECT {call}")
    assert fetch_value(db, "SELECT configure('ask_privileged', 'on')") == "on"
