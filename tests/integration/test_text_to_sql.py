"""text_to_sql(): from the question of a role to SQL that this role may run."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sql_script
from conditions import fetch_value, refused
from sql_script import ALONE, follow, prompts

Connect = Callable[..., psycopg.Connection[Any]]
SHOP = """
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('open', 'shipped');
CREATE TABLE shop.customer (id integer PRIMARY KEY, name text, city text, secret_note text);
CREATE TABLE shop.orders (
    id integer PRIMARY KEY, customer_id integer REFERENCES shop.customer, total numeric, state shop.state
);
CREATE TABLE shop.payroll (id integer PRIMARY KEY, salary numeric);
COMMENT ON TABLE shop.orders IS 'what customers have bought';
COMMENT ON COLUMN shop.orders.total IS 'in euros';
INSERT INTO shop.customer
SELECT g, 'Ada ' || g, (ARRAY['Berlin', 'Paris', 'New York'])[1 + g % 3], 'note' FROM generate_series(1, 30) AS g;
INSERT INTO shop.orders SELECT g, g, g * 10, 'open' FROM generate_series(1, 30) AS g;
GRANT USAGE ON SCHEMA shop TO alice, bob;
GRANT SELECT (id, name, city) ON shop.customer TO alice, bob;
GRANT SELECT ON shop.orders TO alice, bob;
ANALYZE shop.customer, shop.orders;
"""
COUNT = "SELECT COUNT(*) FROM customer"


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's session as alice, in schema shop, whose model follows a script."""
    db.execute("SET client_min_messages = warning")
    sql_script.register(db)
    db.execute(SHOP)  # type: ignore[arg-type]
    db.execute("SET search_path = shop, public")
    db.execute("SET ROLE alice")
    return db


def say(session: psycopg.Connection[Any], answers: Any, **options: Any) -> None:
    session.execute("RESET ROLE")
    follow(session, answers if isinstance(answers, dict) else {"": answers}, **options)
    session.execute("SET ROLE alice")


def ask(session: psycopg.Connection[Any], question: str | None = "how many?", **arguments: Any) -> Any:
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return fetch_value(session, f"SELECT text_to_sql(%(question)s{named})", {"question": question, **arguments})


def candidates(session: psycopg.Connection[Any], question: str | None = "how many?", **arguments: Any) -> list[Any]:
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return session.execute(
        f"SELECT * FROM text_to_sql_candidates(%(question)s{named})", {"question": question, **arguments}
    ).fetchall()


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


def test_nothing_is_run(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("CREATE SEQUENCE shop.counter; GRANT ALL ON SEQUENCE shop.counter TO alice")
    session.execute(
        "CREATE VIEW shop.trap AS SELECT nextval('shop.counter') AS n; GRANT SELECT ON shop.trap TO alice"
    )
    say(session, ["SELECT n FROM trap", "SELECT nextval('counter')", COUNT])
    assert ask(session, "trap") == COUNT
    session.execute("RESET ROLE")
    assert fetch_value(session, "SELECT is_called FROM shop.counter") is False


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
    assert prompts(session) == ["who in <v0> is <v1> ? | <v0> customer.city ; <v1> customer.name"]


def test_values_of_rows_that_a_policy_hides_are_not_looked_at(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY")
    session.execute("CREATE POLICY own ON shop.customer USING (name = 'Ada 1')")
    say(session, [COUNT], form=ALONE)
    candidates(session, "who in paris?")
    assert prompts(session) == ["who in paris?"]


def test_labels_of_enumerations_are_values(session: psycopg.Connection[Any]) -> None:
    say(session, ["select count(*) from orders where state = <v0>"], form=ALONE)
    assert ask(session, "orders that are Shipped") == "SELECT COUNT(*) FROM orders WHERE state = 'shipped'"


def test_a_value_that_no_row_has_is_corrected_first(session: psycopg.Connection[Any]) -> None:
    wrong = "SELECT COUNT(*) FROM customer WHERE city = 'Pariss'"
    right = "SELECT COUNT(*) FROM customer WHERE city = 'Paris'"
    say(session, [wrong])
    assert ask(session) == right
    assert [(row[1], row[3]) for row in candidates(session)] == [(right, True), (wrong, True)]


def test_tables_limit_what_a_question_is_about(session: psycopg.Connection[Any]) -> None:
    say(session, [COUNT, "SELECT COUNT(*) FROM orders"])
    assert ask(session, tables=["shop.orders"]) == "SELECT COUNT(*) FROM orders"
    (prompt,) = prompts(session)
    assert "customer:" not in prompt
    assert "->" not in prompt
    rows = candidates(session, tables=["orders"])
    assert [row[3] for row in rows] == [False, True]


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


def test_tables_outside_of_the_search_path_are_written_with_their_schema(session: psycopg.Connection[Any]) -> None:
    session.execute("SET search_path = public")
    say(session, ["SELECT COUNT(*) FROM shop.orders"])
    assert ask(session, tables=["shop.orders"]) == "SELECT COUNT(*) FROM shop.orders"
    assert "shop.orders (what" in prompts(session)[0]


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


def test_errors_hold_no_text_of_the_question(
    session: psycopg.Connection[Any], server_log: Callable[[int], str]
) -> None:
    start = len(server_log(0).encode())
    say(session, ["SELECT kanarienvogel FROM customer WHERE name = 'kanarienvogel'", "SELECT 'kanarienvogel'::integer"])
    with refused("22023") as failure:
        ask(session, "kanarienvogel")
    shown = (failure.value.diag.message_primary, failure.value.diag.message_detail, failure.value.diag.message_hint)
    assert not [part for part in shown if part and "kanarienvogel" in part]
    assert "kanarienvogel" not in server_log(start).replace("SELECT text_to_sql('kanarienvogel')", "")


def test_operators_that_others_have_planted_are_not_run(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""
        CREATE SCHEMA planted;
        GRANT USAGE ON SCHEMA planted TO PUBLIC;
        CREATE FUNCTION planted.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'trap' USING ERRCODE = 'TRAP0'; END $$;
        CREATE FUNCTION planted.trap(name, name) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'trap' USING ERRCODE = 'TRAP0'; END $$;
        CREATE FUNCTION planted.lower(text) RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'trap' USING ERRCODE = 'TRAP0'; END $$;
        CREATE OPERATOR planted.= (FUNCTION = planted.trap, LEFTARG = text, RIGHTARG = text);
        CREATE OPERATOR planted.= (FUNCTION = planted.trap, LEFTARG = name, RIGHTARG = name);
        CREATE VIEW planted.pg_class AS SELECT 1 AS oid;
    """)
    say(session, ["SELECT COUNT(*) FROM customer WHERE city = 'Pariss'"])
    session.execute("SET search_path = planted, pg_catalog, shop, public")
    right = "SELECT COUNT(*) FROM customer WHERE city = 'Paris'"
    assert [row[1] for row in candidates(session, "who is in paris?")][:1] == [right]


def test_code_of_views_and_policies_is_not_run(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""
        CREATE FUNCTION shop.trap() RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'trap' USING ERRCODE = 'TRAP0'; END $$;
        CREATE VIEW shop.cities AS SELECT shop.trap() AS city;
        CREATE TABLE shop.guarded (city text);
        INSERT INTO shop.guarded VALUES ('Rome');
        ALTER TABLE shop.guarded ENABLE ROW LEVEL SECURITY;
        CREATE POLICY guard ON shop.guarded USING (shop.trap() = city);
        GRANT SELECT ON shop.cities, shop.guarded TO alice;
    """)
    say(session, ["SELECT COUNT(*) FROM customer WHERE city = 'x'", "SELECT 1 FROM guarded WHERE city = 'x'"])
    assert candidates(session, "who is in Rome?")


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


def test_names_that_need_quotes_are_quoted(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""CREATE TABLE shop."Odd ""Name" ("Größe" integer, "select" text)""")
    session.execute("""GRANT SELECT ON shop."Odd ""Name" TO alice""")
    statement = '''SELECT MAX("Größe") FROM "Odd ""Name" WHERE "select" = 'x' '''.strip()
    say(session, [statement])
    assert ask(session, "how big?") == statement
    assert '"Odd ""Name": "Größe" integer, "select" text' in prompts(session)[0]


def test_calls_are_logged_without_texts(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("SELECT configure('log_sample', '1')")
    say(session, [COUNT])
    ask(session, "kanarienvogel?")
    call_id = fetch_value(session, "SELECT last_call_id()")
    session.execute("RESET ROLE")
    row = session.execute(
        "SELECT task, model, version, outcome, role, answer, input_text FROM pgml_tune.inference_logs"
        " WHERE call_id = %s",
        (call_id,),
    ).fetchone()
    assert row == ("text_to_sql", "scripted", "v1", "ok", "alice", None, None)


def test_strangers_may_not_ask(connect: Connect) -> None:
    with refused("42501"):
        ask(connect("stranger"))


@pytest.fixture
def hidden(session: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """Names of 30 tables, and of their columns, that alice may not read: in her schema and in another one."""
    names = []
    session.execute("RESET ROLE")
    session.execute("CREATE SCHEMA vault")
    for number in range(30):
        schema, table, column = ("shop", "vault")[number % 2], f"hidden_{number}x", f"covert_{number}y"
        session.execute(f"CREATE TABLE {schema}.{table} (id integer REFERENCES shop.orders, {column} text)")
        session.execute(f"COMMENT ON TABLE {schema}.{table} IS 'about hidden_{number}x'")
        session.execute(f"INSERT INTO {schema}.{table} VALUES (1, 'mystery_{number}z')")
        names += [table, column, f"mystery_{number}z"]
    session.execute("GRANT USAGE ON SCHEMA vault TO alice; ANALYZE")
    session.execute("SET ROLE alice")
    yield names


def test_no_name_of_a_hidden_table_is_in_prompts_or_answers(
    session: psycopg.Connection[Any], hidden: list[str]
) -> None:
    """300 questions to a model that knows all about 30 hidden tables."""
    answers = {}
    for number in range(300):
        n = number % 30
        schema = ("shop", "vault")[n % 2]
        table, column, value = f"{schema}.hidden_{n}x", f"covert_{n}y", f"mystery_{n}z"
        answers[f"question {number}."] = [
            [f"SELECT {column} FROM {table}", f"SELECT h.{column} FROM {table} AS h JOIN orders ON h.id = orders.id"],
            [f"SELECT id FROM orders WHERE state = (SELECT {column} FROM {table})", f"SELECT {column} FROM orders"],
            [f"SELECT {table[len(schema) + 1:]}.id FROM orders", f"SELECT '{value}'::int FROM orders GROUP BY id"],
            [f"WITH {column} AS (SELECT 1 FROM {table}) SELECT * FROM {column}", f"SELECT FROM {table} WHERE ("],
            [f"SELECT {column}() FROM orders", f"SELECT * FROM orders WHERE id = '{value}' -- {table}"],
            [f"SELECT id AS {column} FROM {table} ORDER BY 1", f"INSERT INTO {table} VALUES (1)"],
        ][number % 6]
    say(session, answers)
    shown = []
    for number in range(300):
        question = f"question {number}. how many are there?"
        with refused("22023") as failure:
            ask(session, question)
        diagnostics = failure.value.diag
        shown += [diagnostics.message_primary, diagnostics.message_detail, diagnostics.message_hint]
        shown += [str(row) for row in candidates(session, question)]
    shown += prompts(session)
    found = " ".join(part for part in shown if part)
    assert len(shown) >= 300 * 6
    assert not [name for name in hidden if name in found]
    reasons = {row[4] for row in candidates(session, "question 0. x")} | {
        row[4] for row in candidates(session, "question 6. x")
    }
    assert len(reasons) == 1


def test_500_questions_change_nothing(session: psycopg.Connection[Any]) -> None:
    """The checksum of all tables, sequences and settings of users is the same after any of 500 answers."""
    hostile = [
        "DELETE FROM orders", "SELECT 1; DROP TABLE orders",
        "WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d",
        "SELECT nextval('counter')", "SELECT set_config('search_path', 'x', false)", "SELECT setval('counter', 9)",
        "SELECT * INTO copied FROM orders", "SELECT * FROM orders FOR UPDATE", "COPY orders TO '/tmp/x'",
        "SELECT lo_create(1)", "SELECT query_to_xml('DELETE FROM orders', true, true, '')", "VACUUM", "CALL maintain()",
        "SELECT pg_advisory_lock(1)", "SELECT total FROM orders WHERE id = {n}", "SELECT name FROM customer LIMIT {n}",
        "SELECT city, COUNT(*) FROM customer GROUP BY city HAVING COUNT(*) > {n}", "EXPLAIN ANALYZE DELETE FROM orders",
        "DO $$ BEGIN DELETE FROM orders; END $$", "SELECT spoil() FROM orders",
    ]  # fmt: skip
    session.execute("RESET ROLE")
    session.execute("GRANT ALL ON ALL TABLES IN SCHEMA shop TO alice")
    session.execute("CREATE SEQUENCE shop.counter; GRANT ALL ON shop.counter TO alice")
    session.execute(
        "CREATE FUNCTION shop.spoil() RETURNS integer LANGUAGE sql AS 'DELETE FROM shop.orders RETURNING 1'"
    )
    say(session, {f"question {n}.": [text.replace("{n}", str(n)) for text in (hostile[n % 20], hostile[n // 20 % 20])]
                  for n in range(500)})  # fmt: skip

    def checksum() -> str:
        session.execute("RESET ROLE")
        found = fetch_value(session, """
            SELECT md5(string_agg(x, E'\\n' ORDER BY x)) FROM (
                SELECT o::text FROM shop.orders AS o UNION ALL SELECT c::text FROM shop.customer AS c
                UNION ALL SELECT p::text FROM shop.payroll AS p UNION ALL SELECT row(s.*)::text FROM shop.counter AS s
                UNION ALL SELECT c.oid || c.relname || c.relnamespace FROM pg_class AS c
                    WHERE c.relnamespace <> 'pg_toast'::regnamespace
                UNION ALL SELECT p.oid::text FROM pg_proc AS p
                UNION ALL SELECT l.oid::text FROM pg_largeobject_metadata AS l
                UNION ALL SELECT s.name || s.setting FROM pg_settings AS s WHERE s.source <> 'override'
                UNION ALL SELECT count(*)::text FROM pg_locks AS l WHERE l.locktype = 'advisory'
            ) AS d (x)
        """)
        session.execute("SET ROLE alice")
        return str(found)

    before = checksum()
    answered = 0
    for n in range(500):
        try:
            ask(session, f"question {n}. what?")
            answered += 1
        except psycopg.Error as error:
            assert error.sqlstate == "22023", error
    assert checksum() == before
    assert 0 < answered < 500
