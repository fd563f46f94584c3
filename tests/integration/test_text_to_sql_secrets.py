"""What text_to_sql() tells nobody, and what it never runs."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from sql_script import ALONE, COUNT, ask, candidates, open_shop, prompts, say

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's session as alice, in schema shop, whose model follows a script."""
    return open_shop(db)


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


def test_values_of_rows_that_a_policy_hides_are_not_looked_at(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY")
    session.execute("CREATE POLICY own ON shop.customer USING (name = 'Ada 1')")
    say(session, [COUNT], form=ALONE)
    candidates(session, "who in paris?")
    assert prompts(session) == ["who in paris?"]


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


def test_expressions_that_the_planner_folds_are_not_run(session: psycopg.Connection[Any]) -> None:
    """Looking for values in a table would run what its indexes, statistics and partitions are made of."""
    session.execute("RESET ROLE")
    session.execute("""
        CREATE FUNCTION shop.fold(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
            BEGIN
                IF current_user = 'alice' THEN RAISE EXCEPTION 'trap' USING ERRCODE = 'TRAP0'; END IF;
                RETURN $1;
            END $$;
        CREATE TABLE shop.indexed (city text);
        CREATE INDEX ON shop.indexed ((shop.fold('x') || city));
        CREATE TABLE shop.partly (city text);
        CREATE INDEX ON shop.partly (city) WHERE shop.fold('x') = 'x';
        CREATE TABLE shop.measured (city text, place text);
        CREATE STATISTICS shop.folded ON (shop.fold('x') || city), place FROM shop.measured;
        CREATE TABLE shop.parted (city text) PARTITION BY LIST ((shop.fold('x') || city));
        CREATE TABLE shop.parted_rest PARTITION OF shop.parted DEFAULT;
        CREATE TABLE shop.parent (city text);
        CREATE TABLE shop.child () INHERITS (shop.parent);
        CREATE INDEX ON shop.child ((shop.fold('x') || city));
        CREATE TABLE shop.plain (city text);
        CREATE INDEX ON shop.plain ((lower(city)));
        INSERT INTO shop.indexed VALUES ('Rome');
        INSERT INTO shop.partly VALUES ('Rome');
        INSERT INTO shop.measured VALUES ('Rome');
        INSERT INTO shop.parted VALUES ('Rome');
        INSERT INTO shop.child VALUES ('Rome');
        INSERT INTO shop.plain VALUES ('Rome');
        GRANT SELECT ON ALL TABLES IN SCHEMA shop TO alice;
    """)
    tables = ("indexed", "partly", "measured", "parted", "parent", "plain")
    say(session, [f"SELECT 1 FROM {table} WHERE city = 'Romee'" for table in tables])
    assert "SELECT 1 FROM plain WHERE city = 'Rome'" in [row[1] for row in candidates(session, "in Rome?", k=6)]
    assert "Rome plain.city" in prompts(session)[0]
    assert fetch_value(session, "SELECT count(*) FROM pgml_tune._readable_values() WHERE value = 'Rome'") == 1


def test_under_an_older_snapshot_nothing_is_looked_at(session: psycopg.Connection[Any], connect: Connect) -> None:
    """The planner would use an index that the snapshot does not show."""
    say(session, [COUNT], form=ALONE)
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT count(*) FROM shop.orders")
    connect().execute("""
        CREATE TABLE shop.written (n integer);
        GRANT INSERT ON shop.written TO PUBLIC;
        CREATE FUNCTION shop.write() RETURNS integer LANGUAGE sql AS 'INSERT INTO shop.written VALUES (1) RETURNING 1';
        CREATE FUNCTION shop.fold() RETURNS text IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN IF current_user = 'alice' THEN PERFORM shop.write(); END IF; RETURN ''; END $$;
        CREATE INDEX ON shop.customer ((shop.fold() || city));
    """)
    with refused("0A000"):
        candidates(session, "who is in Paris?")
    session.execute("COMMIT")
    assert prompts(session) == []
    session.execute("RESET ROLE")
    assert fetch_value(session, "SELECT count(*) FROM shop.written") == 0


def test_nobody_makes_a_question_wait_for_a_table_that_it_looks_at(
    session: psycopg.Connection[Any], connect: Connect
) -> None:
    say(session, ["SELECT 1"], form=ALONE)
    other = connect()
    other.execute("BEGIN")
    other.execute("LOCK TABLE shop.customer")
    session.execute("SET statement_timeout = '20s'")
    assert ask(session, "who is in Paris?") == "SELECT 1"
    other.execute("ROLLBACK")
    assert prompts(session) == ["who is in paris?"]


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
        if number % 5 == 0:
            shown += [str(row) for row in candidates(session, question)]
    shown += prompts(session)
    found = " ".join(part for part in shown if part)
    assert len(shown) >= 300 * 4
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
