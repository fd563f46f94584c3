"""A dump takes collections along: restored, they are searched and kept without a single text being embedded again."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, collection_row, found, model_does, model_work
from conditions import fetch_value, refused
from conftest import Connect
from dumping import restored_copy

ODD = '"Odd ""App"."ta""b\'le"'
# Collections: their table, text column and key.
KEPT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "app.doc.body": ("app.doc", "body", ("id",)),
    "renamed": ("app.paper", "b", ("paper_id",)),
    "parted": ("app.parted", "body", ("region", "id")),
    "Odd \"App.ta\"b'le.Te xt": (ODD, "Te xt", ('K e"y',)),
}
OPTIONS = {
    "renamed": '{"chunk_tokens": 32, "storage": "halfvec", "text_search": "german"}',
    "parted": '{"index": "none"}',
}
UNSETTLED = "SELECT check_name, status FROM doctor() WHERE status <> 'ok' AND check_name LIKE '%collection%'"


@pytest.fixture
def source(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database whose embedded tables were altered before, so that a restored table has other column numbers."""
    for statement in (
        "CREATE SCHEMA app",
        "CREATE TABLE app.doc (gone integer, id bigint PRIMARY KEY, gone_too text, body text, note text)",
        "ALTER TABLE app.doc DROP gone, DROP gone_too",
        "INSERT INTO app.doc SELECT g, 'document number ' || g FROM generate_series(1, 12) AS g",
        "CALL auto_embed('app.doc', 'body')",
        "CREATE TABLE app.article (a integer, b integer PRIMARY KEY, c text, d text)",
        "INSERT INTO app.article SELECT 1, g, 'x', repeat('article number ' || g || '. ', 20)"
        " FROM generate_series(1, 5) AS g",
        f"CALL auto_embed('app.article', 'd', collection => 'renamed', options => '{OPTIONS['renamed']}')",
        "ALTER TABLE app.article RENAME TO paper",
        "ALTER TABLE app.paper RENAME b TO paper_id",
        "ALTER TABLE app.paper RENAME d TO b",
        "ALTER TABLE app.paper DROP a",
        "CREATE TABLE app.parted (region text, id bigint, body text, PRIMARY KEY (region, id))"
        " PARTITION BY LIST (region)",
        "CREATE TABLE app.part_eu PARTITION OF app.parted FOR VALUES IN ('eu')",
        "CREATE TABLE app.part_asia (gone text, body text, id bigint NOT NULL, region text NOT NULL)",
        "ALTER TABLE app.part_asia DROP gone",
        f"CALL auto_embed('app.parted', 'body', collection => 'parted', options => '{OPTIONS['parted']}')",
        "ALTER TABLE app.parted ATTACH PARTITION app.part_asia FOR VALUES IN ('asia')",
        "INSERT INTO app.parted VALUES ('eu', 1, 'Europa'), ('asia', 1, 'Nippon'), ('asia', 2, NULL)",
        "CALL maintain()",
        'CREATE SCHEMA "Odd ""App" AUTHORIZATION olga',
        f'CREATE TABLE {ODD} ("K e""y" text PRIMARY KEY, "Te xt" text)',
        f"INSERT INTO {ODD} VALUES ('a''b', 'quoted'), ('\"', 'more quoted')",
        f"ALTER TABLE {ODD} OWNER TO olga",
    ):
        db.execute(statement)
    db.execute("CALL auto_embed(%s, 'Te xt')", (ODD,))
    return db


def assert_all_exact(db: psycopg.Connection[Any]) -> None:
    for name, (_, _, keys) in KEPT.items():
        assert_exact(db, name, keys)


@pytest.mark.parametrize("dump_format", ["plain", "custom", "directory"])
def test_restored_collections_are_searched_and_kept_as_before(
    source: psycopg.Connection[Any], connect: Connect, tmp_path: Path, dump_format: str
) -> None:
    search = "SELECT key, round(distance::numeric, 5), document FROM semantic_search(%s, 'document number 3')"
    fused = "SELECT key, round(score::numeric, 5), document FROM hybrid_search(%s, 'document number 3')"
    with restored_copy(source, connect, tmp_path, dump_format) as copy:
        with model_does(copy, 0):
            copy.execute("CALL maintain()")
            for name, (table, column, _) in KEPT.items():
                options = OPTIONS.get(name, "{}")
                copy.execute("CALL auto_embed(%s, %s, NULL, %s, options => %s)", (table, column, name, options))
        assert model_work(copy)["texts"] == 0
        assert copy.execute(UNSETTLED).fetchall() == []
        for name in KEPT:
            before, after = (collection_row(session, name) for session in (source, copy))
            assert after | {"bytes": 0} == before | {"bytes": 0}
            for query in (search, fused):
                assert copy.execute(query, (name,)).fetchall() == source.execute(query, (name,)).fetchall()
        assert_all_exact(copy)
        with model_does(copy, 1, 1):
            copy.execute("INSERT INTO app.doc (id, body) VALUES (100, 'written after the restore')")
        with model_does(copy, 0):
            copy.execute("UPDATE app.doc SET id = id + 1000, note = 'moved' WHERE id < 5")
            copy.execute("DELETE FROM app.doc WHERE id = 6")
            copy.execute("UPDATE app.paper SET paper_id = -paper_id")
            copy.execute("UPDATE app.parted SET region = 'eu', id = id + 10 WHERE region = 'asia'")
        copy.execute("UPDATE app.paper SET b = b || ' changed' WHERE paper_id = -2")
        copy.execute("INSERT INTO app.part_asia (region, id, body) VALUES ('asia', 5, 'into a leaf')")
        copy.execute(f"UPDATE {ODD} SET \"Te xt\" = 'changed', \"K e\"\"y\" = 'k' WHERE \"Te xt\" = 'quoted'")
        assert_all_exact(copy)
        assert found(copy, "written after the restore", "app.doc.body")[0] == {"id": 100}
        copy.execute("CREATE TABLE app.later (id integer PRIMARY KEY, body text)")
        copy.execute("INSERT INTO app.later VALUES (1, 'a collection of its own')")
        copy.execute("CALL auto_embed('app.later', 'body')")
        assert_exact(copy, "app.later.body")
        for name in KEPT:
            copy.execute("SELECT drop_auto_embed(%s)", (name,))
        left = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE starts_with(tgname, 'pgml_tune')"
        assert copy.execute(left).fetchall() == [("app.later",)]


def test_dump_of_the_schema_alone_restores_and_can_be_embedded_anew(
    source: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> None:
    with restored_copy(source, connect, tmp_path, "plain", "--schema-only") as copy:
        assert fetch_value(copy, "SELECT count(*) FROM pgml_tune.embedding_collections") == 0
        copy.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
        # What is left of the collections is in nobody's way, until one is wanted again.
        copy.execute("CALL maintain()")
        copy.execute("INSERT INTO app.doc (id, body) VALUES (1, 'a first row'), (2, 'a second')")
        copy.execute("UPDATE app.doc SET body = 'changed' WHERE id = 1")
        with refused("42710"):
            copy.execute("CALL auto_embed('app.doc', 'body')")
        fixes = "SELECT fix FROM doctor() WHERE status <> 'ok' AND check_name LIKE '%collection%'"
        for (fix,) in copy.execute(fixes).fetchall():
            copy.execute(fix)
        assert copy.execute(UNSETTLED).fetchall() == []
        # A query function in the schema of the user is his: a collection gets another name, or he drops it.
        copy.execute("CALL auto_embed('app.doc', 'body', collection => 'another')")
        copy.execute("INSERT INTO app.doc (id, body) VALUES (3, 'a third')")
        assert assert_exact(copy, "another")["rows"] == 3
        copy.execute("DROP FUNCTION app.parted_body_query(text)")
        copy.execute("CALL auto_embed('app.parted', 'body', collection => 'parted')")
        copy.execute("INSERT INTO app.part_eu VALUES ('eu', 3, 'into a leaf')")
        assert assert_exact(copy, "parted", ("region", "id"))["rows"] == 1


def test_unfinished_collection_is_restored_and_finished_without_repeating_work(
    db: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> None:
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'short text ' || g FROM generate_series(1, 8) AS g")
    db.execute("INSERT INTO doc VALUES (9, repeat('long ', 1000))")
    db.execute("SELECT configure('max_input_bytes', '1000')")
    with refused("54000"):
        db.execute("CALL auto_embed('doc', 'body', options => '{\"batch_size\": 2}')")
    row = collection_row(db)
    assert (row["state"], row["is_complete"], row["embedded"]) == ("filling", False, 8)
    with refused("55000"):
        found(db, "short")
    with restored_copy(db, connect, tmp_path, "custom") as copy:
        copy.execute("SELECT configure('max_input_bytes', '1048576')")
        copy.execute("INSERT INTO doc VALUES (10, 'written meanwhile')")
        with model_does(copy, 1, 1):
            copy.execute("CALL auto_embed('doc', 'body', options => '{\"batch_size\": 2}')")
        assert assert_exact(copy)["rows"] == 10


def test_collection_of_a_dropped_table_does_not_come_back_as_another(
    db: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> None:
    for name in ("gone", "doc"):
        db.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, body text)")
        db.execute(f"INSERT INTO {name} VALUES (1, 'a text')")
        db.execute(f"CALL auto_embed('{name}', 'body')")
    db.execute("DROP TABLE gone CASCADE")
    with restored_copy(db, connect, tmp_path, "plain") as copy:
        copy.execute("INSERT INTO doc VALUES (2, 'another')")
        assert assert_exact(copy)["rows"] == 2
        copy.execute("CALL maintain()")
        assert copy.execute("SELECT name FROM pgml_tune.collection").fetchall() == [("public.doc.body",)]


def test_extension_and_pgvector_in_schemas_that_nobody_searches(
    db: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> None:
    db.execute("DROP DATABASE IF EXISTS elsewhere")
    db.execute("CREATE DATABASE elsewhere TEMPLATE template0")
    elsewhere = connect(dbname="elsewhere")
    for statement in (
        'CREATE SCHEMA "V ec"',
        'CREATE SCHEMA "M l"',
        'CREATE EXTENSION vector SCHEMA "V ec"',
        "CREATE EXTENSION plpython3u",
        'CREATE EXTENSION pgml_tune SCHEMA "M l"',
        "SELECT \"M l\".register_model('minilm', 'minilm@v1', 'embedding', 'v1')",
        "CREATE TABLE doc (id integer PRIMARY KEY, body text)",
        "INSERT INTO doc VALUES (1, 'one'), (2, 'two')",
        "CALL \"M l\".auto_embed('doc', 'body', options => '{\"storage\": \"halfvec\", \"index\": \"hnsw\"}')",
    ):
        elsewhere.execute(statement)
    with restored_copy(elsewhere, connect, tmp_path, "plain") as copy:
        for session in (elsewhere, copy):
            session.execute("INSERT INTO doc VALUES (3, 'three')")
            session.execute("UPDATE doc SET id = id + 10, body = body || ' changed' WHERE id = 1")
            session.execute("DELETE FROM doc WHERE id = 2")
            distance = "embedding OPERATOR(\"V ec\".<=>) doc_body_query('three')"
            assert fetch_value(session, f"SELECT id FROM doc_body_embedding ORDER BY {distance} LIMIT 1") == 3
            for name in ("semantic_search", "hybrid_search"):
                search = f"SELECT key FROM \"M l\".{name}('public.doc.body', 'three')"
                assert fetch_value(session, search) == {"id": 3}
            session.execute('CALL "M l".maintain()')
            session.execute('SET search_path = public, "M l", "V ec"')
            assert_exact(session)
    elsewhere.close()
    db.execute("DROP DATABASE elsewhere WITH (FORCE)")
