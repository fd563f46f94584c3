"""Nobody learns another role's texts: not by a cache hit, not from tables, logs or files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

CANARY = "kanarienvogel8888"
Counts = Callable[..., dict[str, int]]


def embed_as(session: psycopg.Connection[Any], role: str, text: str, counts: Counts) -> dict[str, int]:
    """How the counters moved when a role embedded a text."""
    before = counts(session)
    session.execute(f"SET ROLE {role}")
    session.execute("SELECT embed(%s)", (text,))
    session.execute("RESET ROLE")
    return {name: value - before[name] for name, value in counts(session).items() if value != before[name]}


HIT_IN_SESSION = {"texts": 1, "session_hits": 1}
HIT_IN_TABLE = {"texts": 1, "table_hits": 1}
MISS = {"texts": 1, "misses": 1}


def test_text_of_one_role_is_no_hit_for_another_in_one_session(db: psycopg.Connection[Any], counts: Counts) -> None:
    assert embed_as(db, "alice", "a private text", counts) == MISS
    assert embed_as(db, "alice", "a private text", counts) == HIT_IN_SESSION
    assert embed_as(db, "bob", "a private text", counts) == MISS
    assert embed_as(db, "alice", "a private text", counts) == HIT_IN_SESSION


def test_text_of_one_role_is_no_hit_for_another_in_another_session(connect: Connect, counts: Counts) -> None:
    assert embed_as(connect(), "alice", "a private text", counts) == MISS
    assert embed_as(connect(), "bob", "a private text", counts) == MISS
    assert embed_as(connect(), "alice", "a private text", counts) == HIT_IN_TABLE


def test_shared_scope_lets_roles_hit_each_others_texts(
    connect: Connect, db: psycopg.Connection[Any], counts: Counts
) -> None:
    db.execute("SELECT configure('cache_scope', 'shared')")
    assert embed_as(connect(), "alice", "a public text", counts) == MISS
    assert embed_as(connect(), "bob", "a public text", counts) == HIT_IN_TABLE
    db.execute("SELECT configure('cache_scope', NULL)")
    assert embed_as(connect(), "bob", "a public text", counts) == MISS


def test_purge_of_one_role_keeps_the_others(connect: Connect, db: psycopg.Connection[Any], counts: Counts) -> None:
    for role in ("alice", "bob"):
        embed_as(connect(), role, "to be purged", counts)
    assert fetch_value(db, "SELECT cache_purge(role => 'alice')") == 1
    assert embed_as(connect(), "alice", "to be purged", counts) == MISS
    assert embed_as(connect(), "bob", "to be purged", counts) == HIT_IN_TABLE


def test_preference_off_leaves_no_trace_in_the_cache(db: psycopg.Connection[Any]) -> None:
    db.execute("SET pgml_tune.cache = 'off'")
    db.execute("SELECT embed('uncached')")
    db.execute("SET pgml_tune.cache = 'session'")
    db.execute("SELECT embed('only in this session')")
    rows = " UNION ALL ".join(f"SELECT count(*) AS n FROM pgml_tune.cache_entry_{number}" for number in range(8))
    assert fetch_value(db, f"SELECT sum(n) FROM ({rows}) AS r") == 0


@pytest.fixture
def used(connect: Connect) -> psycopg.Connection[Any]:
    """A session that gave the canary to every function, as bind parameters, with success and with failure."""
    session = connect()
    calls = [
        ("SELECT embed(%s)", 1),
        ("SELECT embed(ARRAY[%s, 'b', %s])", 2),
        ("SELECT embed_pinned(%s, 'minilm', 'v1')", 1),
        ("SELECT semantic_similarity(%s, %s)", 2),
        ("SELECT token_count(%s)", 1),
        ("SELECT embed(%s, 'nothere')", 1),
        ("SELECT embed(%s, NULL, 'neither')", 1),
        ("SELECT embed(%s || repeat('x', 1048577))", 1),
        ("SELECT embed(ARRAY[[%s]])", 1),
        ("SELECT embed_pinned(%s, 'minilm', 'v9')", 1),
        ("SELECT token_count(%s, 'nothere')", 1),
    ]
    for sql, count in calls:
        try:
            session.execute(sql.replace("%s", "%s::text"), (CANARY,) * count)
        except psycopg.Error as error:
            assert CANARY not in str(error)
    return session


def test_texts_are_in_no_table_log_file_or_global_dictionary(
    used: psycopg.Connection[Any], server_home: Path, server_log: Callable[[int], str]
) -> None:
    tables = used.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'pgml_tune'::regnamespace AND relkind = 'r'"
    ).fetchall()
    assert len(tables) > 10
    for (table,) in tables:
        found = f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE %s OR t::text LIKE %s"
        assert fetch_value(used, found, (f"%{CANARY}%", f"%{CANARY.encode().hex()}%")) == 0, table
    assert CANARY not in server_log(0)
    small = [path for folder in ("spool", "models") for path in (server_home / folder).rglob("*") if path.is_file()]
    assert not [path for path in small if path.stat().st_size < 1 << 20 and CANARY.encode() in path.read_bytes()]
    used.execute("CREATE FUNCTION shown() RETURNS text LANGUAGE plpython3u AS $$ return repr(GD) + repr(SD) $$")
    assert fetch_value(used, "SELECT shown()") == "{}{}"


def test_failed_write_to_an_embedded_table_shows_no_text(
    db: psycopg.Connection[Any], connect: Connect, server_log: Callable[[int], str]
) -> None:
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    db.execute("GRANT INSERT, SELECT, UPDATE ON note TO stranger")
    db.execute("INSERT INTO note SELECT g, 'note ' || g FROM generate_series(1, 3) AS g")
    db.execute("CALL auto_embed('note', 'body', collection => 'note')")
    db.execute("SELECT configure('long_input', 'error')")
    stranger, canary = connect("stranger"), "kanarienvogel7777"
    position = len(server_log(0).encode())
    for text in (f"{canary} {'x' * 1_100_000}", f"{canary} {'word ' * 1000}"):
        for write in ("INSERT INTO note VALUES (9, %s)", "UPDATE note SET body = body || %s"):
            with refused("54000") as failure:
                stranger.execute(write, (text,))
            report = failure.value.diag
            assert canary not in f"{failure.value} {report.context} {report.internal_query}"
    with pytest.raises(psycopg.Error), stranger.cursor().copy("COPY note FROM STDIN") as copy:
        copy.write_row((10, f"{canary} {'word ' * 1000}"))
    assert canary not in server_log(position)
    assert fetch_value(db, "SELECT count(*) FROM note WHERE body LIKE '%kanarienvogel%'") == 0


@pytest.fixture
def readable_secret(db: psycopg.Connection[Any], server_home: Path) -> Iterator[None]:
    """The secret of the cache, readable by all for a while."""
    db.execute("SELECT embed('make the secret')")
    secret = server_home / "spool" / "cache_secret"
    secret.chmod(0o644)
    yield
    secret.chmod(0o600)


def test_secret_is_only_the_servers(db: psycopg.Connection[Any], server_home: Path) -> None:
    db.execute("SELECT embed('make the secret')")
    status = os.stat(server_home / "spool" / "cache_secret")
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == os.stat(server_home / "data").st_uid
    assert status.st_size == 32


@pytest.mark.usefixtures("readable_secret")
def test_secret_that_others_can_read_is_refused(connect: Connect) -> None:
    with refused("55000"):
        connect().execute("SELECT embed('a')")
    assert fetch_value(connect(), "SELECT status FROM doctor() WHERE check_name = 'spool'") == "fail"


def test_forged_or_damaged_row_of_the_cache_is_a_miss(db: psycopg.Connection[Any], connect: Connect) -> None:
    expected = fetch_value(db, "SELECT embed('forged')::text")
    key = fetch_value(db, "SELECT entry_key FROM pgml_tune.cache_entry_0")
    for forged in (b"\0" * 1536, b"abc", b"\xff" * 1552):
        db.execute("UPDATE pgml_tune.cache_entry_0 SET sealed = %s WHERE entry_key = %s", (forged, key))
        assert fetch_value(connect(), "SELECT embed('forged')::text") == expected


def test_vectors_in_the_cache_cannot_be_read_without_the_secret(db: psycopg.Connection[Any]) -> None:
    vector = fetch_value(db, "SELECT embed('sealed')::text")
    sealed = bytes(fetch_value(db, "SELECT sealed FROM pgml_tune.cache_entry_0"))
    plain = np.array(orjson.loads(vector), np.float32).tobytes()
    assert len(sealed) == len(plain) + 16
    assert plain[:64] not in sealed
