"""Names are names: whatever an identifier, a name or an option looks like, none of it is run."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from psycopg.sql import SQL, Identifier, Literal

# Wherever one of these is pasted into SQL, it either breaks the statement or springs the trap.
HOSTILE = [
    "'", "''", '"', '""', "\\", "\\'", "';", '";', "$$", "$1", "%", "%s", "%I %L", "%%", "{0}", "{x}", ":x", "--", "/*",
    "a b", "A", "sELECT", "all", "né", "中文", "😀", "a.b", "x" * 63, "é" * 31, "\u202e", "\t", "\n", "' OR true --",
    "'); SELECT public.trip(); --",
    '"; SELECT public.trip(); --',
    "' || public.trip() || '",
    '" || public.trip() || "',
    "x) FROM (SELECT public.trip()) AS t --",
    "$$; SELECT public.trip(); $$",
    "body, public.trip() AS y",
    "x; CALL public.trip(); --",
    "%1$s', public.trip(), '",
    "\\'; SELECT public.trip(); --",
]  # fmt: skip
STATES = set("22023 42703 42704 42710 42P01 42809 55000 0A000 22P02 42804 42501".split())
CATALOGS = """
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
    SELECT format('relation %s %s %s %s %s', relnamespace::regnamespace, relname, relkind, relowner, relacl) AS line
    FROM pg_class WHERE relnamespace::regnamespace::text NOT IN ('pg_toast')
    UNION ALL
    SELECT format('column %s %s %s', attrelid::regclass, attname, atttypid::regtype) FROM pg_attribute
    WHERE attnum > 0 AND attrelid >= 16384 AND NOT attisdropped AND attrelid::regclass::text NOT LIKE 'pg_toast%%'
    UNION ALL
    SELECT format('function %s %s %s %s', oid::regprocedure, proowner, proacl, md5(prosrc)) FROM pg_proc
    UNION ALL
    SELECT format('trigger %s %s', tgrelid::regclass, tgname) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT format('policy %s %s', polrelid::regclass, polname) FROM pg_policy
    UNION ALL
    SELECT format('schema %s %s', nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL
    SELECT format('role %s', r::text) FROM pg_roles AS r
    UNION ALL
    SELECT format('member %s', m::text) FROM pg_auth_members AS m
    UNION ALL
    SELECT format('setting %s', s::text) FROM pgml_tune.setting AS s
    UNION ALL
    SELECT format('collection %s', c.name) FROM pgml_tune.collection AS c
    UNION ALL
    SELECT format('canary %s', c::text) FROM public.canary AS c
) AS lines
"""


@pytest.fixture
def db_with_canary(db: psycopg.Connection[Any], server_log: Callable[[int], str]) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's session where trip() shows in the log that it ran, even if that is rolled back."""
    db.execute(
        "CREATE FUNCTION public.trip() RETURNS text LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE LOG 'the canary is dead'; RETURN ''; END $$"
    )
    db.execute("CREATE TABLE public.canary AS SELECT g FROM generate_series(1, 3) AS g")
    position = len(server_log(0).encode())
    yield db
    assert "LOG:  the canary is dead" not in server_log(position)


def calls(name: str) -> list[tuple[str, tuple[object, ...]]]:
    """A name as each argument of each function that takes tables or collections."""
    auto_embed = "CALL auto_embed(%s::text::regclass, %s, %s, %s, %s, %s)"
    embed_table = "CALL embed_table(%s::text::regclass, %s, %s, %s)"
    table = "public.plain"
    options = [{"text_search": name}, {"index": name}, {"storage": name}, {name: 1}, {"chunk_tokens": name}]
    searches = [
        ("SELECT * FROM semantic_search(%s, %s, 3, %s)", (collection, query, json.dumps(filter_)))
        for collection, query, filter_ in (
            (name, "a", {}), ("plain", name, {}), ("plain", "a", {name: 1}), ("plain", "a", {name: None}),
            ("plain", "a", {"note": name}), ("plain", "a", {"id": name}), ("plain", "a", {"facts": {name: name}}),
        )
    ]  # fmt: skip
    return [
        (auto_embed, (name, "body", None, "new", "trigger", "{}")),
        (auto_embed, (table, name, None, "new", "trigger", "{}")),
        (auto_embed, (table, "note", name, "new", "trigger", "{}")),
        (auto_embed, (table, "note", None, "new", name, "{}")),
        *((auto_embed, (table, "note", None, "new", "trigger", json.dumps(option))) for option in options),
        ("SELECT drop_auto_embed(%s)", (name,)),
        (embed_table, (name, "body", "vector", None)),
        (embed_table, (table, name, "vector", None)),
        (embed_table, (table, "body", "vector", name)),
        ("SELECT track_column(%s::text::regclass, 'vector', 'minilm')", (name,)),
        ("SELECT track_column('public.plain', %s, 'minilm')", (name,)),
        ("SELECT track_column('public.plain', 'vector', %s)", (name,)),
        *searches,
        *((sql.replace("semantic", "hybrid"), values) for sql, values in searches),
    ]


def test_hostile_name_in_any_argument_runs_nothing(db_with_canary: psycopg.Connection[Any]) -> None:
    db = db_with_canary
    db.execute(
        "CREATE TABLE public.plain (id integer PRIMARY KEY, body text, note text, facts jsonb, vector vector(384))"
    )
    db.execute("INSERT INTO public.plain VALUES (1, 'one', 'n', '{}'), (2, 'two', NULL, NULL)")
    db.execute("CALL auto_embed('public.plain', 'body', collection => 'plain')")
    before = fetch_value(db, CATALOGS)
    for name in HOSTILE:
        for sql, values in calls(name):
            try:
                db.execute(sql, values)
            except psycopg.Error as error:
                # What PostgreSQL itself says of a name that is no regclass, or of a query it cannot convert.
                assert error.sqlstate in STATES | {"42602", "3F000"}, (sql, values, error)
        assert fetch_value(db, CATALOGS) == before, name


def test_table_whose_names_are_all_hostile_is_embedded_and_searched(db_with_canary: psycopg.Connection[Any]) -> None:
    db = db_with_canary
    db.execute("CALL maintain()")  # makes the partitions of the log
    before = fetch_value(db, CATALOGS)
    for name in HOSTILE:
        begin(Names(db, name))
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT count(*) FROM doctor() WHERE check_name ~ '^collection' AND status <> 'ok'") == 0
    for name in HOSTILE:
        end(Names(db, name))
    db.execute("CALL maintain()")
    assert fetch_value(db, CATALOGS) == before


class Names:
    """A schema, a table, its columns and its collection that all bear one name, and statements with them."""

    def __init__(self, db: psycopg.Connection[Any], name: str) -> None:
        self.db = db
        self.column = name
        self.key = f"{name[:20]}k"
        self.collection = name.replace(".", "")
        table = SQL(".").join([Identifier(name)] * 2)
        self._places = {
            "schema": Identifier(name), "table": table, "key": Identifier(self.key), "column": Identifier(name),
            "regclass": Literal(table.as_string(db)), "name": Literal(name), "collection": Literal(self.collection),
        }  # fmt: skip

    def run(self, statement: str, **values: str) -> psycopg.Cursor[Any]:
        literals = {value: Literal(content) for value, content in values.items()}
        return self.db.execute(SQL(statement).format(**(self._places | literals)))

    def counts(self) -> Any:
        counts = "SELECT rows, embedded, stale FROM pgml_tune.embedding_collections WHERE collection = {collection}"
        return self.run(counts).fetchone()


def begin(names: Names) -> None:
    """A collection that is filled, written to and searched."""
    run, name = names.run, names.column
    run("CREATE SCHEMA {schema}")
    run("CREATE TABLE {table} ({key} text PRIMARY KEY, {column} text)")
    run("INSERT INTO {table} VALUES ({name}, {name}), ('other', 'a cat sleeps')")
    run("CALL auto_embed({regclass}, {name}, collection => {collection}, options => {options})",
        options='{"chunk_tokens": 16}')  # fmt: skip
    run("INSERT INTO {table} VALUES ('third', {name}); UPDATE {table} SET {column} = {column} || {name}")
    run("DELETE FROM {table} WHERE {key} = 'third'")
    for filter_ in ({name: f"{name}{name}"}, {names.key: name}):
        search = "SELECT key, document FROM semantic_search({collection}, {name}, 5, {filter})"
        found = run(search, filter=json.dumps(filter_)).fetchall()
        assert found == [({names.key: name}, {names.key: name, name: f"{name}{name}"})]
    assert run("SELECT * FROM hybrid_search({collection}, {name}, 5)").fetchall()
    assert names.counts() == (2, 2, 0)


def end(names: Names) -> None:
    """The collection goes on after a rename, and ends without a trace."""
    names.run("CALL embed_table({regclass}, {name}, {target})", target=f"{names.column[:20]}v")
    names.run("ALTER TABLE {table} RENAME {column} TO plain; INSERT INTO {table} VALUES ('fourth', 'renamed')")
    assert names.counts() == (3, 3, 0)
    names.run("TRUNCATE {table}")
    names.run("SELECT drop_auto_embed({collection})")
    names.run("DROP SCHEMA {schema} CASCADE")
