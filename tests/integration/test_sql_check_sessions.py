# ruff: noqa: E501  statements, one a line
"""The check in sessions of all kinds, and what it tells of what is hidden."""

import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect

CHECK, TRY = "SELECT pgml_tune._check_sql(%s)", "SELECT pgml_tune._try_sql(%s)"
HIDDEN = ("it names a table or column that does not exist for you", "42P01")


def lay_out(connect: Connect) -> None:
    """Gives olga a table, one column of another, and nothing of a third."""
    connect().execute("GRANT CREATE ON SCHEMA public TO olga, mallory")
    connect("olga").execute("CREATE TABLE item (id integer, name text); INSERT INTO item VALUES (1, 'a'), (2, 'b')")
    mallory = connect("mallory")
    mallory.execute("CREATE TABLE half (id integer, secret text, other integer); INSERT INTO half VALUES (1, 's', 2)")
    mallory.execute("GRANT SELECT (id) ON half TO olga; CREATE TABLE hidden (salary integer, secret text)")


@pytest.fixture
def owner(connect: Connect) -> psycopg.Connection[Any]:
    """A session of olga in a database of its own."""
    lay_out(connect)
    return connect("olga")


@pytest.fixture(scope="module")
def connect_laid_out(connect_shared: Connect) -> Connect:
    lay_out(connect_shared)
    return connect_shared


@pytest.fixture
def visitor(connect_laid_out: Connect) -> Iterator[psycopg.Connection[Any]]:
    """A session of olga in the database of all tests that leave nothing behind."""
    with connect_laid_out("olga") as session:
        yield session


def error(session: psycopg.Connection[Any], sql: str) -> tuple[str | None, str | None]:
    verdict = fetch_value(session, CHECK, (sql,))
    return verdict["error"], verdict["sqlstate"]


@pytest.mark.parametrize("sql", [
    "SELECT * FROM hidden", "SELECT * FROM nowhere", "SELECT salary FROM hidden", "SELECT nothing FROM item",
    "SELECT secret FROM half", "SELECT * FROM half", "SELECT nothing FROM half", "SELECT count(*) FROM hidden",
    "SELECT secret = 1 FROM half", "SELECT salary || 1 FROM hidden", "SELECT * FROM hidden GROUP BY 2",
    "SELECT salary FROM hidden UNION SELECT 'a'", "SELECT 1 / 0 FROM hidden", "SELECT nofunction(secret) FROM hidden",
    "SELECT pg_sleep(1) FROM hidden", "SELECT (NULL::hidden).*", "SELECT NULL::hidden", "SELECT ARRAY[NULL::hidden]",
    "SELECT to_json(ARRAY[NULL::half])", "SELECT 'hidden'::regclass", "SELECT 'nowhere'::regclass",
    "SELECT id FROM half WHERE secret = 's'", "SELECT id FROM half ORDER BY secret", "SELECT h FROM half AS h",
    "SELECT id FROM half GROUP BY id HAVING max(other) > 1", "SELECT id FROM half JOIN hidden USING (secret)",
    "SELECT * FROM noschema.item", "SELECT id, pg_sleep(1) FROM half WHERE secret = 's'", "TABLE hidden",
])  # fmt: skip
def test_what_is_hidden_is_refused_like_what_is_not_there(visitor: psycopg.Connection[Any], sql: str) -> None:
    assert error(visitor, sql) == HIDDEN


def test_the_verdict_says_what_is_read_and_whether_rows_are_ordered(visitor: psycopg.Connection[Any]) -> None:
    verdict = fetch_value(visitor, CHECK, ("SELECT h.id, i.name AS n FROM half h, item i ORDER BY 1;",))
    assert verdict["relations"] == [
        {"schema": "public", "name": "half", "columns": ["id"]},
        {"schema": "public", "name": "item", "columns": ["name"]},
    ]
    assert (verdict["columns"], verdict["is_ordered"], verdict["error"]) == (["id", "n"], True, None)
    assert verdict["cost"] > 0


def test_rows_come_as_the_server_writes_them(visitor: psycopg.Connection[Any]) -> None:
    sql = "SELECT 10::numeric ^ 400, 1.10, 'NaN'::float8, NULL, 1 AS a, 2 AS a, ARRAY[1], '{\"x\": 1.50}'::jsonb"
    text = fetch_value(visitor, "SELECT pgml_tune._try_sql(%s)::text", (sql,))
    assert '1.10, "NaN", null, 1, 2, [1], {"x": 1.50}]' in text
    assert "1" + "0" * 400 in text
    assert fetch_value(visitor, TRY, ("SELECT FROM item",))["rows"] == [[], []]
    assert fetch_value(visitor, "SELECT pgml_tune._try_sql('SELECT id FROM item', 1)")["is_cut"] is True
    many = ", ".join(["1"] * 1600)
    assert fetch_value(visitor, TRY, (f"SELECT {many}",))["error"] is not None
    named = ", ".join(f"{n} AS c{n}" for n in range(1600))
    assert len(fetch_value(visitor, TRY, (f"SELECT {named}",))["rows"][0]) == 1600


@pytest.mark.parametrize("text", [
    "", " ", ";", ";;", "-- comment", "/* comment */", "(", ")", "'", '"', "$$", "$1", "SELECT $1", "\x01", "é", "SELECT '",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "SELECT 1" + " + 1" * 20_000, "SELECT " + "x" * 70_000, "SELECT 1;" * 5_000,
    "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(1000)) + " SELECT 1", "SELECT * FROM " + ", ".join(["item"] * 400),
    "SELECT 1 WHERE 1 IN (" + ", ".join(map(str, range(9000))) + ")", "EXECUTE x", "SELECT 1 -- \n; SELECT 2",
    "SELECT * FROM (" * 60 + "SELECT " + ", ".join(["1"] * 900) + ") AS q" * 60, "SELECT 'x'::cstring", "SELECT pg_typeof(1)",
    "SELECT NULL::record", "SELECT ROW()", "SELECT ''::unknown", "SELECT 1::\"char\"", "SELECT U&\"d\\0061ta\"", "\\d",
    "SELECT 1 AS \"客户　名\"", "SELECT 1 AS \":funcid 2\"", "SELECT 1 AS \"{CONST [ ( \\\\\"", "SELECT 1 AS \"<>\", 2 AS \"[\"",
])  # fmt: skip
def test_any_text_has_a_verdict(visitor: psycopg.Connection[Any], text: str) -> None:
    begun = time.monotonic()
    verdict = fetch_value(visitor, TRY, (text,))
    assert time.monotonic() - begun < 7
    assert (verdict["error"] is None) == (verdict["sqlstate"] is None)
    assert verdict["sqlstate"] not in ("38000", "XX000")
    assert fetch_value(visitor, "SELECT 1") == 1


def test_no_text_has_no_verdict(visitor: psycopg.Connection[Any]) -> None:
    assert fetch_value(visitor, TRY, (None,)) is None


def test_a_read_only_transaction_is_told_of(visitor: psycopg.Connection[Any]) -> None:
    visitor.execute("BEGIN READ ONLY")
    with refused("25006"):
        visitor.execute(CHECK, ("SELECT 1",))
    visitor.execute("ROLLBACK")
    visitor.execute("SET default_transaction_read_only = on")
    with refused("25006"):
        visitor.execute(TRY, ("SELECT 1",))


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_that_sees_older_definitions_is_told_of(visitor: psycopg.Connection[Any], level: str) -> None:
    visitor.execute(f"BEGIN ISOLATION LEVEL {level}")  # type: ignore[arg-type]
    with refused("0A000"):
        visitor.execute(CHECK, ("SELECT 1",))
    visitor.execute("ROLLBACK")


def test_the_transaction_goes_on_and_nothing_is_left_in_it(owner: psycopg.Connection[Any]) -> None:
    owner.execute("BEGIN")
    owner.execute("INSERT INTO item VALUES (3, 'c')")
    assert fetch_value(owner, TRY, ("SELECT count(*) FROM item",))["rows"] == [[3]]
    owner.execute("SAVEPOINT x")
    assert fetch_value(owner, TRY, ("SELECT 1 / 0",))["sqlstate"] == "22012"
    assert fetch_value(owner, TRY, ("SELECT nope FROM item",))["error"]
    owner.execute("ROLLBACK TO x")
    settings = "SELECT current_setting('transaction_read_only'), current_setting('jit'), current_setting('client_min_messages')"
    assert owner.execute(settings).fetchone() == ("off", "on", "notice")
    owner.execute("INSERT INTO item VALUES (4, 'd')")
    owner.execute("COMMIT")
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgml_tune_scratch'::regnamespace"
    assert (fetch_value(owner, "SELECT count(*) FROM item"), fetch_value(owner, left)) == (4, 0)


def test_a_prepared_transaction_may_have_checked_sql(visitor: psycopg.Connection[Any]) -> None:
    visitor.execute("BEGIN")
    assert fetch_value(visitor, TRY, ("SELECT 1",))["rows"] == [[1]]
    visitor.execute("PREPARE TRANSACTION 'checked'")
    visitor.execute("COMMIT PREPARED 'checked'")


@pytest.mark.parametrize("setting", [
    "search_path = ''", "search_path = public, pg_catalog", "jit = on; SET jit_above_cost = 0", "work_mem = '64kB'",
    "standard_conforming_strings = off", "datestyle = 'SQL, DMY'", "row_security = off", "client_encoding = 'LATIN1'",
    "constraint_exclusion = on", "enable_seqscan = off",
    "lock_timeout = '1s'", "extra_float_digits = -15", "bytea_output = 'escape'", "quote_all_identifiers = on",
    "force_parallel_mode = on", "check_function_bodies = off", "plpgsql.variable_conflict = 'use_variable'",
    "enable_sort = off; SET enable_nestloop = off", "default_tablespace = ''", "transform_null_equals = on", "statement_timeout = '9s'",
])  # fmt: skip
def test_settings_of_the_session_do_not_matter(visitor: psycopg.Connection[Any], setting: str) -> None:
    visitor.execute(f"SET {setting}")  # type: ignore[arg-type]
    assert fetch_value(visitor, TRY, ("SELECT id, name FROM public.item ORDER BY id",))["rows"] == [[1, "a"], [2, "b"]]
    assert error(visitor, "SELECT pg_catalog.pg_sleep(9)") != (None, None)


def test_names_are_found_as_the_caller_finds_them(visitor: psycopg.Connection[Any]) -> None:
    assert error(visitor, "SELECT * FROM item") == (None, None)
    visitor.execute("SET search_path = pg_catalog")
    assert error(visitor, "SELECT * FROM item") == HIDDEN
    visitor.execute("SET search_path = pg_temp, public")
    visitor.execute("CREATE TEMP TABLE item AS SELECT 7 AS id")
    assert fetch_value(visitor, TRY, ("SELECT * FROM item",))["rows"] == [[7]]


def test_another_role_of_the_session_has_its_own_rights(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("SET ROLE olga")
    assert error(db, "SELECT * FROM hidden") == HIDDEN
    db.execute("RESET ROLE")
    assert error(db, "SELECT * FROM hidden") == (None, None)


def test_row_security_holds(owner: psycopg.Connection[Any], connect: Connect) -> None:
    mallory = connect("mallory")
    mallory.execute("CREATE TABLE note (owner text, body text); INSERT INTO note VALUES ('olga', 'x'), ('bob', 'y')")
    mallory.execute("ALTER TABLE note ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON note USING (owner = current_user)")
    mallory.execute("GRANT SELECT ON note TO olga")
    assert fetch_value(owner, TRY, ("SELECT body FROM note",))["rows"] == [["x"]]


def test_a_timeout_of_the_session_ends_the_query_as_ever(visitor: psycopg.Connection[Any]) -> None:
    visitor.execute("SET statement_timeout = '300ms'")
    begun = time.monotonic()
    with refused("57014"):
        visitor.execute(TRY, ("WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",))
    assert time.monotonic() - begun < 3


def test_the_limit_of_time_leaves_the_session_alone(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('sql_seconds', '1')")
    endless = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    for _ in range(2):
        begun = time.monotonic()
        assert fetch_value(owner, TRY, (endless,))["sqlstate"] == "57014"
        assert time.monotonic() - begun < 3
    assert fetch_value(owner, "SELECT count(pg_sleep(0.01)) FROM generate_series(1, 150)") == 150


def test_cost_rows_and_bytes_are_bounded_by_settings(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('sql_max_bytes', '1024')")
    long = fetch_value(owner, TRY, ("SELECT repeat('x', 600) FROM generate_series(1, 10)",))
    assert (len(long["rows"]), long["is_cut"]) == (1, True)
    db.execute("SELECT configure('sql_max_cost', '100')")
    assert fetch_value(owner, TRY, ("SELECT count(*) FROM generate_series(1, 100000)",))["sqlstate"] == "54000"


def test_a_function_that_a_superuser_names_is_allowed(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("CREATE FUNCTION public.twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * $1'")
    assert error(owner, "SELECT twice(id) FROM item")[1] == "42501"
    db.execute("SELECT configure('sql_functions', 'public.once( ), public.twice( integer )')")
    assert fetch_value(owner, TRY, ("SELECT twice(id) FROM item ORDER BY 1",))["rows"] == [[2], [4]]


def test_a_domain_is_fine_whose_checks_only_compute(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    owner.execute("CREATE DOMAIN mail AS text CHECK (VALUE ~ '@') CHECK (length(VALUE) < 99)")
    owner.execute("CREATE TABLE box (m mail, ms mail[]); INSERT INTO box VALUES ('a@b', '{c@d}')")
    assert fetch_value(owner, TRY, ("SELECT m, ms FROM box WHERE m = 'a@b' AND ms = '{c@d}'",))["rows"] == [["a@b", ["c@d"]]]
    owner.execute("CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'")
    owner.execute("CREATE DOMAIN post AS text CHECK (VALUE ~ '@') CHECK (ok(VALUE)); CREATE TABLE bag (p post)")
    assert error(owner, "SELECT p FROM bag")[1] == "42501"
    assert error(owner, "SELECT name FROM item") == (None, None)


def test_foreign_tables_are_read_when_a_superuser_allows_them(
    db: psycopg.Connection[Any], owner: psycopg.Connection[Any]
) -> None:
    db.execute("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER far FOREIGN DATA WRAPPER nothing")
    db.execute("CREATE TABLE whole (id integer) PARTITION BY LIST (id)")
    db.execute("CREATE FOREIGN TABLE apart PARTITION OF whole FOR VALUES IN (1) SERVER far; GRANT SELECT ON whole, apart TO olga")
    for table in ("apart", "whole"):
        assert error(owner, f"SELECT * FROM {table}")[1] == "42501"


def test_an_event_trigger_that_forbids_views_is_told_of(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no views'; END $$")
    db.execute("CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION public.no()")
    with refused("55000"):
        owner.execute(CHECK, ("SELECT 1",))
    assert error(owner, "SELECT nothing FROM item") == HIDDEN
    db.execute("DROP EVENT TRIGGER no")


def test_an_event_trigger_that_lets_views_pass_does_not_matter(db: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE public.seen (tag text); GRANT INSERT ON public.seen TO PUBLIC")
    db.execute("CREATE FUNCTION public.see() RETURNS event_trigger LANGUAGE plpgsql AS"
               " $$ BEGIN INSERT INTO public.seen VALUES (tg_tag); END $$")  # fmt: skip
    db.execute("CREATE EVENT TRIGGER see ON ddl_command_end EXECUTE FUNCTION public.see()")
    assert error(owner, "SELECT * FROM item") == (None, None)
    db.execute("DROP EVENT TRIGGER see")
    assert fetch_value(db, "SELECT count(*) FROM public.seen") == 0


def test_nobody_is_waited_for_who_changes_a_table(
    db: psycopg.Connection[Any], owner: psycopg.Connection[Any], connect: Connect
) -> None:
    other = connect("olga")
    other.execute("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
    with refused("55P03"):
        owner.execute(CHECK, ("SELECT * FROM item",))
    other.execute("ROLLBACK")
    assert error(owner, "SELECT * FROM item") == (None, None)


def test_a_view_cannot_be_replaced_while_it_is_judged_and_run(
    db: psycopg.Connection[Any], owner: psycopg.Connection[Any], connect: Connect
) -> None:
    mallory = connect("mallory")
    mallory.execute("CREATE VIEW inner_view AS SELECT id FROM half; CREATE VIEW outer_view AS SELECT * FROM inner_view")
    mallory.execute("GRANT SELECT (id) ON outer_view TO olga; SET lock_timeout = '100ms'")
    db.execute("SELECT configure('sql_seconds', '3')")
    endless = "WITH RECURSIVE r (n) AS (SELECT id FROM outer_view UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    slow = connect("olga")
    asking = Thread(target=fetch_value, args=(slow, TRY, (endless,)))
    asking.start()
    held = "SELECT count(*) FROM pg_locks WHERE pid = %s AND relation = 'inner_view'::regclass"
    wait_until(lambda: fetch_value(db, held, (slow.info.backend_pid,)))
    with refused("55P03"):
        mallory.execute("CREATE OR REPLACE VIEW inner_view AS SELECT id FROM half WHERE pg_sleep(1) IS NOT NULL")
    with refused("55P03"):
        mallory.execute("CREATE INDEX ON half ((id + 1))")
    asking.join()
