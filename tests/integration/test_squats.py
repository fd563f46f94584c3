"""Where the extension agrees to be installed, and what objects that lie in its way can do."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect


@pytest.fixture
def empty(connect: Connect, db: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A new database with pgvector and PL/Python, not ours."""
    db.execute("DROP DATABASE IF EXISTS squatted")
    db.execute("CREATE DATABASE squatted TEMPLATE template0")
    session = connect(dbname="squatted")
    session.execute("SET client_min_messages = warning")
    session.execute("CREATE EXTENSION vector")
    session.execute("CREATE EXTENSION plpython3u")
    yield session
    session.close()
    db.execute("DROP DATABASE squatted WITH (FORCE)")


@pytest.mark.parametrize(
    "squat",
    [
        "CREATE SCHEMA target AUTHORIZATION mallory",
        "CREATE SCHEMA target; GRANT CREATE ON SCHEMA target TO mallory",
        "CREATE SCHEMA target; GRANT CREATE ON SCHEMA target TO PUBLIC",
    ],
    ids=["foreign_owner", "create_granted_to_another", "create_granted_to_public"],
)
def test_schema_that_others_can_write_to_is_refused(empty: psycopg.Connection[Any], squat: str) -> None:
    empty.execute(squat)
    with refused("42501"):
        empty.execute("CREATE EXTENSION pgml_tune SCHEMA target")
    assert fetch_value(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'pgml_tune'") == 0


def test_public_that_everybody_may_write_to_is_refused(empty: psycopg.Connection[Any]) -> None:
    empty.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with refused("42501"):
        empty.execute("CREATE EXTENSION pgml_tune")


def test_stock_public_is_accepted(empty: psycopg.Connection[Any]) -> None:
    assert fetch_value(empty, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'public'") == (
        "pg_database_owner"
    )
    empty.execute("CREATE EXTENSION pgml_tune")
    assert fetch_value(empty, "SELECT to_regprocedure('public.embed(text, text, text)') IS NOT NULL")


@pytest.mark.parametrize(
    "squat",
    [
        "CREATE FUNCTION public.embed(input text, model text DEFAULT NULL, kind text DEFAULT 'passage') RETURNS vector"
        " LANGUAGE sql STABLE AS $$ SELECT '[1]'::vector $$",
        # A column of this type would find it before embed(text).
        "CREATE FUNCTION public.embed(varchar) RETURNS text LANGUAGE sql AS $$ SELECT current_user::text $$",
        "CREATE PROCEDURE public.maintain(integer) LANGUAGE sql AS $$ SELECT 1 $$",
        "CREATE SCHEMA pgml_tune AUTHORIZATION mallory",
    ],
    ids=["function", "closer_match", "procedure", "schema"],
)
def test_object_in_the_way_stops_the_installation(empty: psycopg.Connection[Any], squat: str) -> None:
    empty.execute(squat)
    with refused("42501", "42P06"):
        empty.execute("CREATE EXTENSION pgml_tune")
    assert fetch_value(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'pgml_tune'") == 0


@pytest.mark.parametrize(
    "squat",
    [
        "CREATE TYPE public.version_state AS ENUM ('owned')",
        "CREATE TABLE public.model (model_id bigint, name text); CREATE TABLE public.setting (name text, value text);"
        " INSERT INTO public.setting VALUES ('max_input_bytes', '1')",
        "CREATE FUNCTION public.evil(text, text) RETURNS boolean LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE division_by_zero; END $$;"
        " CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil)",
        "CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE division_by_zero; END $$",
    ],
    ids=["type", "tables", "operator", "function_of_the_catalog"],
)
def test_names_in_public_change_nothing(empty: psycopg.Connection[Any], squat: str) -> None:
    empty.execute(squat)
    empty.execute("SET search_path = public, pg_catalog")
    empty.execute("CREATE EXTENSION pgml_tune")
    empty.execute("SELECT public.register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
    assert fetch_value(empty, "SELECT vector_dims(public.embed('longer than one byte'))") == 384
    empty.execute("CALL public.maintain()")
    assert fetch_value(empty, "SELECT public.configure('threads', '1')") == "1"


@pytest.mark.parametrize("name", ["it's", 'a "quoted" one', "$1", "back\\slash"])
def test_schema_whose_name_postgresql_cannot_put_into_a_script_is_refused(
    empty: psycopg.Connection[Any], name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    empty.execute(f"CREATE SCHEMA {quoted}")
    with refused("22P02", "22023"):
        empty.execute(f"CREATE EXTENSION pgml_tune SCHEMA {quoted}")
    assert fetch_value(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'pgml_tune'") == 0


@pytest.mark.parametrize("name", ["Mixed Case", "select", "äöü 中文", "with-dash.and.dots %s {0}"])
def test_schema_of_another_name_works(empty: psycopg.Connection[Any], name: str) -> None:
    empty.execute(f'CREATE SCHEMA "{name}"')
    empty.execute(f'CREATE EXTENSION pgml_tune SCHEMA "{name}"')
    empty.execute(f"SELECT \"{name}\".register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
    assert fetch_value(empty, f"SELECT vector_dims(\"{name}\".embed('a'))") == 384
    empty.execute(f"SELECT \"{name}\".grant_usage('stranger')")
    empty.execute("SET ROLE stranger")
    assert fetch_value(empty, f"SELECT vector_dims(\"{name}\".embed('a'))") == 384


def test_pgvector_may_lie_in_another_schema(empty: psycopg.Connection[Any]) -> None:
    empty.execute("DROP EXTENSION vector")
    empty.execute("CREATE SCHEMA elsewhere")
    empty.execute("CREATE EXTENSION vector SCHEMA elsewhere")
    empty.execute("CREATE EXTENSION pgml_tune")
    empty.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
    assert fetch_value(empty, "SELECT elsewhere.vector_dims(embed('a'))") == 384
    assert fetch_value(empty, "SELECT array_length(embed(ARRAY['a', 'b']), 1)") == 2
    assert fetch_value(empty, "SELECT count(*) FROM doctor() WHERE status = 'fail'") == 0


def test_non_superuser_cannot_install(empty: psycopg.Connection[Any], connect: Connect) -> None:
    empty.execute("ALTER DATABASE squatted OWNER TO mallory")
    with connect("mallory", dbname="squatted") as mallory, refused("42501"):
        mallory.execute("CREATE EXTENSION pgml_tune")


def test_database_owned_by_another_role_accepts_a_superuser(empty: psycopg.Connection[Any]) -> None:
    empty.execute("ALTER DATABASE squatted OWNER TO mallory")
    empty.execute("CREATE EXTENSION pgml_tune")
    assert fetch_value(empty, "SELECT count(*) FROM pgml_tune.models") == 0


def test_extension_cannot_be_moved_to_another_schema(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE SCHEMA elsewhere")
    with refused("0A000"):
        db.execute("ALTER EXTENSION pgml_tune SET SCHEMA elsewhere")


def test_dropping_the_extension_leaves_nothing(db: psycopg.Connection[Any]) -> None:
    db.execute("DROP EXTENSION pgml_tune")
    assert fetch_value(db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgml_tune'") == 0
    left = "SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%%pgml_tune%%'"
    assert fetch_value(db, left) == 0


def test_default_privileges_of_the_installer_give_nothing_away(empty: psycopg.Connection[Any]) -> None:
    empty.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO stranger")
    empty.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO stranger")
    empty.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO stranger")
    empty.execute("CREATE EXTENSION pgml_tune")
    assert fetch_value(empty, "SELECT has_schema_privilege('stranger', 'pgml_tune', 'usage')") is False
    assert fetch_value(empty, "SELECT has_function_privilege('stranger', 'configure(text, text)', 'execute')") is False
    assert fetch_value(empty, "SELECT has_table_privilege('stranger', 'pgml_tune.setting', 'select')") is False
