"""Training of models that write SQL: with the rights of the caller and no others, from rows to answers."""

from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from psycopg import sql

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import PermissionDenied
from pgml_tune.jobs.caller import Caller
from pgml_tune.jobs.job import Access
from pgml_tune.store import job_caller

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.customer (name text, city text, tenant text DEFAULT 'a');
INSERT INTO shop.customer SELECT 'c' || g, (ARRAY['paris', 'rome', 'oslo', 'lima', 'cairo'])[1 + g % 5] FROM generate_series(1, 20) AS g;
CREATE TABLE shop.salary (name text, amount integer);
INSERT INTO shop.salary VALUES ('c1', 7);
CREATE SCHEMA depot;
CREATE TABLE depot.part (label text, weight integer);
INSERT INTO depot.part VALUES ('bolt', 3), ('nut', 2), ('pin', 1);
CREATE TABLE public.lesson AS
SELECT q.question, q.sql, 'shop' AS place FROM shop.customer AS c CROSS JOIN LATERAL (VALUES
    ('how many customers live in ' || c.city, format('SELECT count(*) FROM customer WHERE city = %L', c.city)),
    ('who lives in ' || c.city, format('SELECT name FROM customer WHERE city = %L', c.city))
) AS q (question, sql)
UNION
SELECT 'how heavy is a ' || p.label, format('SELECT weight FROM part WHERE label = %L', p.label), 'depot, shop'
FROM depot.part AS p;
"""  # noqa: E501
GRANTS = """
GRANT USAGE ON SCHEMA shop, depot TO learner;
GRANT SELECT ON shop.customer, depot.part, public.lesson TO learner;
SELECT grant_usage('learner'), grant_operate('learner');
ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON shop.customer TO learner USING (tenant = 'a');
UPDATE shop.customer SET tenant = 'b' WHERE name = 'c20';
"""
OPTIONS = '{"base": "scratch:tiny", "epochs": 40, "learning_rate": 0.004, "batch_size": 8, "threads": 1}'
LESSONS = "SELECT question, sql, place FROM public.lesson ORDER BY question"
CALL = "CALL public.finetune_text_to_sql(%s, %s, eval_query => %s, options => %s)"


@pytest.fixture(scope="module")
def shop(connect_shared: Connect) -> Iterator[Connect]:
    """A database with a role that may read some of its tables."""
    admin = connect_shared()
    admin.execute("SELECT configure('job_threads', '1')")
    if not fetch_value(admin, "SELECT count(*) FROM pg_roles WHERE rolname = 'learner'"):
        admin.execute("CREATE ROLE learner LOGIN")
    admin.execute(SHOP)
    admin.execute(GRANTS)
    yield connect_shared


def train(db: psycopg.Connection[Any], model: str, rows: str, options: str = OPTIONS) -> dict[str, Any]:
    job = fetch_value(db, CALL, (model, rows, rows, options))
    state, result = db.execute(
        "SELECT state::text, result FROM pgml_tune.jobs WHERE job_id = %s", (job,)
    ).fetchone() or ("", {})
    assert state == "succeeded"
    return {**result, "log": [row[0] for row in db.execute("SELECT * FROM public.job_log(%s)", (job,)).fetchall()]}


@pytest.fixture(scope="module")
def trained(shop: Connect) -> dict[str, Any]:
    """What came of a training by the role, on rows of two search paths and some that are not for it."""
    own = shop("learner")
    rows = f"""
        {LESSONS.partition(" ORDER")[0]}
        UNION ALL SELECT 'what does c1 earn', 'SELECT amount FROM salary', 'shop'
        UNION ALL SELECT 'remove all', 'DELETE FROM customer', 'shop'
        UNION ALL SELECT 'write a file', $q$SELECT pg_read_file('/etc/passwd')$q$, 'shop'
        ORDER BY 1
    """
    return train(own, "shopkeeper", rows)


def test_a_role_without_rights_of_its_own_trains_a_model(shop: Connect, trained: dict[str, Any]) -> None:
    assert trained["after"] >= 80
    own = shop("learner", options="-c search_path=shop,public")
    statement = fetch_value(own, "SELECT text_to_sql('how many customers live in rome', %s)", (trained["versions"][0],))
    # The last of the customers is not for this role.
    assert fetch_value(own, statement) == 4


def test_the_search_path_of_a_row_says_where_its_tables_are(shop: Connect, trained: dict[str, Any]) -> None:
    own = shop("learner", options="-c search_path=depot,public")
    statement = fetch_value(own, "SELECT text_to_sql('how heavy is a bolt', %s)", (trained["versions"][0],))
    assert fetch_value(own, statement) == 3


def test_sql_that_is_not_for_the_caller_is_left_out_and_tells_nothing(trained: dict[str, Any]) -> None:
    assert trained["dropped_rows"] == 6  # of the rows to train on, and of the same to measure with
    told = [line for line in trained["log"] if "left out" in line]
    assert len(told) == 6
    assert not any("salary" in line or "amount" in line for line in told)


def test_what_was_trained_can_be_measured_again(shop: Connect, trained: dict[str, Any]) -> None:
    own = shop("learner")
    version = trained["versions"][0]
    job = fetch_value(own, "CALL public.evaluate_model(%s, %s)", (version, LESSONS))
    figures = fetch_value(own, "SELECT result -> 'figures' FROM pgml_tune.jobs WHERE job_id = %s", (job,))
    assert figures["execution_accuracy"] == pytest.approx(trained["after"], abs=10)
    assert {"exact_match", "valid_rate", "latency_ms", "questions_per_second"} < set(figures)
    kept = own.execute(
        "SELECT DISTINCT metric FROM pgml_tune.evaluations WHERE model = 'shopkeeper' AND job_id = %s", (job,)
    ).fetchall()
    assert {metric for (metric,) in kept} == set(figures)


def test_rows_in_the_search_path_of_the_caller_need_no_third_column(shop: Connect) -> None:
    own = shop("learner", options="-c search_path=shop,public")
    rows = "SELECT question, sql FROM public.lesson WHERE place = 'shop' ORDER BY question"
    result = train(own, "shopassistant", rows, OPTIONS.replace("40", "1"))
    assert (result["dropped_rows"], result["train_rows"]) == (0, 10)


def test_search_paths_in_one_query_only_are_refused(shop: Connect) -> None:
    own = shop("learner", options="-c search_path=shop,public")
    with refused("22023"):
        own.execute(CALL, ("shopboy", LESSONS, "SELECT question, sql FROM public.lesson", OPTIONS))


def test_a_role_that_can_read_nothing_is_refused(shop: Connect) -> None:
    own = shop("learner", options="-c search_path=nowhere")
    rows = "SELECT question, sql FROM public.lesson"
    with refused("22023"):
        own.execute(CALL, ("shopboy", rows, rows, OPTIONS))


@pytest.fixture
def caller(shop: Connect) -> Iterator[Caller]:
    found = Caller(Access(place(shop()), "learner"))
    yield found
    found.close()


def place(db: psycopg.Connection[Any]) -> str:
    return psycopg.conninfo.make_conninfo(**db.info.get_parameters())


def test_statements_run_as_the_caller_under_his_row_security(caller: Caller) -> None:
    assert caller.run("SELECT current_user", "shop").rows == (("learner",),)
    assert caller.run("SELECT count(*) FROM customer", "shop").rows == ((19.0,),)
    assert not caller.run("SELECT amount FROM salary", "shop").is_valid


def test_a_policy_that_would_become_the_worker_does_not(shop: Connect, caller: Caller) -> None:
    admin = shop()
    admin.execute("GRANT CREATE ON SCHEMA shop TO learner")
    own = shop("learner")
    for number, step in enumerate(("RESET ROLE", "SET ROLE postgres", "RESET SESSION AUTHORIZATION")):
        own.execute(
            sql.SQL(
                "CREATE FUNCTION shop.become{}() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {};"
                " CREATE TABLE public.taken (a int); RETURN true; END $$"
            ).format(sql.SQL(str(number)), sql.SQL(step))
        )
        own.execute(f"CREATE TABLE shop.trap{number} AS SELECT 1 AS a")  # type: ignore[arg-type]
        own.execute(f"ALTER TABLE shop.trap{number} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")  # type: ignore[arg-type]
        own.execute(f"CREATE POLICY p ON shop.trap{number} USING (shop.become{number}())")  # type: ignore[arg-type]
        assert not caller.run(f"SELECT a FROM trap{number}", "shop").is_valid
        assert not caller.run(f"SELECT shop.become{number}()", "shop").is_valid
    assert fetch_value(admin, "SELECT to_regclass('public.taken') IS NULL")
    assert caller.run("SELECT current_user", "shop").rows == (("learner",),)


def test_nothing_that_a_statement_leaves_in_the_session_is_there_for_the_next(shop: Connect) -> None:
    """As if it had found a way past the executor."""
    db = ConnectionDatabase.connect(place(shop()), "test", prepares=False)
    for step in ("CREATE DOMAIN pg_temp.text AS pg_catalog.int4", "SET default_transaction_read_only = on"):
        with db.undone():
            db.fetch(step)
        with db.undone():
            assert '"error": null' in job_caller.run(db, "learner", "SELECT current_user", "shop", 1)
    for _ in range(8):
        db.fetch("SELECT $1::pg_catalog.text AS text", "a")
    assert db.fetch("SELECT name FROM pg_prepared_statements") == []
    db.close()


@pytest.mark.parametrize("step", [
    "RESET ROLE", "SET ROLE postgres", "SET LOCAL ROLE postgres", "RESET SESSION AUTHORIZATION",
    "RESET ALL; SET ROLE none", "SET SESSION AUTHORIZATION postgres", "PREPARE p AS SELECT 1", "DEALLOCATE ALL",
    "DISCARD ALL", "LISTEN l", "CREATE TEMPORARY TABLE t (a int)", "ALTER ROLE learner SUPERUSER",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT pgml_tune._try_sql_as('postgres', '', 'SELECT 1', 1)",
])  # fmt: skip
def test_whoever_acts_as_the_caller_has_no_way_back_to_the_worker(shop: Connect, step: str) -> None:
    admin = shop()
    body = """
        from pgml_tune.db import server
        role = plpy.execute("SELECT oid::int8 AS oid FROM pg_roles WHERE rolname = 'learner'")[0]["oid"]
        state = "00000"
        with server.acting_as(role):
            try:
                plpy.execute(args[0])
            except plpy.SPIError as error:
                state = error.sqlstate
            who = plpy.execute("SELECT current_user::text AS who")[0]["who"]
        after = plpy.execute("SELECT current_user::text AS who")[0]["who"]
        return [who, state, after]
    """
    admin.execute(
        sql.SQL("CREATE OR REPLACE FUNCTION public.act(step text) RETURNS text[] LANGUAGE plpython3u AS {}").format(
            sql.Literal(dedent(body))
        )
    )
    who, state, after = fetch_value(admin, "SELECT public.act(%s)", (step,))
    assert (who, after) == ("learner", "postgres")
    assert state == "42501"


def test_only_a_superuser_may_act_as_another(shop: Connect) -> None:
    shop().execute("GRANT EXECUTE ON FUNCTION pgml_tune._try_sql_as(text, text, text, integer) TO learner")
    with refused("42501"):
        shop("learner").execute("SELECT pgml_tune._try_sql_as('postgres', 'shop', 'SELECT 1', 1)")


def test_a_session_that_was_ended_is_opened_again(shop: Connect, caller: Caller) -> None:
    admin = shop()
    application = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
    assert fetch_value(admin, application, ("pgml-tune job",)) == 1
    alive = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgml-tune job'"
    wait_until(lambda: fetch_value(admin, alive) == 0)
    assert caller.run("SELECT 1 AS one", "shop").rows == ((1.0,),)


def test_a_worker_that_is_no_superuser_is_refused(shop: Connect) -> None:
    admin = shop()
    if not fetch_value(admin, "SELECT count(*) FROM pg_roles WHERE rolname = 'porter'"):
        admin.execute("CREATE ROLE porter LOGIN")
    with pytest.raises(PermissionDenied, match="rights of the caller"):
        Caller(Access(psycopg.conninfo.make_conninfo(place(admin), user="porter"), "learner"))
