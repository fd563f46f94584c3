"""A collection follows ALTER TABLE, and goes with its table, its extension or its transaction."""

from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, catalog, collection_row, found, model_does, our_triggers
from conditions import fetch_value, refused
from conftest import Connect

COLLECTION = "app.doc.body"  # as the table was called when it was embedded
COLLECTIONS = "SELECT count(*) FROM pgml_tune.embedding_collections"


@pytest.fixture
def table(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on a table of a few rows in a schema of its own; the columns of interest are not the first."""
    db.execute("CREATE SCHEMA app")
    db.execute(
        "CREATE TABLE app.doc (first integer, rank integer DEFAULT 1, id bigint PRIMARY KEY,"
        " middle text, body text, last text)"
    )
    db.execute("INSERT INTO app.doc (id, body) VALUES (1, 'a cat sleeps'), (2, 'a dog barks'), (3, NULL)")
    return db


@pytest.fixture
def doc(table: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """The same table, embedded."""
    table.execute("CALL auto_embed('app.doc', 'body')")
    assert_exact(table, COLLECTION)
    return table


def written_and_found(db: psycopg.Connection[Any], name: str, key: str = "id", column: str = "body") -> None:
    """The collection takes every event, and its search finds what was written."""
    newest = fetch_value(db, f"SELECT coalesce(max({key}), 0) + 1 FROM {name}")
    with model_does(db, 1, 1):
        db.execute(f"INSERT INTO {name} ({key}, {column}) VALUES (%s, %s)", (newest, f"the {newest}th text"))
    with model_does(db, 1, 1):
        db.execute(f"UPDATE {name} SET {column} = {column} || ', changed' WHERE {key} = %s", (newest,))
    with model_does(db, 0):
        db.execute(f"UPDATE {name} SET {key} = {key} + 100 WHERE {key} = %s", (newest,))
    db.execute(f"DELETE FROM {name} WHERE {key} = %s", (newest - 1,))
    assert_exact(db, COLLECTION, (key,))
    assert found(db, f"the {newest}th text, changed", COLLECTION)[0] == {key: newest + 100}


def test_collection_follows_renames(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE app.doc RENAME TO paper")
    written_and_found(doc, "app.paper")
    doc.execute('ALTER SCHEMA app RENAME TO "An App"')
    written_and_found(doc, '"An App".paper')
    doc.execute("CREATE SCHEMA other")
    doc.execute('ALTER TABLE "An App".paper SET SCHEMA other')
    written_and_found(doc, "other.paper")
    doc.execute('ALTER TABLE other.paper RENAME body TO "the text"')
    written_and_found(doc, "other.paper", column='"the text"')
    doc.execute("ALTER TABLE other.paper RENAME id TO paper_id")
    # The names go round: what was the text is the key's name now.
    doc.execute('ALTER TABLE other.paper RENAME "the text" TO id')
    written_and_found(doc, "other.paper", "paper_id", "id")
    row = collection_row(doc, COLLECTION)
    assert (row["source_name"], row["source_column"]) == ("other.paper", "id")
    with model_does(doc, 0):
        doc.execute("CALL auto_embed('other.paper', 'id', collection => %s)", (COLLECTION,))
        doc.execute("CALL maintain()")
    doc.execute("CREATE TABLE other.doc (LIKE other.paper INCLUDING ALL)")
    written_and_found(doc, "other.paper", "paper_id", "id")
    doc.execute("SELECT drop_auto_embed(%s)", (COLLECTION,))
    assert our_triggers(doc, "other.paper") == []


def test_columns_that_come_and_go_change_nothing(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE app.doc DROP COLUMN first")
    written_and_found(doc, "app.doc")
    doc.execute("ALTER TABLE app.doc ADD COLUMN first text DEFAULT 'new', ADD COLUMN stamp timestamptz DEFAULT now()")
    doc.execute("ALTER TABLE app.doc DROP COLUMN middle, DROP COLUMN last, ALTER COLUMN rank TYPE bigint")
    written_and_found(doc, "app.doc")
    search = "SELECT document FROM semantic_search(%s, 'a cat sleeps', 1)"
    assert set(fetch_value(doc, search, (COLLECTION,))) == {"id", "rank", "body", "first", "stamp"}
    doc.execute("ALTER TABLE app.doc SET UNLOGGED")
    doc.execute("ALTER TABLE app.doc SET LOGGED")
    doc.execute("VACUUM FULL app.doc")
    doc.execute("CLUSTER app.doc USING doc_pkey")
    written_and_found(doc, "app.doc")


def test_text_column_dropped_by_force_leaves_a_writable_table(doc: psycopg.Connection[Any]) -> None:
    with refused("2BP01"):
        doc.execute("ALTER TABLE app.doc DROP COLUMN body")
    written_and_found(doc, "app.doc")
    doc.execute("ALTER TABLE app.doc DROP COLUMN body CASCADE")
    with model_does(doc, 0):
        doc.execute("INSERT INTO app.doc (id, middle) VALUES (50, 'no text')")
        doc.execute("UPDATE app.doc SET id = id + 1000, middle = 'x'")
        doc.execute("DELETE FROM app.doc WHERE id > 1002")
        doc.execute("TRUNCATE app.doc")
    doc.execute("CALL maintain()")
    assert collection_row(doc, COLLECTION)["state"] == "lost"
    assert fetch_value(doc, "SELECT count(*) FROM doctor() WHERE status <> 'ok' AND check_name LIKE '%collection%'") > 0
    with refused("55000"):
        found(doc, "anything", COLLECTION)
    doc.execute("SELECT drop_auto_embed(%s)", (COLLECTION,))
    assert fetch_value(doc, COLLECTIONS) == 0
    assert our_triggers(doc, "app.doc") == []
    doc.execute("INSERT INTO app.doc (id, middle) VALUES (1, 'another text')")
    doc.execute("CALL auto_embed('app.doc', 'middle')")
    assert_exact(doc, "app.doc.middle")


def test_dropped_table_takes_its_collection_along(table: psycopg.Connection[Any]) -> None:
    table.execute("CREATE TABLE app.other (id integer PRIMARY KEY, body text)")
    before = catalog(table)
    table.execute("CREATE TABLE app.gone (id integer PRIMARY KEY, body text)")
    table.execute("INSERT INTO app.gone VALUES (1, 'soon gone')")
    table.execute("CALL auto_embed('app.gone', 'body', collection => 'gone')")
    table.execute("DROP TABLE app.gone CASCADE")
    with refused("42704", "42P01", "55000"):
        table.execute("SELECT * FROM semantic_search('gone', 'soon')")
    assert table.execute("SELECT state, rows FROM pgml_tune.embedding_collections").fetchall() == [("lost", None)]
    table.execute("CALL maintain()")
    assert fetch_value(table, COLLECTIONS) == 0
    assert {kind: rows - before[kind] for kind, rows in catalog(table).items() if rows - before[kind]} == {}
    table.execute("CALL auto_embed('app.other', 'body', collection => 'gone')")
    # Dropped without maintain(), it can be dropped by name as well.
    table.execute("DROP SCHEMA app CASCADE")
    table.execute("SELECT drop_auto_embed('gone')")
    assert fetch_value(table, COLLECTIONS) == 0


def test_table_dropped_in_the_transaction_that_embedded_it(table: psycopg.Connection[Any]) -> None:
    before = catalog(table)
    table.execute("BEGIN")
    table.execute("CREATE TABLE app.gone (id integer PRIMARY KEY, body text)")
    table.execute("INSERT INTO app.gone VALUES (1, 'soon gone')")
    table.execute("CALL auto_embed('app.gone', 'body')")
    table.execute("DROP TABLE app.gone CASCADE")
    with refused("42P01"):
        table.execute("CALL auto_embed('app.gone', 'body')")
    table.execute("ROLLBACK")
    assert catalog(table) == before
    table.execute("BEGIN")
    table.execute("CREATE TABLE app.gone (id integer PRIMARY KEY, body text)")
    table.execute("CALL auto_embed('app.gone', 'body')")
    table.execute("DROP TABLE app.gone CASCADE")
    table.execute("COMMIT")
    table.execute("CALL maintain()")
    assert catalog(table) == before


def test_drop_auto_embed_leaves_nothing(table: psycopg.Connection[Any]) -> None:
    table.execute("CREATE TABLE app.parted (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    table.execute("CREATE TABLE app.part PARTITION OF app.parted DEFAULT")
    before = catalog(table)
    for source in ("app.doc", "app.parted"):
        table.execute(f"CALL auto_embed('{source}', 'body', collection => 'x', options => '{{\"chunk_tokens\": 64}}')")
        table.execute(f"INSERT INTO {source} (id, body) VALUES (7, 'a text')")
        table.execute("SELECT drop_auto_embed('x')")
        assert catalog(table) == before
        with model_does(table, 0):
            table.execute(f"UPDATE {source} SET body = 'nobody embeds this', id = id + 10")
    with refused("42704"):
        table.execute("SELECT drop_auto_embed('x')")


def test_transaction_block_says_so_and_can_be_rolled_back(table: psycopg.Connection[Any]) -> None:
    before = catalog(table)
    notices: list[str | None] = []
    table.add_notice_handler(lambda diagnostic: notices.append(diagnostic.severity_nonlocalized))
    table.execute("BEGIN")
    table.execute("CALL auto_embed('app.doc', 'body')")
    assert "NOTICE" in notices
    table.execute("UPDATE app.doc SET body = 'within' WHERE id = 1")
    assert assert_exact(table, COLLECTION)["rows"] == 2
    table.execute("ROLLBACK")
    assert catalog(table) == before
    table.execute("BEGIN")
    table.execute("CALL auto_embed('app.doc', 'body')")
    table.execute("SAVEPOINT s")
    table.execute("SELECT drop_auto_embed(%s)", (COLLECTION,))
    table.execute("ROLLBACK TO s")
    table.execute("COMMIT")
    assert_exact(table, COLLECTION)


def test_second_call_resumes_and_other_settings_are_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL auto_embed('app.doc', 'last', collection => 'mine', options => '{\"storage\": \"halfvec\"}')")
    before = catalog(doc)
    with model_does(doc, 0):
        doc.execute("CALL auto_embed('app.doc', 'body', collection => %s)", (COLLECTION,))
        doc.execute("CALL auto_embed('app.doc', 'body', 'minilm', NULL, 'trigger')")
        doc.execute("CALL auto_embed('app.doc', 'last', collection => 'mine')")
        doc.execute("CALL auto_embed('app.doc', 'last', 'minilm', 'mine', options => '{\"storage\": \"halfvec\"}')")
    for other in (
        "'app.doc', 'body', collection => 'mine'",
        "'app.doc', 'last', 'minilm@v1-int8', 'mine'",
        "'app.doc', 'last', collection => 'mine', options => '{\"storage\": \"vector\"}'",
        "'app.doc', 'last', collection => 'mine', options => '{\"chunk_tokens\": 32}'",
        "'app.doc', 'body', options => '{\"text_search\": \"none\"}'",
        "'app.doc', 'body', 'minilm@v1-int8'",
    ):
        with refused("42710"):
            doc.execute(f"CALL auto_embed({other})")
    assert catalog(doc) == before
    assert_exact(doc, COLLECTION)
    assert_exact(doc, "mine")


def test_dropped_extension_leaves_a_writable_table_without_a_trace(table: psycopg.Connection[Any]) -> None:
    table.execute("CREATE TABLE app.parted (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    table.execute("CREATE TABLE app.part PARTITION OF app.parted DEFAULT")
    kinds = {
        "relations": "SELECT relname FROM pg_class WHERE relnamespace = 'app'::regnamespace",
        "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'app'::regnamespace",
        "triggers": "SELECT tgname FROM pg_trigger WHERE tgrelid IN ('app.doc'::regclass, 'app.part'::regclass)",
    }
    before = {kind: set(table.execute(query)) for kind, query in kinds.items()}
    table.execute("CALL auto_embed('app.doc', 'body')")
    table.execute("CALL auto_embed('app.parted', 'body')")
    table.execute("SET client_min_messages = warning")
    table.execute("DROP EXTENSION pgml_tune CASCADE")
    assert {kind: set(table.execute(query)) for kind, query in kinds.items()} == before
    for name in ("app.doc", "app.parted", "app.part"):
        table.execute(f"INSERT INTO {name} (id, body) VALUES (length('{name}'), 'plain again')")
        table.execute(f"UPDATE {name} SET body = 'changed', id = id + 100 WHERE body = 'plain again'")
        table.execute(f"DELETE FROM {name} WHERE id > 100")
        table.execute(f"TRUNCATE {name}")
    # It can come back, and the table be embedded again.
    table.execute("CREATE EXTENSION pgml_tune")
    table.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
    table.execute("INSERT INTO app.doc (id, body) VALUES (1, 'once more')")
    table.execute("CALL auto_embed('app.doc', 'body')")
    assert assert_exact(table, COLLECTION)["rows"] == 1


def test_new_owner_owns_the_vectors(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("GRANT ALL ON SCHEMA app TO alice, bob")
    doc.execute("ALTER TABLE app.doc OWNER TO alice")
    doc.execute("CALL maintain()")
    owners = (
        "SELECT array_agg(DISTINCT o::regrole::text) FROM ("
        "SELECT relowner AS o FROM pg_class WHERE oid IN (SELECT unnest(ARRAY[source, embeddings, view_name]::oid[])"
        " FROM pgml_tune.embedding_collections)"
        " UNION ALL SELECT p.proowner FROM pg_proc AS p JOIN pg_trigger AS t ON t.tgfoid = p.oid"
        " WHERE t.tgrelid = 'app.doc'::regclass"
        " UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'app'::regnamespace) AS x"
    )
    assert fetch_value(doc, owners) == ["alice"]
    written_and_found(doc, "app.doc")
    alice = connect("alice")
    alice.execute("UPDATE app.doc SET body = 'written by alice' WHERE id = 1")
    assert_exact(doc, COLLECTION)
    doc.execute("REASSIGN OWNED BY alice TO bob")
    connect("bob").execute("INSERT INTO app.doc (id, body) VALUES (60, 'written by bob')")
    assert_exact(doc, COLLECTION)
    doc.execute("CALL maintain()")
    assert fetch_value(doc, owners) == ["bob"]
    written_and_found(doc, "app.doc")


def test_write_between_a_change_of_owner_and_maintain_is_not_lost(doc: psycopg.Connection[Any]) -> None:
    doc.execute("GRANT ALL ON SCHEMA app TO alice")
    doc.execute("ALTER TABLE app.doc OWNER TO alice")
    try:
        doc.execute("INSERT INTO app.doc (id, body) VALUES (70, 'in between')")
    except psycopg.Error as refusal:
        # Refused aloud is allowed; taken and not embedded is not.
        assert refusal.sqlstate == "42501"
    doc.execute("CALL maintain()")
    assert_exact(doc, COLLECTION)


def test_auto_embed_refuses_what_it_cannot_keep(table: psycopg.Connection[Any], connect: Connect) -> None:
    for statement in (
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
        "CREATE TABLE app.secured (id integer PRIMARY KEY, body text)",
        "ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE TABLE app.typed (id integer PRIMARY KEY, body integer, bytes bytea, texts text[], tree json)",
        "GRANT ALL ON SCHEMA app TO olga, alice",
        "ALTER TABLE app.secured OWNER TO olga",
    ):
        table.execute(statement)
    before = catalog(table)
    wrong = {
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
        "NULL, 'body'": "22023",
        "'app.doc', NULL": "22023",
        "'app.doc', 'body', 'nothere'": "42704",
        "'app.doc', 'body', 'minilm@v9'": "42704",
        "'app.doc', 'body', mode => 'queue'": "0A000",
        "'app.doc', 'body', mode => 'other'": "22023",
        "'app.doc', 'body', mode => NULL": "22023",
        "'app.doc', 'body', collection => ''": "22023",
        "'app.doc', 'body', collection => repeat('x', 1000)": "22023",
        "'app.doc', 'body', options => '[]'": "22023",
        **{
            f"'app.doc', 'body', options => '{options}'": state
            for options, state in {
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
            }.items()
        },
    }
    if table.info.server_version >= 180000:
        table.execute("CREATE TABLE app.virtual (id integer PRIMARY KEY, body text GENERATED ALWAYS AS ('x') VIRTUAL)")
        wrong["'app.virtual', 'body'"] = "0A000"
    found_wrong = {}
    for arguments, state in wrong.items():
        try:
            table.execute(f"CALL auto_embed({arguments})")
            found_wrong[arguments] = "accepted"
        except psycopg.Error as error:
            if error.sqlstate != state:
                found_wrong[arguments] = f"{error.sqlstate} {error.diag.message_primary}"
    assert not found_wrong, found_wrong
    olga, alice = connect("olga"), connect("alice")
    with refused("0A000"):
        olga.execute("CALL auto_embed('app.secured', 'body')")
    for session in (olga, alice):
        with refused("42501"):
            session.execute("CALL auto_embed('app.doc', 'body')")
    if table.info.server_version < 180000:
        assert catalog(table) == before
