"""Every kind of key, every kind of name, and every option of storage."""

from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, collection_row, found, model_does
from conditions import fetch_value
from conftest import Connect
from psycopg.sql import SQL, Identifier

# A type, and four of its values; the last is where a row moves to.
KEY_TYPES = {
    "smallint": ("smallint", "-32768", "0", "7", "32767"),
    "integer": ("integer", "-1", "0", "1", "2147483647"),
    "bigint": ("bigint", "-9223372036854775808", "0", "5", "9223372036854775807"),
    "uuid": ("uuid", *(f"'00000000-0000-4000-8000-00000000000{digit}'" for digit in range(4))),
    "text": ("text", "''", r"""E'a"b''c\\d,{e}\n'""", "'  Ünïcödé 中文 😀'", "repeat('x', 2000)"),
    "bounded text": ("varchar(20)", "'a'", "'A'", "' a'", "'é'"),
    "padded text": ("char(4)", "'a'", "'b'", "'ab'", "'abcd'"),
    "numeric": ("numeric", "0.1", "-1e30", "1.50", "123456789012345678901234567890.5"),
    "date": ("date", "'-infinity'", "'0044-03-15 BC'", "'2026-11-22'", "'infinity'"),
    "timestamptz": ("timestamptz", "'1999-12-31 23:59:59.999999+14'", "'epoch'", "'2026-03-29 02:30Z'", "'infinity'"),
    "bytea": ("bytea", r"'\x'", r"'\x00'", r"'\x5c78'", r"'\xff00'"),
    "boolean and integer": ("boolean", "true", "false", None, None),
    "enum": ("mood", "'sad'", "'it''s \"ok\"'", "'happy'", "'none'"),
    "domain": ("short_code", "'a'", "'b,c'", "'\"'", "'z'"),
    "domain over a domain": ("shorter_code", "'a'", "'b,c'", "'\"'", "'z'"),
    "citext": ("citext", "'Aa'", "'b'", "'É'", "'zz'"),
    "inet": ("inet", "'10.0.0.1'", "'10.0.0.0/8'", "'::1'", "'fe80::1/64'"),
}


@pytest.fixture
def typed(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session with types of a user, and of an extension."""
    db.execute("CREATE EXTENSION citext")
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"', 'happy', 'none')")
    db.execute("CREATE DOMAIN short_code AS text CHECK (length(value) BETWEEN 1 AND 9)")
    db.execute("CREATE DOMAIN shorter_code AS short_code CHECK (length(value) < 5)")
    return db


def test_every_type_of_key(typed: psycopg.Connection[Any]) -> None:
    for number, (name, (key_type, first, second, third, spare)) in enumerate(KEY_TYPES.items()):
        table = f"keyed_{number}"
        typed.execute(f"CREATE TABLE {table} (id {key_type} PRIMARY KEY, body text)")
        typed.execute(f"INSERT INTO {table} VALUES ({first}, 'a first text')")
        typed.execute(f"CALL auto_embed('{table}', 'body', options => '{{\"index\": \"none\"}}')")
        typed.execute(f"INSERT INTO {table} VALUES ({second}, 'a second text')")
        if third is not None:
            typed.execute(f"INSERT INTO {table} VALUES ({third}, NULL)")
            typed.execute(f"UPDATE {table} SET body = 'a third text' WHERE id = {third}")
            with model_does(typed, 0):
                typed.execute(f"UPDATE {table} SET id = {spare} WHERE id = {first}")
        typed.execute(f"UPDATE {table} SET body = body || ' ' || id::text")
        typed.execute(f"DELETE FROM {table} WHERE id = {second}")
        row = assert_exact(typed, f"public.{table}.body")
        assert row["rows"] == (1 if third is None else 2), name
        # The key that a search gives is the key of the row.
        keys = fetch_value(typed, f"SELECT jsonb_agg(jsonb_build_object('id', id) ORDER BY id) FROM {table}")
        assert sorted(map(str, found(typed, "text", f"public.{table}.body"))) == sorted(map(str, keys)), name


def test_composite_key_in_an_order_of_its_own(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE doc (n integer, body text, code text, day date, PRIMARY KEY (code, day, n))")
    db.execute(
        "INSERT INTO doc SELECT g, 'text ' || g, 'c' || g % 2, '2026-01-01'::date + g % 3"
        " FROM generate_series(1, 12) AS g"
    )
    db.execute("CALL auto_embed('doc', 'body')")
    keys = ("code", "day", "n")
    with model_does(db, 0):
        db.execute("UPDATE doc SET day = day + 1, code = code || n")
    assert_exact(db, keys=keys)
    db.execute("UPDATE doc SET body = 'changed', n = -n WHERE n <= 3")
    db.execute("DELETE FROM doc WHERE n > 9")
    assert assert_exact(db, keys=keys)["rows"] == 9
    assert all(set(key) == set(keys) for key in found(db, "text"))


def test_key_columns_named_like_columns_of_ours(db: psycopg.Connection[Any]) -> None:
    keys = ("embedding", "chunk_no", "text_sha256", "lexemes", "key_1", "key_2", "source", "old", "new", "s", "e", "k")
    columns = ", ".join(f"{key} integer" for key in keys)
    db.execute(f"CREATE TABLE doc ({columns}, chunk text, PRIMARY KEY ({', '.join(reversed(keys))}))")
    values = ", ".join(f"{number} * g" for number in range(1, len(keys) + 1))
    db.execute(f"INSERT INTO doc SELECT {values}, 'text ' || g FROM generate_series(1, 5) AS g")
    db.execute("CALL auto_embed('doc', 'chunk')")
    with model_does(db, 0):
        db.execute("UPDATE doc SET embedding = embedding + 1, key_2 = key_1, key_1 = key_2 WHERE old % 2 = 0")
    db.execute("UPDATE doc SET chunk = 'changed' WHERE chunk_no = 4")
    assert assert_exact(db, "public.doc.chunk", tuple(reversed(keys)))["rows"] == 5
    assert len(found(db, "text", "public.doc.chunk")) == 5


def test_unique_index_over_not_null_columns_serves_as_key(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE doc (a integer, b text NOT NULL, c integer NOT NULL, body text, UNIQUE (a))")
    db.execute("CREATE UNIQUE INDEX ON doc (b) WHERE c > 0")
    db.execute("CREATE UNIQUE INDEX ON doc (lower(b))")
    db.execute("CREATE UNIQUE INDEX doc_usable ON doc (c, b) INCLUDE (a)")
    db.execute("INSERT INTO doc SELECT NULL, 'b' || g, -g, 'text ' || g FROM generate_series(1, 5) AS g")
    db.execute("CALL auto_embed('doc', 'body')")
    with model_does(db, 0):
        db.execute("UPDATE doc SET c = c * 2")
    db.execute("UPDATE doc SET body = 'changed' WHERE c = -2")
    assert assert_exact(db, keys=("c", "b"))["rows"] == 5


@pytest.mark.parametrize(
    ("schema", "table", "column", "key"),
    [
        ('Odd "Schema"; --', "ta\"b'le $x$ %s {0}", 'Te xt"\'\\', 'Schlüssel "1"'),
        ("select", "Table", "from", "ORDER"),
        ("$$", "%I", "$1", ":key"),
        ("中文", "😀", "\t\n", " "),
        ("s" * 63, "t" * 63, "c" * 63, "k" * 63),
        ("é" * 31, "é" * 31, "é" * 31, "ß" * 31),
    ],
)
def test_hostile_names(db: psycopg.Connection[Any], schema: str, table: str, column: str, key: str) -> None:
    place, names = Identifier(schema, table), {"column": Identifier(column), "key": Identifier(key)}
    db.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    create = "CREATE TABLE {place} ({key} integer PRIMARY KEY, {column} text, {other} text)"
    db.execute(SQL(create).format(place=place, other=Identifier(column[:-1] + "2"), **names))
    db.execute(SQL("INSERT INTO {} VALUES (1, 'text 1', 'a'), (2, 'text 2', 'b'), (3, 'text 3', 'c')").format(place))
    source = place.as_string(db)
    db.execute("CALL auto_embed(%s, %s)", (source, column))
    db.execute("CALL auto_embed(%s, %s)", (source, column[:-1] + "2"))
    for name in (column, column[:-1] + "2"):
        collection = f"{schema}.{table}.{name}"
        change = SQL("UPDATE {place} SET {key} = {key} + 10, {column} = {column} || ' changed' WHERE {key} % 2 = 1")
        db.execute(change.format(place=place, key=names["key"], column=Identifier(name)))
        db.execute(SQL("DELETE FROM {} WHERE {} = 2").format(place, names["key"]))
        assert_exact(db, collection, (key,))
        hits = found(db, "text 1", collection)
        assert [set(hit) for hit in hits] == [{key}] * 2
    for name in (column, column[:-1] + "2"):
        db.execute("SELECT drop_auto_embed(%s)", (f"{schema}.{table}.{name}",))
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.embedding_collections") == 0


def test_chunks_grow_and_shrink_with_the_text(db: psycopg.Connection[Any]) -> None:
    sentence = "The quick brown fox number {} jumps over the lazy dog beside the river. "
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    for number, length in enumerate((0, 1, 5, 20)):
        text = "".join(sentence.format(f"{number} {part}") for part in range(length))
        db.execute("INSERT INTO doc VALUES (%s, %s)", (number, text))
    db.execute("CALL auto_embed('doc', 'body', options => '{\"chunk_tokens\": 32, \"chunk_overlap\": 8}')")
    chunks = f"SELECT id, count(*) FROM {collection_row(db)['view_name']} GROUP BY id ORDER BY id"
    assert_exact(db)
    before = dict(db.execute(chunks).fetchall())
    assert before[0] == before[1] == 1 < before[2] < before[3]
    with model_does(db, 1):
        db.execute("UPDATE doc SET body = body || body || ' and so on' WHERE id = 2")
    assert_exact(db)
    with model_does(db, 1):
        db.execute("UPDATE doc SET body = left(body, 200) WHERE id = 3")
    assert_exact(db)
    after = dict(db.execute(chunks).fetchall())
    assert after[2] > before[2]
    assert after[3] < before[3]
    with model_does(db, 0):
        db.execute("UPDATE doc SET id = id + 100")
    assert_exact(db)
    with model_does(db, 1):
        db.execute("INSERT INTO doc SELECT id + 200, body || ' once more' FROM doc")
    db.execute("UPDATE doc SET body = NULL WHERE id = 103")
    db.execute("DELETE FROM doc WHERE id = 102")
    assert_exact(db)
    # The best chunk stands for its row.
    assert len(found(db, "a fox jumps", k=20)) == 6


@pytest.mark.parametrize(
    "options",
    [
        '{"storage": "halfvec", "index": "hnsw"}',
        '{"storage": "halfvec", "chunk_tokens": 32, "index": "none"}',
        '{"text_search": "none", "index": "hnsw"}',
        '{"text_search": "german", "index": "none"}',
        '{"batch_size": 1}',
        '{"batch_size": 7, "text_search": "pg_catalog.simple", "index": "hnsw"}',
    ],
)
def test_options_of_storage(db: psycopg.Connection[Any], options: str) -> None:
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'Häuser und Katzen, number ' || g FROM generate_series(1, 20) AS g")
    db.execute("CALL auto_embed('doc', 'body', options => %s)", (options,))
    row = assert_exact(db)
    assert row["storage"] == ("halfvec" if "halfvec" in options else "vector")
    assert row["index_state"] == ("hnsw" if '"index": "hnsw"' in options else "none")
    assert (row["text_search"] is None) == ('"text_search": "none"' in options)
    db.execute("UPDATE doc SET body = 'Mäuse ' || body WHERE id % 3 = 0")
    db.execute("DELETE FROM doc WHERE id = 3")
    db.execute("INSERT INTO doc VALUES (40, 'zuletzt')")
    assert assert_exact(db)["rows"] == 20
    assert len(found(db, "Mäuse")) == 10


def test_two_columns_of_a_table_are_two_collections(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CREATE DOMAIN words AS varchar(200)")
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, title varchar(50), body words)")
    db.execute("INSERT INTO doc SELECT g, 'title ' || g, 'body ' || g FROM generate_series(1, 4) AS g")
    db.execute("CALL auto_embed('doc', 'title')")
    db.execute("CALL auto_embed('doc', 'body')")
    with model_does(db, 1, 4):
        db.execute("UPDATE doc SET title = title || ' changed'")
    with model_does(db, 2, 8):
        db.execute("UPDATE doc SET id = id + 10, title = title || '!', body = body || '!'")
    for collection in ("public.doc.title", "public.doc.body"):
        assert assert_exact(db, collection)["rows"] == 4
    connect().execute("SELECT drop_auto_embed('public.doc.title')")
    db.execute("UPDATE doc SET title = 'no longer embedded', body = body || '?'")
    assert assert_exact(db)["rows"] == 4
