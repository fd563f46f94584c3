"""Who may read what of a collection: rights of the source decide, also those that change later."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from collection_parts import parts
from conditions import fetch_value, refused
from conftest import Connect


@pytest.fixture
def vault(db: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A session of olga, who owns table vault.doc and its collection 'vault'."""
    db.execute("CREATE SCHEMA vault AUTHORIZATION olga")
    db.execute("GRANT USAGE ON SCHEMA vault TO PUBLIC")
    db.execute("SET ROLE olga")
    db.execute("CREATE TABLE vault.doc (id integer PRIMARY KEY, body text, tenant name, secret text)")
    db.execute(
        "INSERT INTO vault.doc SELECT g, 'text number ' || g, CASE g % 2 WHEN 0 THEN 'alice' ELSE 'bob' END, 'hidden'"
        " FROM generate_series(1, 10) AS g"
    )
    yield db
    db.execute("RESET ROLE")


def keys(session: psycopg.Connection[Any], query: str = "text number 3", filter_: str | None = None) -> list[int]:
    rows = session.execute("SELECT key FROM semantic_search('vault', %s, 100, %s)", (query, filter_)).fetchall()
    return sorted(row[0]["id"] for row in rows)


def collect(owner: psycopg.Connection[Any]) -> dict[str, str]:
    owner.execute("CALL auto_embed('vault.doc', 'body', collection => 'vault')")
    return parts(owner, "vault")


def secure(owner: psycopg.Connection[Any]) -> None:
    owner.execute("ALTER TABLE vault.doc ENABLE ROW LEVEL SECURITY")
    owner.execute("CREATE POLICY own_rows ON vault.doc USING (tenant = current_user)")


def test_writer_without_a_grant_of_ours_can_write_and_others_find_the_row(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    secure(vault)
    vault.execute("CREATE POLICY writers ON vault.doc FOR INSERT TO stranger WITH CHECK (true)")
    vault.execute("GRANT INSERT ON vault.doc TO stranger; GRANT SELECT ON vault.doc TO alice, bob")
    collect(vault)
    stranger = connect("stranger")
    stranger.execute("INSERT INTO vault.doc VALUES (100, 'a purple elephant', 'alice')")
    stranger.execute("INSERT INTO vault.doc VALUES (101, 'a purple hippopotamus', 'bob')")
    assert keys(connect("alice"), "a purple animal")[-1] == 100
    assert keys(connect("bob"), "a purple animal")[-1] == 101
    for sql in ("SELECT * FROM vault.doc", "SELECT key FROM semantic_search('vault', 'x')"):
        with refused("42501"):
            stranger.execute(sql)


def test_document_holds_only_columns_that_the_caller_may_read(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    vault.execute("GRANT SELECT (id, body) ON vault.doc TO alice")
    collect(vault)
    alice = connect("alice")
    documents = alice.execute("SELECT document FROM semantic_search('vault', 'text number 3', 3)").fetchall()
    assert [set(document) for (document,) in documents] == [{"id", "body"}] * 3
    documents = alice.execute("SELECT document FROM hybrid_search('vault', 'text number 3', 3)").fetchall()
    assert [set(document) for (document,) in documents] == [{"id", "body"}] * 3
    for filter_ in ('{"secret": "hidden"}', '{"secret": "other"}'):
        with refused("42501"):
            keys(alice, filter_=filter_)


@pytest.mark.parametrize("columns", ["id", "body", "id, tenant"])
def test_caller_who_may_not_read_key_and_text_gets_no_vector(
    vault: psycopg.Connection[Any], connect: Connect, columns: str
) -> None:
    vault.execute(f"GRANT SELECT ({columns}) ON vault.doc TO alice")
    side = collect(vault)["side"]
    alice = connect("alice")
    for sql in (
        f"SELECT count(*) FROM {side}",
        f"SELECT embedding FROM {side}",
        "SELECT * FROM semantic_search('vault', 'a')",
        "SELECT * FROM hybrid_search('vault', 'a')",
    ):
        with refused("42501"):
            alice.execute(sql)


def test_rights_given_and_taken_later_are_followed_by_maintenance(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    side = collect(vault)["side"]
    alice, count = connect("alice"), f"SELECT count(*) FROM {side}"
    for sql in (count, "SELECT key FROM semantic_search('vault', 'a')"):
        with refused("42501"):
            alice.execute(sql)
    vault.execute("GRANT SELECT ON vault.doc TO alice")
    vault.execute("CALL maintain()")
    assert fetch_value(alice, count) == len(keys(alice)) == 10
    secure(vault)
    assert len(keys(alice)) == 5
    vault.execute("CALL maintain()")
    assert fetch_value(alice, count) == len(keys(alice)) == 5
    vault.execute("REVOKE SELECT ON vault.doc FROM alice")
    with refused("42501"):
        keys(alice)
    vault.execute("CALL maintain()")
    with refused("42501"):
        alice.execute(count)


def test_policy_that_changes_guards_the_vectors_at_once(vault: psycopg.Connection[Any], connect: Connect) -> None:
    secure(vault)
    vault.execute("GRANT SELECT ON vault.doc TO alice")
    side = collect(vault)["side"]
    alice, count = connect("alice"), f"SELECT count(*) FROM {side}"
    for condition, expected in (("id = 1", 1), ("false", 0), ("id > 8", 2), ("tenant = current_user", 5)):
        vault.execute(f"ALTER POLICY own_rows ON vault.doc USING ({condition})")
        assert fetch_value(alice, count) == len(keys(alice)) == expected
    vault.execute("CREATE POLICY narrower ON vault.doc AS RESTRICTIVE USING (id < 5)")
    assert fetch_value(alice, count) == len(keys(alice)) == 2
    vault.execute("DROP POLICY own_rows ON vault.doc")
    assert fetch_value(alice, count) == len(keys(alice)) == 0


def test_row_security_of_a_partitioned_table_guards_its_vectors(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    vault.execute("DROP TABLE vault.doc")
    vault.execute(
        "CREATE TABLE vault.doc (id integer, tenant name, body text, PRIMARY KEY (id, tenant))"
        " PARTITION BY LIST (tenant)"
    )
    vault.execute("CREATE TABLE vault.doc_alice PARTITION OF vault.doc FOR VALUES IN ('alice')")
    vault.execute("CREATE TABLE vault.doc_bob PARTITION OF vault.doc FOR VALUES IN ('bob')")
    vault.execute("INSERT INTO vault.doc SELECT g, 'alice', 'text ' || g FROM generate_series(1, 3) AS g")
    vault.execute("INSERT INTO vault.doc SELECT g, 'bob', 'text ' || g FROM generate_series(1, 4) AS g")
    secure(vault)
    vault.execute("GRANT SELECT ON vault.doc TO alice, bob")
    side = collect(vault)["side"]
    for tenant, count in (("alice", 3), ("bob", 4)):
        session = connect(tenant)
        assert fetch_value(session, f"SELECT count(*) FROM {side}") == len(keys(session)) == count
        seen = session.execute("SELECT document ->> 'tenant' FROM hybrid_search('vault', 'text')").fetchall()
        assert seen == [(tenant,)] * count


def test_row_security_switched_off_again_is_followed_by_maintenance(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    secure(vault)
    vault.execute("GRANT SELECT ON vault.doc TO alice")
    side = collect(vault)["side"]
    alice = connect("alice")
    assert fetch_value(alice, f"SELECT count(*) FROM {side}") == len(keys(alice)) == 5
    vault.execute("ALTER TABLE vault.doc DISABLE ROW LEVEL SECURITY")
    vault.execute("CALL maintain()")
    assert fetch_value(alice, f"SELECT count(*) FROM {side}") == len(keys(alice)) == 10


def test_new_owner_gets_the_vectors_and_the_old_one_loses_them(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    side = collect(vault)["side"]
    vault.execute("RESET ROLE; GRANT CREATE ON SCHEMA vault TO adam; ALTER TABLE vault.doc OWNER TO adam")
    vault.execute("CALL maintain()")
    owners = fetch_value(
        vault,
        "SELECT array_agg(DISTINCT owner::regrole::text) FROM (SELECT relowner AS owner FROM pg_class"
        f" WHERE oid IN ('{side}'::regclass, 'vault.doc_body_embedding'::regclass)"
        " UNION ALL SELECT proowner FROM pg_proc"
        " WHERE pronamespace = 'pgml_tune'::regnamespace AND proname ~ '^_(keep|sync)_[0-9]') AS o",
    )
    assert owners == ["adam"]
    with refused("42501"):
        connect("olga").execute(f"SELECT * FROM {side}")
    adam = connect("adam")
    adam.execute("INSERT INTO vault.doc VALUES (50, 'a purple elephant')")
    assert 50 in keys(adam, "a purple elephant")


def test_default_privileges_of_the_owner_do_not_open_the_vectors(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    for kind in ("TABLES", "FUNCTIONS"):
        vault.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO PUBLIC")
    names = collect(vault)
    mallory, alice = connect("mallory"), connect("alice")
    for session in (mallory, alice):
        for part in ("side", "view"):
            with refused("42501"):
                session.execute(f"SELECT * FROM {names[part]}")
    open_ones = alice.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pgml_tune'::regnamespace"
        " AND p.proname ~ '^_(keep|sync)_[0-9]' AND has_function_privilege(p.oid, 'EXECUTE')"
    ).fetchall()
    assert open_ones == []


def test_forced_row_security_is_refused(vault: psycopg.Connection[Any]) -> None:
    secure(vault)
    vault.execute("ALTER TABLE vault.doc FORCE ROW LEVEL SECURITY")
    with refused("0A000"):
        collect(vault)
    assert vault.execute("SELECT * FROM pgml_tune.embedding_collections").fetchall() == []


FORGED = """
INSERT INTO pgml_tune.collection
    (name, source, source_column, model_version_id, index_method, storage, chunk_overlap, batch_size{column})
SELECT 'mine', '{source}', 'body', model_version_id, index_method, storage, chunk_overlap, batch_size{value}
FROM pgml_tune.collection
"""
FORGERIES = [
    "UPDATE pgml_tune.collection SET embeddings = 'victim.doc'::regclass",
    "UPDATE pgml_tune.collection SET is_ready = false",
    "DELETE FROM pgml_tune.collection WHERE name = 'victim'",
    "INSERT INTO pgml_tune.collection SELECT (jsonb_populate_record(c, jsonb_build_object('name', 'mine',"
    " 'source', 'vault.doc'::regclass, 'collection_id', 1000))).* FROM pgml_tune.collection AS c",
    FORGED.format(source="vault.doc", column=", embeddings", value=", 'victim.doc'"),
    FORGED.format(source="vault.doc", column=", view_name", value=", 'victim.doc'"),
    FORGED.format(source="vault.doc", column=", created_by", value=", 'postgres'"),
    FORGED.format(source="vault.doc", column=", is_ready", value=", true"),
    FORGED.format(source="victim.doc", column="", value=""),
    "INSERT INTO pgml_tune.tracked_column SELECT * FROM pgml_tune.tracked_column",
    "SELECT drop_auto_embed('victim')",
    "CALL auto_embed('victim.doc', 'body', collection => 'victim')",
    "CALL auto_embed('vault.doc', 'body', collection => 'victim')",
    "CALL embed_table('victim.doc', 'body', 'embedding')",
    "SELECT track_column('victim.doc', 'embedding', 'minilm')",
]


def test_operator_cannot_forge_or_drop_the_collection_of_another(
    vault: psycopg.Connection[Any], connect: Connect
) -> None:
    vault.execute("RESET ROLE; SELECT grant_operate('bob'); CREATE SCHEMA victim AUTHORIZATION bob; SET ROLE bob")
    vault.execute("CREATE TABLE victim.doc (id integer PRIMARY KEY, body text, embedding vector(384))")
    vault.execute("INSERT INTO victim.doc VALUES (1, 'mine alone')")
    vault.execute("CALL auto_embed('victim.doc', 'body', collection => 'victim')")
    vault.execute("RESET ROLE")
    state = (
        "SELECT array_agg(c::text) || (SELECT array_agg(d::text) FROM victim.doc AS d)"
        " || (SELECT array_agg(relname::text || relowner || relacl::text ORDER BY relname) FROM pg_class"
        " WHERE relname ~ '^(embedding|doc)') FROM pgml_tune.collection AS c"
    )
    before = fetch_value(vault, state)
    olga = connect("olga")
    for forgery in FORGERIES:
        with refused("42501", "42710", "23505", "428C9"):
            olga.execute(forgery)
    vault.execute("CALL maintain()")
    assert fetch_value(vault, state) == before
