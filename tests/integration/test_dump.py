"""What pg_dump takes along, and what it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import program, run
from conditions import fetch_value
from conftest import Connect
from dumping import restored_copy

CANARY = "kanarienvogel4711"
KEPT = ("model", "model_version", "serving", "serving_history", "setting", "engine_choice")
SEQUENCES = {
    "model": "model_id",
    "model_version": "model_version_id",
    "serving_history": "serving_history_id",
}


@pytest.fixture
def source(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database with settings, a second model, cached texts and tables of a user."""
    db.execute("SELECT configure('max_batch_texts', '123')")
    db.execute("SELECT register_model('dumped', 'minilm@v1', 'embedding', 'v1', '{\"description\": \"d\"}')")
    db.execute(
        "INSERT INTO pgml_tune.engine_choice SELECT model_version_id, 'a machine', 'openvino', 'cpu', 'fp32', 1, 2, 8,"
        " 500, 25, 2, 1, 1, 'postgres' FROM pgml_tune.model_version WHERE version = 'v1' LIMIT 1"
    )
    db.execute(f"SELECT embed('{CANARY}'), embed(ARRAY['{CANARY} 2', '{CANARY} 3'])")
    db.execute(
        "CREATE TABLE note (note_id integer PRIMARY KEY, content text NOT NULL,"
        " embedding vector(384) GENERATED ALWAYS AS (embed_pinned(content, 'minilm', 'v1')) STORED)"
    )
    db.execute("INSERT INTO note SELECT g, 'note number ' || g FROM generate_series(1, 20) AS g")
    db.execute("CREATE INDEX note_hnsw ON note USING hnsw (embedding vector_cosine_ops)")
    return db


@pytest.fixture(params=["plain", "custom", "directory"])
def restored(
    request: pytest.FixtureRequest, source: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> Iterator[psycopg.Connection[Any]]:
    """The same database, dumped in each format and restored."""
    with restored_copy(source, connect, tmp_path, request.param) as copy:
        yield copy


def contents(session: psycopg.Connection[Any], table: str) -> list[Any]:
    return session.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1").fetchall()


def test_restore_keeps_the_registry_its_sequences_and_generated_vectors(
    source: psycopg.Connection[Any], restored: psycopg.Connection[Any]
) -> None:
    for table in KEPT:
        assert contents(restored, f"pgml_tune.{table}") == contents(source, f"pgml_tune.{table}"), table
    assert contents(restored, "pgml_tune.models") == contents(source, "pgml_tune.models")
    for table, column in SEQUENCES.items():
        newest = fetch_value(restored, f"SELECT max({column}) FROM pgml_tune.{table}")
        sequence = f"SELECT nextval(pg_get_serial_sequence('pgml_tune.{table}', '{column}'))"
        assert fetch_value(restored, sequence) > newest, table
    assert len(contents(restored, "note")) == 20
    assert contents(restored, "note") == contents(source, "note")


def test_restored_database_embeds_and_registers(
    source: psycopg.Connection[Any], restored: psycopg.Connection[Any]
) -> None:
    text = "SELECT embed('a restored text')::text"
    assert fetch_value(restored, text) == fetch_value(source, text)
    assert fetch_value(restored, "SELECT register_model('after', 'minilm@v1', 'embedding')") == "v1"
    assert fetch_value(restored, "SELECT value FROM pgml_tune.settings WHERE name = 'max_batch_texts'") == "123"


def test_dump_holds_no_cached_vector_text_or_secret(
    source: psycopg.Connection[Any], server_home: Path, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.sql"
    run(program("pg_dump"), "--host", source.info.host, "--username", "postgres", "--file", str(dump),
        source.info.dbname)  # fmt: skip
    content = dump.read_bytes()
    assert fetch_value(source, "SELECT count(*) FROM pgml_tune.cache_entry_0") > 0
    secret = (server_home / "spool" / "cache_secret").read_bytes()
    keys = [row[0] for row in source.execute("SELECT encode(entry_key, 'hex') FROM pgml_tune.cache_entry_0")]
    for hidden in (CANARY, secret.hex(), *keys):
        assert hidden.encode() not in content
    assert secret not in content
    assert b"cache_entry" not in content
    assert b"call_count" not in content
