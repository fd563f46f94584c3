"""Databases in other encodings than UTF-8, and bytes that are no text."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact
from conditions import fetch_value, refused
from conftest import Connect
from job_workers import Installation, workers_of
from queue_parts import wait_until_fed

TEXTS = ["plain", "äöü ß é", "¡España!", "\x01\x7f", "'; --"]
OF_ENCODING = {"22021", "22P05"}


@pytest.fixture
def database_in(connect: Connect, db: psycopg.Connection[Any]) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Opens a session in a new database of an encoding, with the extension and model minilm."""
    opened: list[tuple[str, psycopg.Connection[Any]]] = []

    def open_database(encoding: str) -> psycopg.Connection[Any]:
        name = f"encoded_{encoding.lower()}"
        db.execute(f"DROP DATABASE IF EXISTS {name}")
        db.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        session = connect(dbname=name, client_encoding="UTF8")
        session.execute("SET client_min_messages = warning")
        session.execute("CREATE EXTENSION pgml_tune CASCADE")
        session.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
        opened.append((name, session))
        return session

    yield open_database
    for name, session in opened:
        session.close()
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP"])
def test_vectors_do_not_depend_on_the_encoding_of_the_database(
    database_in: Callable[[str], psycopg.Connection[Any]], db: psycopg.Connection[Any], encoding: str
) -> None:
    encoded = database_in(encoding)
    for text in [*TEXTS, "漢字 かな"]:
        vector = fetch_value(db, "SELECT embed(%s)", (text,))
        try:
            assert fetch_value(encoded, "SELECT embed(%s::text)", (text,)) == vector
            assert fetch_value(encoded, "SELECT (embed(ARRAY[%s::text]))[1]", (text,)) == vector
            assert fetch_value(encoded, "SELECT embed_pinned(%s::text, 'minilm', 'v1')", (text,)) == vector
        except psycopg.Error as error:
            assert error.sqlstate in OF_ENCODING, error
    encoded.execute("SELECT set_config('pgml_tune.cache', '¡no!', false)")
    with refused("22023"):
        encoded.execute("SELECT embed('plain')")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_table_is_kept_embedded_in_a_database_of_another_encoding(
    database_in: Callable[[str], psycopg.Connection[Any]], encoding: str
) -> None:
    encoded = database_in(encoding)
    encoded.execute("CREATE TABLE doc (id text PRIMARY KEY, body text)")
    encoded.execute("INSERT INTO doc VALUES ('é', 'äöü ß'), ('a', 'plain')")
    encoded.execute("CALL auto_embed('doc', 'body')")
    encoded.execute("INSERT INTO doc VALUES ('ß', '¡España!')")
    encoded.execute("UPDATE doc SET id = id || 'ñ', body = body || ' é' WHERE id <> 'a'")
    assert assert_exact(encoded)["rows"] == 3
    with refused("22021", "22P05"):  # bytes that are no UTF-8; a character that LATIN1 does not have
        encoded.execute(
            "INSERT INTO doc VALUES ('x', convert_from('\\xff', 'SQL_ASCII'))"
            if encoding == "SQL_ASCII"
            else "INSERT INTO doc VALUES ('x', '漢字')"
        )
    assert assert_exact(encoded)["rows"] == 3


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_worker_embeds_rows_of_a_database_of_another_encoding(
    database_in: Callable[[str], psycopg.Connection[Any]], server_home: Path, encoding: str
) -> None:
    encoded = database_in(encoding)
    encoded.execute("CREATE TABLE doc (id text PRIMARY KEY, body text)")
    encoded.execute("CALL auto_embed('doc', 'body', mode => 'queue')")
    encoded.execute("INSERT INTO doc VALUES ('é', 'äöü ß'), ('a', 'plain')")
    with workers_of(Installation(server_home), encoded) as workers:
        workers.serve()
        wait_until_fed(encoded)
        assert assert_exact(encoded)["rows"] == 2


def test_bytes_that_are_no_text_are_refused(database_in: Callable[[str], psycopg.Connection[Any]]) -> None:
    raw = database_in("SQL_ASCII")
    assert fetch_value(raw, "SELECT vector_dims(embed('plain'))") == 384
    calls = [
        "embed({text})",
        "embed(ARRAY['a', {text}])",
        "embed_pinned({text}, 'minilm', 'v1')",
        "semantic_similarity('a', {text})",
        "token_count({text})",
        "embed('a', {text})",
        "embed('a', NULL, {text})",
        "configure({text}, '1')",
        "configure('threads', {text})",
        "register_model({text}, 'minilm@v1', 'embedding')",
        "drop_model_version({text}, 'v1')",
        "cache_purge({text})",
    ]
    for hexadecimal in ("ff", "c080", "e4b8", "eda080", "f888808080", "616263ff646566"):
        text = f"convert_from('\\x{hexadecimal}', 'SQL_ASCII')"
        for call in calls:
            with refused("22021", "22023", "42704"):
                raw.execute("SELECT " + call.format(text=text))
    raw.execute("DO $$ BEGIN PERFORM set_config('pgml_tune.cache', convert_from('\\xff', 'SQL_ASCII'), false); END $$")
    with refused("22021", "22023"):
        raw.execute("SELECT embed('plain')")
    raw.execute("RESET pgml_tune.cache")
    assert fetch_value(raw, "SELECT vector_dims(embed('plain'))") == 384
