"""A collection follows ALTER TABLE, and goes with its table, its extension or its transaction."""

from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, catalog, collection_row, found, model_does, our_triggers
from conditions import fetch_value, refused
from conftest import Connect

COLLECTION = "app.doc.body"  # as the table was called when it was embedded
SUFFERING = "SELECT fix FROM doctor() WHERE status <> 'ok' AND check_name LIKE 'collection%'"
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


@pytest.mark.parametrize(
    "change", ["DROP CONSTRAINT doc_pkey", "DISABLE TRIGGER USER", "SET UNLOGGED", "OWNER TO alice"]
)
def test_doctor_names_what_a_collection_suffers_from_and_mends_it(doc: psycopg.Connection[Any], change: str) -> None:
    doc.execute("GRANT ALL ON SCHEMA app TO alice")
    doc.execute(f"ALTER TABLE app.doc {change}")
    if "TRIGGER" in change:
        doc.execute("INSERT INTO app.doc (id, body) VALUES (5, 'not followed')")
    fixes = [fix for (fix,) in doc.execute(SUFFERING).fetchall()]
    assert fixes
    for fix in fixes:
        for statement in fix.split("; "):
            doc.execute(statement)
    assert doc.execute(SUFFERING).fetchall() == []
    assert_exact(doc, COLLECTION)
    written_and_found(doc, "app.doc")


@pytest.mark.parametrize(
    "part",
    [
        "TRIGGER pgml_tune_1_insert ON app.doc",
        "TRIGGER pgml_tune_1_columns ON app.doc",
        "TABLE pgml_tune.embedding_1_1 CASCADE",
        "FUNCTION pgml_tune._sync_1() CASCADE",
    ],
)
def test_table_stays_writable_whatever_part_was_dropped_by_hand(doc: psycopg.Connection[Any], part: str) -> None:
    doc.execute(f"DROP {part}")
    doc.execute("INSERT INTO app.doc (id, body) VALUES (5, 'written all the same')")
    doc.execute("UPDATE app.doc SET body = body || '!', id = id + 10")
    doc.execute("DELETE FROM app.doc WHERE id = 12")
    (fix,) = [fix for (fix,) in doc.execute(SUFFERING).fetchall()]
    doc.execute(fix)
    doc.execute("CALL auto_embed('app.doc', 'body')")
    assert doc.execute(SUFFERING).fetchall() == []
    assert_exact(doc, COLLECTION)
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
    table.execute("CALL maintain()")  # makes the partitions of the log
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
    table.execute("CALL maintain()")  # makes the partitions of the log
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
