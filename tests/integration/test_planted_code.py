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

# Every trap says who it runs as in the server's log, which no rollback undoes and no role can switch off.
SPRING = """
CREATE FUNCTION trap.spring(what text, value text DEFAULT '') RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001
    AS $$ BEGIN RAISE LOG 'trap % as %', what, current_user; RETURN true; END $$;
CREATE FUNCTION trap.fire() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring(TG_ARGV[0]); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
CREATE FUNCTION trap.lowered(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM trap.spring('expression'); RETURN lower($1); END $$;
CREATE FUNCTION trap.chosen() RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('default'); RETURN 'chosen'; END $$;
CREATE DOMAIN trap.label AS text CHECK (trap.spring('domain label', VALUE));
CREATE DOMAIN trap.number AS bigint CHECK (trap.spring('domain number', VALUE::text));
CREATE TYPE trap.mood AS ENUM ('good', 'bad');
CREATE TYPE trap.pair AS (a trap.label, b trap.mood);
CREATE FUNCTION trap.mood_json(trap.mood) RETURNS json LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast to json'); RETURN '1'; END $$;
CREATE CAST (trap.mood AS json) WITH FUNCTION trap.mood_json(trap.mood);
CREATE FUNCTION trap.mood_text(trap.mood) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast to text'); RETURN 'good'; END $$;
CREATE CAST (trap.mood AS text) WITH FUNCTION trap.mood_text(trap.mood) AS IMPLICIT;
CREATE FUNCTION trap.pair_json(trap.pair) RETURNS json LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast of a row to json'); RETURN '1'; END $$;
CREATE CAST (trap.pair AS json) WITH FUNCTION trap.pair_json(trap.pair);
CREATE FUNCTION trap.same(trap.mood, trap.mood) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('operator'); RETURN true; END $$;
CREATE OPERATOR trap.= (LEFTARG = trap.mood, RIGHTARG = trap.mood, FUNCTION = trap.same);
"""
TABLE = """
CREATE TABLE trap.{name} (
    id trap.number PRIMARY KEY, body text NOT NULL, mood trap.mood DEFAULT 'good', moods trap.mood[] DEFAULT '{{good}}',
    pair trap.pair DEFAULT ROW('a', 'bad'), label trap.label DEFAULT 'label', chosen text DEFAULT trap.chosen(),
    note text, lowered text GENERATED ALWAYS AS (trap.lowered(body)) STORED,
    CHECK (trap.spring('check of the source', body))
);
CREATE INDEX ON trap.{name} (trap.lowered(body)) WHERE trap.spring('index predicate', body);
CREATE TRIGGER evil_row BEFORE INSERT OR UPDATE OR DELETE ON trap.{name} FOR EACH ROW
    EXECUTE FUNCTION trap.fire('row trigger of the source');
CREATE TRIGGER evil_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON trap.{name}
    EXECUTE FUNCTION trap.fire('statement trigger of the source');
ALTER TABLE trap.{name} ENABLE ROW LEVEL SECURITY;
CREATE POLICY evil ON trap.{name} USING (trap.spring('policy of the source', body));
GRANT ALL ON trap.{name} TO olga, alice;
INSERT INTO trap.{name} (id, body, note) SELECT g, 'planted text ' || g, 'note ' || g FROM generate_series(1, 5) AS g;
"""
SIDE = """
CREATE TRIGGER evil_row BEFORE INSERT OR UPDATE OR DELETE ON @side FOR EACH ROW
    EXECUTE FUNCTION trap.fire('row trigger of the side table');
CREATE TRIGGER evil_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @side
    EXECUTE FUNCTION trap.fire('statement trigger of the side table');
ALTER TABLE @side ADD CHECK (trap.spring('check of the side table', key_1::text));
CREATE POLICY evil ON @side USING (trap.spring('policy of the side table', key_1::text));
ALTER TABLE @side ADD COLUMN extra text DEFAULT trap.chosen();
CREATE OR REPLACE FUNCTION @query(input text) RETURNS vector LANGUAGE plpgsql STABLE
    AS $$ BEGIN PERFORM trap.spring('query function'); RETURN NULL; END $$;
CREATE RULE evil AS ON UPDATE TO @view DO INSTEAD SELECT trap.spring('rule of the view');
"""
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


WRITES = [
    "INSERT INTO trap.{name} (id, body) VALUES (1, 'one'), (2, 'two'), (101, 'first') ON CONFLICT DO NOTHING",
    "UPDATE trap.{name} SET body = body || ' changed' WHERE id <= 3",
    "UPDATE trap.{name} SET note = 'another'",
    "UPDATE trap.{name} SET id = 500 WHERE id = 1",
    "DELETE FROM trap.{name} WHERE id = 2",
    "INSERT INTO trap.{name} (id, body) VALUES (4, 'conflict') ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    "TRUNCATE trap.{name}",
]


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


MAINTENANCE = [
    "CALL maintain()",
    "SELECT * FROM doctor()",
    "CALL auto_embed('trap.doc', 'body', collection => 'trap')",
    "CALL auto_embed('trap.doc', 'note', collection => 'second')",
    "CALL auto_embed('trap.twin', 'body', options => '{\"chunk_tokens\": 8, \"index\": \"hnsw\"}')",
    "BEGIN",
    "CALL auto_embed('trap.twin', 'note')",
    "COMMIT",
    "CALL embed_table('trap.doc', 'body', 'vector')",
    "SELECT drop_auto_embed('trap')",
    "DROP TABLE trap.doc CASCADE",
    "CALL maintain()",
]


@pytest.mark.usefixtures("trapped")
def test_superuser_maintains_a_collection_without_running_its_owners_code(
    db: psycopg.Connection[Any], watch: Watch
) -> None:
    # embed_table() is an UPDATE of the caller's own, and PostgreSQL decides what that runs.
    update = by_others(watch(partial(db.execute, "UPDATE trap.twin SET body = body || 'x'")))
    for statement in MAINTENANCE:
        allowed = set(update) if "embed_table" in statement else set()
        assert set(by_others(watch(partial(attempt, db, statement)))) <= allowed, statement


SEARCHES = [
    "SELECT * FROM semantic_search('trap', 'planted text')",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"mood": "good"}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"label": "label"}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"pair": {"a": "a", "b": "bad"}}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"moods": ["good"]}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"id": 3, "note": null}')""",
    "SELECT * FROM hybrid_search('trap', 'planted text')",
    """SELECT * FROM hybrid_search('trap', 'planted text', 5, '{"mood": "good", "lowered": "planted text 1"}')""",
    "SELECT * FROM pgml_tune.embedding_collections",
]


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
        # Row policies are not applied to superusers.
        assert bool(plain) == (reader == "alice")
        for path in ("public", "trap, public, pg_catalog"):
            session.execute(f"SET search_path = {path}")
            for search in SEARCHES:
                assert set(by_others(watch(partial(attempt, session, search)))) <= set(plain), (reader, search)


ACTS = [
    "SELECT * FROM semantic_search('{name}', 'planted text')",
    """SELECT * FROM semantic_search('{name}', 'planted text', 5, '{{"id": 3}}')""",
    """SELECT * FROM semantic_search('{name}', 'planted text', 5, '{{"body": "planted text 3"}}')""",
    "SELECT * FROM hybrid_search('{name}', 'planted text')",
    "SELECT * FROM pgml_tune.embedding_collections WHERE collection = '{name}'",
    "CALL auto_embed('{name}.doc', 'body', collection => '{name}')",
]
FAKE = """
CREATE TYPE trap.fake AS (v text);
CREATE FUNCTION trap.fake_{target}(trap.fake) RETURNS {target} LANGUAGE plpgsql STABLE
    AS $$ BEGIN PERFORM trap.spring('cast to {target}'); RETURN NULL; END $$;
CREATE CAST (trap.fake AS {target}) WITH FUNCTION trap.fake_{target}(trap.fake) AS IMPLICIT;
"""
SWAP = "ALTER TABLE @side DROP {column} CASCADE; ALTER TABLE @side ADD {column} trap.fake DEFAULT ROW('x')"
SHADOWS = """
CREATE FUNCTION trap.sha256(bytea) RETURNS bytea LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of sha256'); RETURN pg_catalog.sha256($1); END $$;
CREATE FUNCTION trap.convert_to(text, name) RETURNS bytea LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of convert_to'); RETURN pg_catalog.convert_to($1, $2); END $$;
CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of format'); RETURN pg_catalog.format($1, VARIADIC $2); END $$;
CREATE FUNCTION trap.array_agg_text(text) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow'); RETURN $1; END $$;
CREATE FUNCTION trap.bytes_equal(bytea, bytea) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of ='); RETURN false; END $$;
CREATE OPERATOR trap.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap.bytes_equal);
CREATE FUNCTION trap.bigint_equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of ='); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.bigint_equal);
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proowner = 'mallory'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s SECURITY INVOKER SET search_path = trap, public, pg_catalog', v_function);
    END LOOP;
END $$
"""
TAMPERINGS = {
    "embedding_of_another_type": FAKE.format(target="vector") + SWAP.format(column="embedding"),
    "hash_of_another_type": FAKE.format(target="bytea") + SWAP.format(column="text_sha256"),
    "lexemes_of_another_type": FAKE.format(target="tsvector") + SWAP.format(column="lexemes"),
    "side_key_of_another_type": FAKE.format(target="bigint") + SWAP.format(column="key_1"),
    "chunk_number_of_another_type": FAKE.format(target="integer") + SWAP.format(column="chunk_no"),
    "text_of_another_type": FAKE.format(target="text")
    + "DROP TRIGGER pgml_tune_@id_columns ON trap.doc;"
    " ALTER TABLE trap.doc DROP body CASCADE; ALTER TABLE trap.doc ADD body trap.fake DEFAULT ROW('x')",
    "key_of_another_type": FAKE.format(target="bigint")
    + "DROP TRIGGER pgml_tune_@id_columns ON trap.doc;"
    " ALTER TABLE trap.doc DROP id CASCADE; ALTER TABLE trap.doc ADD id trap.fake DEFAULT ROW('x')",
    "functions_as_their_caller": SHADOWS,
    "side_table_in_another_schema": "ALTER TABLE @side SET SCHEMA trap;"
    " CREATE INDEX ON trap.@name (trap.lowered(chunk_no::text)) WHERE trap.spring('index', key_1::text)",
    "side_table_gone": "DROP TABLE @side CASCADE",
    "view_of_the_same_name": "DROP VIEW @view; CREATE VIEW @view AS SELECT trap.spring('view'), trap.chosen() AS id",
    "view_in_place_of_the_side_table": "DROP TABLE @side CASCADE;"
    " CREATE VIEW trap.embedding AS SELECT trap.spring('view'), trap.chosen() AS key_1",
    "child_of_the_side_table": "CREATE TABLE trap.child () INHERITS (@side);"
    " ALTER TABLE trap.child ADD CHECK (trap.spring('check of a child', key_1::text))",
    "deferred_trigger": "CREATE CONSTRAINT TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON @side"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger')",
    "trigger_that_writes_where_another_is_deferred": """
        CREATE TABLE trap.other (x integer);
        CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON trap.other DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger of another table');
        CREATE FUNCTION trap.pass_on() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO trap.other VALUES (1); RETURN NULL; END $$;
        CREATE TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON @side EXECUTE FUNCTION trap.pass_on()
    """,
    "deferred_trigger_on_a_child": "CREATE TABLE trap.child () INHERITS (@side);"
    " INSERT INTO trap.child SELECT * FROM @side; UPDATE trap.child SET key_1 = key_1 + 1000;"
    " CREATE CONSTRAINT TRIGGER evil AFTER DELETE ON trap.child DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger of a child')",
    "trigger_on_the_source_replaced": "DROP TRIGGER pgml_tune_@id_insert ON trap.doc;"
    " CREATE TRIGGER pgml_tune_@id_insert AFTER INSERT ON trap.doc EXECUTE FUNCTION trap.fire('trigger of our name')",
}


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
        for act in ACTS:
            assert not by_others(watch(partial(attempt, db, act.format(name=name)))), (name, act)
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
