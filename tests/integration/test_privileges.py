"""Who may do what: the rights of five roles against a checked-in matrix, and what the levels refuse in practice."""

from pathlib import Path
from typing import Any

import psycopg
from conditions import fetch_value, refused
from conftest import Connect

MATRIX = Path(__file__).with_name("privileges.txt")
LEVELS = {"none": "stranger", "usage": "alice", "operate": "olga", "admin": "adam", "superuser": "postgres"}
RIGHTS = {  # by kind of object: the function that tells, and what it is asked for
    "function": ("has_function_privilege", ["EXECUTE"]),
    "procedure": ("has_function_privilege", ["EXECUTE"]),
    "schema": ("has_schema_privilege", ["USAGE", "CREATE"]),
    "sequence": ("has_sequence_privilege", ["USAGE", "SELECT", "UPDATE"]),
    "table": ("has_table_privilege", "SELECT INSERT UPDATE DELETE TRUNCATE REFERENCES TRIGGER".split()),
    "view": ("has_table_privilege", "SELECT INSERT UPDATE DELETE TRUNCATE REFERENCES TRIGGER".split()),
}
MEMBERS = """
SELECT d.objid AS oid, i.identity, i.type
FROM pg_depend AS d
CROSS JOIN pg_identify_object(d.classid, d.objid, 0) AS i
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgml_tune')
  AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass)
  AND i.type <> 'index'
ORDER BY i.type, i.identity
"""
EMBEDDING = [
    "SELECT embed('a')",
    "SELECT embed(ARRAY['a', 'b'])",
    "SELECT embed_pinned('a', 'minilm', 'v1')",
    "SELECT semantic_similarity('a', 'b')",
    "SELECT token_count('a')",
    "SELECT last_call_id()",
]
READING = [
    "SELECT count(*) FROM pgml_tune.models",
    "SELECT count(*) FROM pgml_tune.model_versions",
    "SELECT count(*) FROM pgml_tune.rollout_history",
    "SELECT count(*) FROM pgml_tune.embedding_collections",
    "SELECT count(*) FROM pgml_tune.tracked_columns",
]
SEARCHING = ["SELECT * FROM semantic_search('note', 'a')", "SELECT * FROM hybrid_search('note', 'a')"]
EMBEDDING_TABLES = [
    "CALL auto_embed('own.note', 'body', collection => 'note')",
    "CALL embed_table('own.note', 'body', 'vector')",
    "SELECT track_column('own.note', 'vector', 'minilm')",
    "SELECT drop_auto_embed('note')",
]
OPERATING = [
    "CALL maintain()",
    "SELECT requeue_failed()",
    "SELECT count(*) FROM pgml_tune.queue_failures",
    "SELECT count(*) FROM pgml_tune.stat_cache",
    "SELECT count(*) FROM pgml_tune.stat_inference",
    "SELECT count(*) FROM pgml_tune.settings",
]
ADMINISTERING = [
    "SELECT register_model('mine', 'minilm@v1', 'embedding', 'v1')",
    "SELECT drop_model_version('mine', 'v1')",
    "SELECT configure('threads', '1')",
    "SELECT cache_purge()",
    "SELECT count(*) FROM doctor()",
]
FORBIDDEN_TO_ALL = [
    "SELECT count(*) FROM pgml_tune.cache_entry_0",
    "SELECT count(*) FROM pgml_tune.call_count",
    "SELECT count(*) FROM pgml_tune.cache_ring",
    "INSERT INTO pgml_tune.setting VALUES ('threads', '9')",
    "UPDATE pgml_tune.serving SET model = 'x'",
    "UPDATE pgml_tune.collection SET is_ready = true",
    "TRUNCATE pgml_tune.collection",
    "TRUNCATE pgml_tune.tracked_column",
    "DELETE FROM pgml_tune.model_version",
    "TRUNCATE pgml_tune.serving_history",
    "INSERT INTO pgml_tune.cache_entry_0 VALUES ('', 1, 1, '')",
    "SELECT pgml_tune._move_serving(1, 1, '')",
    "SELECT pgml_tune._grant('stranger', 'admin')",
    "SELECT grant_usage('stranger')",
    "SELECT grant_operate('stranger')",
    "SELECT grant_admin('stranger')",
    "ALTER TABLE pgml_tune.model ADD COLUMN x integer",
    "CREATE TABLE pgml_tune.squat (x integer)",
    "ALTER FUNCTION embed(text, text, text) IMMUTABLE",
    "DROP EXTENSION pgml_tune",
]


def rights(db: psycopg.Connection[Any], role: str, oid: int, kind: str) -> str:
    """The rights of a role on an object in short."""
    function, asked = RIGHTS[kind]
    held = [right for right in asked if fetch_value(db, f"SELECT {function}(%s, %s::oid, %s)", (role, oid, right))]
    return "all" if len(held) == len(asked) > 1 else "+".join(held).lower()


def matrix(db: psycopg.Connection[Any]) -> list[str]:
    """One line per object of the extension with the rights of each level."""
    lines = []
    for oid, identity, kind in db.execute(MEMBERS).fetchall():
        held = {level: rights(db, role, oid, kind) for level, role in LEVELS.items()}
        cells = [f"{level}={right}" for level, right in held.items() if right]
        lines.append(f"{kind} {identity}: {' '.join(cells)}")
    return lines


def allowed(session: psycopg.Connection[Any], statements: list[str]) -> None:
    for sql in statements:
        session.execute(sql)


def denied(session: psycopg.Connection[Any], statements: list[str]) -> None:
    for sql in statements:
        with refused("42501"):
            session.execute(sql)


def test_rights_of_five_roles_are_those_of_the_matrix(db: psycopg.Connection[Any]) -> None:
    assert matrix(db) == MATRIX.read_text().splitlines()


def test_usage_allows_to_embed_and_read_the_registry_and_nothing_else(connect: Connect) -> None:
    alice = connect("alice")
    allowed(alice, [*EMBEDDING, *READING])
    denied(alice, [*OPERATING, *ADMINISTERING, *FORBIDDEN_TO_ALL])
    assert fetch_value(alice, "SELECT vector_dims(embed('still works'))") == 384


def test_role_without_a_grant_can_do_nothing(connect: Connect) -> None:
    stranger = connect("stranger")
    denied(stranger, [*EMBEDDING, *READING, *OPERATING, *ADMINISTERING, *FORBIDDEN_TO_ALL])
    assert fetch_value(stranger, "SELECT 1") == 1


def test_operate_adds_statistics_and_maintenance(connect: Connect) -> None:
    olga = connect("olga")
    allowed(olga, [*EMBEDDING, *READING, *OPERATING])
    denied(olga, [*ADMINISTERING, *FORBIDDEN_TO_ALL])
    assert fetch_value(olga, "SELECT texts > 0 FROM pgml_tune.stat_cache")


def test_admin_adds_registry_and_settings_but_no_grants_and_no_tables(connect: Connect) -> None:
    adam = connect("adam")
    allowed(adam, [*EMBEDDING, *READING, *OPERATING, *ADMINISTERING])
    denied(adam, FORBIDDEN_TO_ALL)
    assert fetch_value(adam, "SELECT status FROM doctor() WHERE check_name = 'extension'") == "ok"


def test_grant_to_unknown_null_or_dangling_role_is_refused(db: psycopg.Connection[Any]) -> None:
    for level in ("usage", "operate", "admin"):
        for role in ("nobody_here", None, "0", "4294967294"):
            with refused("42704"):
                db.execute(f"SELECT grant_{level}(%s::text::regrole)", (role,))


def test_granted_role_can_embed_at_once(connect: Connect, db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT grant_usage('stranger')")
    assert fetch_value(connect("stranger"), "SELECT vector_dims(embed('a'))") == 384


def test_tables_are_embedded_by_operators_who_own_them_and_searched_by_users_who_may_read_them(
    connect: Connect, db: psycopg.Connection[Any]
) -> None:
    db.execute("CREATE SCHEMA own AUTHORIZATION olga; GRANT USAGE ON SCHEMA own TO PUBLIC")
    stranger, alice, olga, adam = (connect(role) for role in ("stranger", "alice", "olga", "adam"))
    olga.execute("CREATE TABLE own.note (id integer PRIMARY KEY, body text, vector vector(384))")
    allowed(olga, EMBEDDING_TABLES[:3])
    for session in (stranger, alice, adam):
        denied(session, [*EMBEDDING_TABLES, *SEARCHING])
    olga.execute("GRANT SELECT ON own.note TO stranger, alice")
    olga.execute("CALL maintain()")
    denied(stranger, SEARCHING)
    allowed(alice, SEARCHING)
    denied(alice, EMBEDDING_TABLES)
    allowed(olga, EMBEDDING_TABLES[3:])
