"""Statements on jobs, as their callers make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Session
from pgml_tune.engine.orphans import Users

_ADD = "SELECT a.job_id, a.is_new FROM pgml_tune._add_job($1::text, $2::jsonb, $3::text) AS a"
# This one and _STATUS run under the search path of the caller.
_TAKE = """
SELECT pgml_tune._take_rows(
    $1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.text[], $5::pg_catalog.int8,
    $6::pg_catalog.int8
) AS outcome
"""
# A query of the caller is SQL, not a value. It is one statement, or it could not be opened as a cursor.
_NO_ROWS = "SELECT q.* FROM (\n{}\n) AS q LIMIT 0"
_FOREIGN = "SELECT f.place, f.type_name FROM pgml_tune._foreign_types($1::oid[]) AS f"
_CHUNK = """
SELECT r.lines FROM pgml_tune._own_rows AS r
WHERE r.job_id OPERATOR(pg_catalog.=) $1::bigint AND r.part OPERATOR(pg_catalog.=) $2::text
  AND r.chunk_no OPERATOR(pg_catalog.=) $3::integer
"""
_DESCRIBE = """
INSERT INTO pgml_tune.job_part (job_id, part, query, row_count, rows_sha256, column_names, shape)
VALUES ($1::bigint, $2::text, $3::text, $4::bigint, $5::text, $6::text[], $7::text)
"""
_STATUS = "SELECT s.* FROM pgml_tune._job_status($1::pg_catalog.int8) AS s"
_ALIVE = "SELECT pgml_tune._worker_is_alive() AS is_alive"
_ADDRESS = "SELECT a.host, a.port, a.database, a.role FROM pgml_tune._server_address() AS a"
_TRANSACTION = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text AS xid"
_VERSION = """
SELECT m.name, v.version, v.artifact_sha256 AS digest, v.storage, m.task, v.dimensions, v.max_tokens
FROM pgml_tune.model_version AS v
JOIN pgml_tune.model AS m ON m.model_id OPERATOR(pg_catalog.=) v.model_id
WHERE v.model_version_id OPERATOR(pg_catalog.=) $1::bigint
"""
_FACTS = """
SELECT pgml_tune._worker_is_alive() AS has_worker,
       pg_catalog.count(*) FILTER (WHERE j.state::pg_catalog.text OPERATOR(pg_catalog.=) 'queued') AS queued,
       pg_catalog.count(*) FILTER (WHERE j.state::pg_catalog.text OPERATOR(pg_catalog.=) 'running') AS running
FROM pgml_tune.jobs AS j
"""
_USERS = """
SELECT u.installation_id::pg_catalog.int8 AS installation_id, u.digests, u.labels FROM pgml_tune._file_users() AS u
"""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands, as whoever waits for it is told."""

    kind: str
    state: str  # queued | running | succeeded | failed | cancelled
    phase: str | None
    step: int | None
    steps: int | None
    loss: float | None
    metric: str | None
    metric_value: float | None
    seconds_left: float | None
    result: str | None
    sqlstate: str | None
    message: str | None
    detail: str | None
    hint: str | None

    @property
    def has_ended(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker on this machine reaches the database."""

    host: str
    port: str
    database: str
    role: str


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Whether jobs are served, and how many there are."""

    has_worker: bool
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What a job must know of a version that it begins with."""

    name: str
    version: str
    digest: str
    storage: str
    task: str
    dimensions: int
    max_tokens: int

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


def add_job(db: Database, kind: str, parameters: dict[str, Any], request: str) -> tuple[int, bool]:
    """Add a job, or find the one that was added for the same request and has not ended; says whether it is new."""
    row = db.fetch(_ADD, kind, json.dumps(parameters), request)[0]
    return int(row["job_id"]), bool(row["is_new"])


def query_columns(db: Session, query: str) -> list[tuple[str, int]]:
    """The names and types of the columns that a query of the caller returns; it is not run."""
    return db.describe(_NO_ROWS.format(query))


def foreign_types(db: Database, type_ids: list[int]) -> list[tuple[int, str]]:
    """Those types, with their places from 1 on, that somebody else than PostgreSQL has made."""
    return [(row["place"], row["type_name"]) for row in db.fetch(_FOREIGN, type_ids)]


def take_rows(
    db: Database, job_id: int, part: str, query: str, columns: list[str], max_rows: int, max_bytes: int
) -> str:
    """Keep the rows of a query, run as the caller; says taken, rows or bytes."""
    return str(db.fetch(_TAKE, job_id, part, query, columns, max_rows, max_bytes)[0]["outcome"])


def kept_chunks(db: Database, job_id: int, part: str) -> Iterator[str]:
    """The rows that were kept, in chunks of one JSON object per line."""
    chunk_no = 1
    while rows := db.fetch(_CHUNK, job_id, part, chunk_no):
        yield rows[0]["lines"]
        chunk_no += 1


def describe_part(
    db: Database, job_id: int, part: str, query: str, count: int, sha256: str, columns: list[str], shape: str
) -> None:
    """Record what the rows of a query are."""
    db.fetch(_DESCRIBE, job_id, part, query, count, sha256, columns, shape)


def job_status(db: Database, job_id: int) -> JobStatus | None:
    """Where a job of the caller stands; None if there is none of that number."""
    rows = db.fetch(_STATUS, job_id)
    return JobStatus(**rows[0]) if rows else None


def is_worker_alive(db: Database) -> bool:
    """Whether a worker serves this database; one does not go before a transaction that has added a job has ended."""
    return bool(db.fetch(_ALIVE)[0]["is_alive"])


def job_facts(db: Database) -> JobFacts:
    """Whether jobs are served, and how many of those that the caller may see wait or run."""
    return JobFacts(**db.fetch(_FACTS)[0])


def server_address(db: Database) -> Address:
    """Where a worker on this machine reaches the database."""
    return Address(**db.fetch(_ADDRESS)[0])


def transaction_id(db: Database) -> str:
    """The number of the current transaction."""
    return str(db.fetch(_TRANSACTION)[0]["xid"])


def file_users(db: Database) -> Users:
    """The artifacts that this database needs, and the jobs of it that run."""
    row = db.fetch(_USERS)[0]
    return Users(int(row["installation_id"]), frozenset(row["digests"]), frozenset(row["labels"]))


def version_facts(db: Database, model_version_id: int) -> VersionFacts | None:
    """The facts of a registered version."""
    rows = db.fetch(_VERSION, model_version_id)
    return VersionFacts(**rows[0]) if rows else None
