"""Code that the owner of a table planted on it never runs as a superuser, or as another role, because of us."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_parts import parts
from conditions import refused
from conftest import Connect
from traps import ACTS, MAINTENANCE, OBSTACLES, SEARCHES, SHADOWS, SIDE, SPRING, TABLE, TAMPERINGS, WRITES

Events = Counter[tuple[str, str]]
Watch = Callable[[Callable[[], object]], Events]


@pytest.fixture
def watch(server_home: Path, server_log: Callable[[int], str]) -> Watch:
    """Says which traps sprang, and as whom, while something ran."""

    def run(action: Callable[[], object]) -> Events:
        position = (server_home / "log" / "postgres.log").stat().st_size
        action()
        return Counter(re.findall(r"LOG:  trap (.+) as (\w+)", server_log(position)))

    return run


def by_others(events: Events) -> Events:
    """The traps that sprang as somebody else than the one who planted them."""
    return Counter({event: count for event, count in events.items() if event[1] != "mallory"})


@pytest.fixture
def mallory(db: psycopg.Connection[Any], connect: Connect) -> Iterator[psycopg.Connection[Any]]:
    """The owner of schema trap, who may embed his tables."""
    db.execute("SELECT grant_operate('mallory')")
    db.execute("CREATE SCHEMA trap AUTHORIZATION mallory")
    session = connect("mallory")
    session.execute("GRANT USAGE ON SCHEMA trap TO PUBLIC")
    session.execute(SPRING)
    yield session


@pytest.fixture
def trapped(mallory: psycopg.Connection[Any]) -> dict[str, str]:
    """Collection 'trap' over trap.doc, with traps on all that mallory owns; trap.twin has no collection."""
    for name in ("doc", "twin"):
        mallory.execute(TABLE.format(name=name))
    mallory.execute("CALL auto_embed('trap.doc', 'body', collection => 'trap')")
    names = parts(mallory, "trap")
    mallory.execute(re.sub(r"@(\w+)\b", lambda match: names[match[1]], SIDE))
    return names


def test_writer_runs_no_more_of_the_owners_code_than_without_us(
    trapped: dict[str, str], connect: Connect, watch: Watch
) -> None:
    assert connect("olga").execute(f"SELECT has_table_privilege('{trapped['side']}', 'INSERT')").fetchone() == (False,)
    for writer in ("olga", "postgres"):
        session = connect(writer)
        for write in WRITES:
            plain = by_others(watch(partial(session.execute, write.format(name="twin"))))
            kept = by_others(watch(partial(session.execute, write.format(name="doc"))))
            assert not kept - plain, write


@pytest.mark.usefixtures("trapped")
def test_superuser_maintains_a_collection_without_running_its_owners_code(
    db: psycopg.Connection[Any], watch: Watch
) -> None:
    # embed_table() is an UPDATE of the caller's own, and PostgreSQL decides what that runs.
    update = by_others(watch(partial(db.execute, "UPDATE trap.twin SET body = body || 'x'")))
    for statement in MAINTENANCE:
        allowed = set(update) if "embed_table" in statement else set()
        assert set(by_others(watch(partial(attempt, db, statement)))) <= allowed, statement


@pytest.mark.usefixtures("trapped")
def test_superuser_prepares_a_rollout_without_running_the_owners_code(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], watch: Watch
) -> None:
    db.execute("ALTER TABLE pgml_tune.model_version DISABLE TRIGGER USER")
    db.execute("UPDATE pgml_tune.model_version SET space_id = 'elsewhere' WHERE version = 'v1-int8-block'")
    mallory.execute("CALL embed_table('trap.doc', 'body', 'vector', 'minilm@v1')")
    # One collection as it was made, one that was tampered with.
    mallory.execute("CALL auto_embed('trap.twin', 'body', collection => 'twin')")
    for options in ("{}", '{"golden_query": "SELECT body, id FROM trap.twin LIMIT 5"}'):
        call = f"CALL prepare_rollout('minilm', 'v1-int8-block', '{options}')"
        assert not by_others(watch(partial(attempt, db, call))), options
    mallory.execute("SELECT drop_auto_embed('trap')")
    assert not by_others(watch(partial(db.execute, "CALL prepare_rollout('minilm', 'v1-int8-block')")))
    assert by_others(watch(partial(attempt, db, "SELECT rollout_model('minilm', 'v1-int8-block')"))) == Counter()


def attempt(session: psycopg.Connection[Any], statement: str) -> None:
    """Runs what may be refused, but by the book."""
    try:
        session.execute(statement)
    except psycopg.Error as error:
        assert error.sqlstate not in {"XX000", "38000"}, (statement, error)


def test_reader_runs_no_more_of_the_owners_code_than_by_a_plain_select(
    trapped: dict[str, str], connect: Connect, watch: Watch
) -> None:
    for reader in ("postgres", "alice"):
        session = connect(reader)
        plain = by_others(watch(partial(session.execute, f"TABLE trap.doc; TABLE {trapped['side']}")))
        # Row policies are not applied to superusers; the planner looks at every index.
        assert ("policy of the source", reader) in plain or reader == "postgres"
        assert ("index of nothing but a constant", reader) in plain
        for path in ("public", "trap, public, pg_catalog"):
            session.execute(f"SET search_path = {path}")
            for search in SEARCHES:
                assert set(by_others(watch(partial(attempt, session, search)))) <= set(plain), (reader, search)


def test_superuser_runs_no_code_of_an_owner_who_tampers_with_the_collection(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], watch: Watch
) -> None:
    for name, tampering in TAMPERINGS.items():
        # A schema for each, in the place of schema trap.
        db.execute(f"CREATE SCHEMA {name} AUTHORIZATION mallory")
        mallory.execute(SPRING.replace("trap.", f"{name}.").replace("'trap % as", f"'trap {name} % as"))
        mallory.execute(f"GRANT USAGE ON SCHEMA {name} TO PUBLIC")
        mallory.execute(f"CREATE TABLE {name}.doc (id bigint PRIMARY KEY, body text, note text)")
        mallory.execute(f"INSERT INTO {name}.doc SELECT g, 'planted text ' || g FROM generate_series(1, 5) AS g")
        mallory.execute(f"CALL auto_embed('{name}.doc', 'body', collection => '{name}')")
        names = parts(mallory, name)
        identity = re.search(r"(embedding_(\d+)_.*)", names["side"])
        assert identity
        names |= {"name": identity[1], "id": identity[2]}
        # Work for whoever maintains the collection: rows without vectors, and vectors without rows.
        mallory.execute(
            f"ALTER TABLE {name}.doc DISABLE TRIGGER USER; INSERT INTO {name}.doc VALUES (11, 'planted later');"
            f" UPDATE {name}.doc SET body = 'another' WHERE id = 1; DELETE FROM {name}.doc WHERE id = 2;"
            f" ALTER TABLE {name}.doc ENABLE TRIGGER USER"
        )
        in_place = re.sub(r"\btrap\b", name, tampering.replace("'trap", "'"))
        mallory.execute(re.sub(r"@(id|side|view|name)", lambda match, names=names: names[match[1]], in_place))
        # What a plain SELECT of his tables runs as its caller, a search may run as well.
        tables = f"SELECT * FROM {name}.doc AS d, {name}.{names['name']} AS e"
        plain = set(by_others(watch(partial(attempt, db, tables))))
        for act in ACTS:
            allowed = plain if act.startswith("SELECT") else set()
            assert set(by_others(watch(partial(attempt, db, act.format(name=name))))) <= allowed, (name, act)
    for act in ("SELECT * FROM pgml_tune.embedding_collections", "SELECT * FROM doctor()", "CALL maintain()"):
        assert not by_others(watch(partial(attempt, db, act))), act
    for name in TAMPERINGS:
        assert not by_others(watch(partial(attempt, db, f"SELECT drop_auto_embed('{name}')"))), name


def test_new_owner_runs_nothing_that_the_old_one_left(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], watch: Watch
) -> None:
    mallory.execute("CREATE TABLE trap.doc (id bigint PRIMARY KEY, body text)")
    mallory.execute("CALL auto_embed('trap.doc', 'body', collection => 'trap')")
    names = parts(mallory, "trap")
    mallory.execute(SHADOWS.replace("SECURITY INVOKER ", ""))
    mallory.execute(
        f"CREATE OR REPLACE FUNCTION {names['query']}(input text) RETURNS vector LANGUAGE plpgsql SECURITY DEFINER"
        " AS $$ BEGIN PERFORM trap.spring('query function'); RETURN NULL; END $$"
    )
    mallory.execute(f"ALTER VIEW {names['view']} SET (security_invoker = off)")
    db.execute("GRANT CREATE, USAGE ON SCHEMA trap TO adam; ALTER TABLE trap.doc OWNER TO adam")
    db.execute("GRANT SELECT, INSERT, DELETE ON trap.doc TO mallory")
    db.execute("CALL maintain()")
    for act in (
        "INSERT INTO trap.doc VALUES (1, 'one')",
        f"SELECT {names['query']}('a')",
        f"SELECT * FROM {names['view']}",
        "DELETE FROM trap.doc",
    ):
        assert "adam" not in {who for _, who in watch(partial(attempt, mallory, act))}, act
    assert db.execute("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", (names["view"],)).fetchone() == (
        ["security_invoker=true"],
    )


def test_owner_cannot_stop_the_maintenance_of_other_collections(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], connect: Connect
) -> None:
    db.execute("GRANT adam TO mallory")
    for name, obstacle in OBSTACLES.items():
        db.execute(f"CREATE SCHEMA {name} AUTHORIZATION mallory; GRANT CREATE, USAGE ON SCHEMA {name} TO adam")
        mallory.execute(f"CREATE TABLE {name}.doc (id bigint PRIMARY KEY, body text)")
        mallory.execute(f"INSERT INTO {name}.doc VALUES (1, 'a')")
        mallory.execute(f"CALL auto_embed('{name}.doc', 'body', collection => '{name}')")
        mallory.execute(obstacle.format(name=name, **parts(mallory, name)))
    db.execute("REVOKE adam FROM mallory")
    db.execute("CREATE SCHEMA own AUTHORIZATION olga; GRANT USAGE ON SCHEMA own TO alice")
    olga, alice = connect("olga"), connect("alice")
    olga.execute("CREATE TABLE own.doc (id bigint PRIMARY KEY, body text); INSERT INTO own.doc VALUES (1, 'a')")
    olga.execute("CALL auto_embed('own.doc', 'body', collection => 'own')")
    olga.execute("GRANT SELECT ON own.doc TO alice")
    for session in (db, olga):
        session.execute("CALL maintain()")
    assert len(alice.execute("SELECT * FROM semantic_search('own', 'a')").fetchall()) == 1
    db.execute("SELECT * FROM doctor()")
    db.execute("SELECT * FROM pgml_tune.embedding_collections")


@pytest.mark.parametrize("end", ["SELECT 1", "ALTER TABLE app.old OWNER TO adam", "DROP TABLE app.old CASCADE"])
def test_names_that_a_collection_had_and_another_has_now_are_left_alone(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], connect: Connect, end: str
) -> None:
    db.execute("CREATE SCHEMA app; GRANT CREATE, USAGE ON SCHEMA app TO mallory, olga, adam")
    for session in (mallory, connect("olga")):
        session.execute("CREATE TABLE app.doc (id bigint PRIMARY KEY, body text)")
        session.execute("CALL auto_embed('app.doc', 'body', collection => %s)", (session.info.user,))
        if session is mallory:
            session.execute("DROP FUNCTION app.doc_body_query(text); DROP VIEW app.doc_body_embedding")
            session.execute("ALTER TABLE app.doc RENAME TO old")
    db.execute(end)
    db.execute("CALL maintain()")
    db.execute("SELECT drop_auto_embed(name) FROM pgml_tune.collection WHERE name = 'mallory'")
    kept = db.execute(
        "SELECT proowner::regrole::text FROM pg_proc WHERE oid = 'app.doc_body_query(text)'::regprocedure UNION ALL"
        " SELECT relowner::regrole::text FROM pg_class WHERE oid = 'app.doc_body_embedding'::regclass"
    ).fetchall()
    assert kept == [("olga",), ("olga",)]


def test_owner_adds_nothing_to_our_schema(mallory: psycopg.Connection[Any]) -> None:
    mallory.execute("CREATE TABLE trap.doc (id bigint PRIMARY KEY, body text)")
    mallory.execute("CALL auto_embed('trap.doc', 'body', collection => 'trap')")
    side = parts(mallory, "trap")["side"]
    for sql in (
        "CREATE TABLE pgml_tune.mine ()",
        "CREATE FUNCTION pgml_tune.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        f"CREATE INDEX ON {side} (trap.lowered(chunk_no::text))",
        f"ALTER TABLE {side} RENAME TO collection_of_mine",
        "CREATE OR REPLACE FUNCTION pgml_tune._settings() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ):
        with refused("42501"):
            mallory.execute(sql)


def test_leaf_attached_later_is_embedded_as_its_owner(
    mallory: psycopg.Connection[Any], db: psycopg.Connection[Any], watch: Watch
) -> None:
    mallory.execute("CREATE TABLE trap.part (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    mallory.execute("CREATE TABLE trap.part_1 PARTITION OF trap.part FOR VALUES FROM (1) TO (100)")
    mallory.execute("INSERT INTO trap.part VALUES (1, 'one')")
    mallory.execute("CALL auto_embed('trap.part', 'body', collection => 'parts')")
    side = parts(mallory, "parts")["side"]
    mallory.execute(
        "CREATE TABLE trap.part_2 (id bigint NOT NULL, body text, CHECK (trap.spring('check of a leaf', body)));"
        " CREATE INDEX ON trap.part_2 (trap.lowered(body));"
        " INSERT INTO trap.part_2 VALUES (101, 'two'), (102, 'three');"
        " ALTER TABLE trap.part ATTACH PARTITION trap.part_2 FOR VALUES FROM (100) TO (200);"
        f" CREATE TRIGGER evil AFTER INSERT ON {side} EXECUTE FUNCTION trap.fire('trigger of the side table')"
    )
    assert not by_others(watch(partial(db.execute, "CALL maintain()")))
    # A side table with code of its owner is left alone until he takes it away.
    mallory.execute(f"DROP TRIGGER evil ON {side}")
    assert not by_others(watch(partial(db.execute, "CALL maintain()")))
    found = db.execute("SELECT key FROM semantic_search('parts', 'three', 3)").fetchall()
    assert sorted(key["id"] for (key,) in found) == [1, 101, 102]
