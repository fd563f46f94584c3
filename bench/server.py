"""The server under measurement: a database of its own with the extension, three versions of one model and a rival."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from report import Seconds

DATABASE = "pgml_tune_bench"
MODEL = "minilm"
FP32, INT8_DYNAMIC, INT8_BLOCK = "fp32", "int8_dynamic", "int8_block"
_NAMES = {FP32: "v1", INT8_DYNAMIC: "v1-int8", INT8_BLOCK: "v1-int8-block"}

# What others do: the training library inside the backend, one call per row.
_RIVAL = """
CREATE FUNCTION rival_embed(input text) RETURNS vector LANGUAGE plpython3u AS $python$
if "model" not in SD:
    import os
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer
    SD["model"] = SentenceTransformer({folder}, device="cpu")
return SD["model"].encode(input).tolist()
$python$;
CREATE FUNCTION empty_call(input text, model text) RETURNS vector LANGUAGE plpython3u AS $python$
return None
$python$;
CREATE TABLE sample (purpose text, round int, content text);
"""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of the model."""

    reference: str  # name@version
    digest: str
    storage: str


def connect(options: str = "") -> Connection:
    """A new connection to the database of the benchmark."""
    return psycopg.connect(dbname=DATABASE, autocommit=True, options=f"-c client_min_messages=warning {options}")


def create_database() -> None:
    """Create the database with the extension, in place of the one of an earlier run."""
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    with connect() as connection:
        connection.execute("CREATE EXTENSION pgml_tune CASCADE")


def add_contestants(source_folder: str) -> dict[str, Version]:
    """Add the rival, and the versions of the model, by how they store weights."""
    with connect() as connection:
        connection.execute(_RIVAL.replace("{folder}", repr(source_folder)))
        for version in _NAMES.values():
            connection.execute("SELECT register_model(%s, %s, 'embedding', %s)", (MODEL, f"{MODEL}@{version}", version))
        rows = connection.execute("SELECT version, artifact_sha256, storage FROM pgml_tune.model_versions")
        return {row[2]: Version(f"{MODEL}@{row[0]}", row[1], row[2]) for row in rows}


def add_samples(connection: Connection, purpose: str, round_number: int, texts: Sequence[str]) -> None:
    """Store texts, to be embedded by one statement."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO sample VALUES (%s, %s, %s)", [(purpose, round_number, text) for text in texts])


def seconds(connection: Connection, statement: str, *args: Any) -> float:
    """How long the client waits for a statement."""
    started = time.perf_counter()
    connection.execute(statement, args).fetchall()
    return time.perf_counter() - started


def timed(connection: Connection, statement: str, *args: Any) -> Seconds:
    """How long the client waits, and how long the backend's main thread is on a core."""
    before = _on_core(connection)
    wall = seconds(connection, statement, *args)
    return Seconds(wall, _on_core(connection) - before)


def _on_core(connection: Connection) -> float:
    return int(Path(f"/proc/{backend_pid(connection)}/schedstat").read_text().split()[0]) / 1e9


def set_cache(connection: Connection, value: str) -> None:
    """Choose on, session or off for this connection."""
    connection.execute(sql.SQL("SET pgml_tune.cache = {}").format(sql.Literal(value)))


@contextmanager
def configured(connection: Connection, name: str, value: str) -> Iterator[None]:
    """A setting of the database, taken back to its default afterwards."""
    connection.execute("SELECT configure(%s, %s)", (name, value))
    try:
        yield
    finally:
        connection.execute("SELECT configure(%s, NULL)", (name,))


def backend_pid(connection: Connection) -> int:
    """The process that serves a connection."""
    return connection.info.backend_pid
