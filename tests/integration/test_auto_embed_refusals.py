"""What auto_embed() refuses, with which SQLSTATE, and that nothing is left of it."""

from typing import Any

import psycopg
import pytest
from collection_state import catalog
from conditions import refused
from conftest import Connect

TABLES = (
    "CREATE SCHEMA app",
    "CREATE TABLE app.doc (id bigint PRIMARY KEY, body text)",
    "INSERT INTO app.doc VALUES (1, 'a cat sleeps')",
    "CREATE VIEW app.a_view AS SELECT * FROM app.doc",
    "CREATE MATERIALIZED VIEW app.a_matview AS SELECT * FROM app.doc",
    "CREATE EXTENSION file_fdw",
    "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
    "CREATE FOREIGN TABLE app.a_foreign (id integer, body text) SERVER files OPTIONS (filename '/dev/null')",
    "CREATE TEMP TABLE a_temporary (id integer PRIMARY KEY, body text)",
    "CREATE SEQUENCE app.a_sequence",
    "CREATE TYPE app.a_type AS (id integer, body text)",
    "CREATE TABLE app.parted (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)",
    "CREATE TABLE app.part PARTITION OF app.parted DEFAULT",
    "CREATE TABLE app.parent (id integer PRIMARY KEY, body text)",
    "CREATE TABLE app.child (PRIMARY KEY (id)) INHERITS (app.parent)",
    "CREATE TABLE app.keyless (id integer NOT NULL, nullable integer UNIQUE, body text)",
    "CREATE UNIQUE INDEX ON app.keyless (id) WHERE id > 0",
    "CREATE UNIQUE INDEX ON app.keyless (abs(id))",
    "CREATE TABLE app.deferred (id integer PRIMARY KEY DEFERRABLE, body text)",
    "CREATE TABLE app.typed (id integer PRIMARY KEY, body integer, bytes bytea, texts text[], tree json)",
    "CREATE TABLE app.named (id integer PRIMARY KEY, body text)",
    "CREATE TABLE app.named_body_embedding (taken integer)",
    "CREATE TABLE app.called (id integer PRIMARY KEY, body text)",
    "CREATE FUNCTION app.called_body_query(text) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE app.secured (id integer PRIMARY KEY, body text)",
    "ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "GRANT ALL ON SCHEMA app TO olga, alice",
    "GRANT ALL ON app.doc TO olga, alice",
    "ALTER TABLE app.secured OWNER TO olga",
)
WRONG_TABLES = {
    "'app.a_view', 'body'": "42809",
    "'app.a_matview', 'body'": "42809",
    "'app.a_foreign', 'body'": "42809",
    "'app.a_sequence', 'body'": "42809",
    "'app.a_type', 'body'": "42809",
    "'app.doc_pkey', 'id'": "42809",
    "'a_temporary', 'body'": "42809",
    "'pg_catalog.pg_description', 'description'": "42809",
    "'information_schema.sql_features', 'feature_name'": "42809",
    "'pgml_tune.model', 'name'": "42809",
    "'app.part', 'body'": "0A000",
    "'app.parent', 'body'": "0A000",
    "'app.child', 'body'": "0A000",
    "'app.keyless', 'body'": "55000",
    "'app.deferred', 'body'": "55000",
    "'app.typed', 'body'": "42804",
    "'app.typed', 'bytes'": "42804",
    "'app.typed', 'texts'": "42804",
    "'app.typed', 'tree'": "42804",
    "'app.doc', 'missing'": "42703",
    "'app.doc', 'ctid'": "42703",
    "'app.missing', 'body'": "42P01",
    "4294967295, 'body'": "42P01",
    "0, 'body'": "42P01",
    "'app.named', 'body'": "42710",
    "'app.called', 'body'": "42710",
}
WRONG_ARGUMENTS = {
    "NULL, 'body'": "22023",
    "'app.doc', NULL": "22023",
    "'app.doc', 'body', 'nothere'": "42704",
    "'app.doc', 'body', 'minilm@v9'": "42704",
    "'app.doc', 'body', mode => 'other'": "22023",
    "'app.doc', 'body', collection => ''": "22023",
    "'app.doc', 'body', collection => repeat('x', 1000)": "22023",
    "'app.doc', 'body', collection => 'app.other.body'": "22023",
    "'app.doc', 'body', options => '[]'": "22023",
}
WRONG_OPTIONS = {
    '{"unknown": 1}': "22023",
    '{"index": "ivfflat"}': "22023",
    '{"storage": "bit"}': "22023",
    '{"chunk_tokens": 0}': "22023",
    '{"chunk_tokens": "32"}': "22023",
    '{"chunk_tokens": 32, "chunk_overlap": 32}': "22023",
    '{"chunk_overlap": 8}': "22023",
    '{"chunk_tokens": 100000}': "22023",
    '{"batch_size": 0}': "22023",
    '{"batch_size": 1e400}': "22023",
    '{"text_search": "klingon"}': "42704",
}


@pytest.fixture
def tables(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on tables, few of which could be kept embedded."""
    for statement in TABLES:
        db.execute(statement)
    return db


def outcomes(db: psycopg.Connection[Any], arguments: dict[str, str]) -> dict[str, str]:
    """The calls that did not end with the SQLSTATE they should."""
    found = {}
    for call, state in arguments.items():
        try:
            db.execute(f"CALL auto_embed({call})")
            found[call] = "accepted"
        except psycopg.Error as error:
            if error.sqlstate != state:
                found[call] = f"{error.sqlstate} {error.diag.message_primary}"
    return found


def test_tables_that_cannot_be_kept(tables: psycopg.Connection[Any]) -> None:
    wrong = dict(WRONG_TABLES)
    if tables.info.server_version >= 180000:
        tables.execute("CREATE TABLE app.virtual (id integer PRIMARY KEY, body text GENERATED ALWAYS AS ('x') VIRTUAL)")
        wrong["'app.virtual', 'body'"] = "0A000"
    before = catalog(tables)
    assert outcomes(tables, wrong) == {}
    assert catalog(tables) == before


def test_arguments_and_options_that_make_no_sense(tables: psycopg.Connection[Any]) -> None:
    before = catalog(tables)
    options = {f"'app.doc', 'body', options => '{options}'": state for options, state in WRONG_OPTIONS.items()}
    assert outcomes(tables, WRONG_ARGUMENTS | options) == {}
    assert catalog(tables) == before


def test_roles_without_the_right(tables: psycopg.Connection[Any], connect: Connect) -> None:
    before = catalog(tables)
    olga, alice = connect("olga"), connect("alice")
    with refused("0A000"):  # row security that hides rows from the owner, as whom they would be embedded
        olga.execute("CALL auto_embed('app.secured', 'body')")
    for session in (olga, alice):
        with refused("42501"):
            session.execute("CALL auto_embed('app.doc', 'body')")
    assert catalog(tables) == before
