"""Statements of the worker: claiming jobs, telling how they go, ending them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Row
from pgml_tune.errors import TuneError

# The version of the SQL objects, NULL where the extension is not installed.
_EXTENSION = """
SELECT (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pgml_tune') AS version
"""
_DATABASES = """
SELECT d.datname FROM pg_catalog.pg_database AS d
WHERE d.datallowconn AND NOT d.datistemplate ORDER BY d.oid
"""
_XACT_STATUS = "SELECT pg_catalog.pg_xact_status($1::text::pg_catalog.xid8) AS status"
_SEE_WORKER = """
INSERT INTO pgml_tune.worker AS w (name, backend_pid, is_one_shot)
VALUES ($1::text, pg_catalog.pg_backend_pid(), $2::bool)
ON CONFLICT (name) DO UPDATE SET backend_pid = excluded.backend_pid, seen_at = pg_catalog.clock_timestamp()
"""
_FORGET_WORKERS = """
DELETE FROM pgml_tune.worker AS w
WHERE w.name = $1::text OR w.seen_at < pg_catalog.clock_timestamp() - interval '1 hour'
"""
_CLAIM = """
SELECT c.job_id, c.fencing_token, c.kind, c.parameters::text AS parameters, c.created_by,
       c.artifacts::text AS artifacts, c.evaluations::text AS evaluations, c.result::text AS result, c.lost_count,
       c.installation_id::int8 AS installation_id
FROM pgml_tune._claim_job($1::text, pg_catalog.make_interval(secs => $2::float8), $3::int4) AS c
"""
_TAKE_POST = "SELECT pgml_tune._take_post() AS outcome"
_MAY_LEAVE = "SELECT pgml_tune._may_leave() AS may_leave"
_PARTS = """
SELECT p.part, p.query, p.row_count, p.rows_sha256, p.column_names, p.shape
FROM pgml_tune.job_part AS p WHERE p.job_id = $1::int8 ORDER BY p.part
"""
_OWNER = "SELECT pg_catalog.pg_get_userbyid(j.role_id)::text AS name FROM pgml_tune.job AS j WHERE j.job_id = $1::int8"
_CHUNK = """
SELECT r.chunk_no, r.lines FROM pgml_tune.job_rows AS r
WHERE r.job_id = $1::int8 AND r.part = $2::text AND r.chunk_no > $3::int4
ORDER BY r.chunk_no LIMIT 1
"""
_BEAT = """
SELECT pgml_tune._beat_job(
    $1::int8, $2::int4, pg_catalog.make_interval(secs => $3::float8), $4::int8
) AS outcome
"""
_PROGRESS = "SELECT pgml_tune._progress_job($1::int8, $2::int4, $3::jsonb) AS is_held"
_LOG = "SELECT pgml_tune._log_job($1::int8, $2::int4, $3::text[]) AS is_held"
_PUBLISH = "SELECT pgml_tune._publish_job($1::int8, $2::int4, $3::jsonb, $4::jsonb, $5::jsonb) AS is_held"
_FAIL = "SELECT pgml_tune._fail_job($1::int8, $2::int4, $3::text, $4::text, $5::text, $6::text) AS is_held"
_CANCELLED = "SELECT pgml_tune._end_cancelled($1::int8, $2::int4) AS is_held"
_GIVE_BACK = "SELECT pgml_tune._give_back_job($1::int8, $2::int4, $3::bool) AS is_held"
_LOOK = """
SELECT j.cancel_requested_at IS NOT NULL AS is_cancelled FROM pgml_tune.job AS j
WHERE j.job_id = $1::int8 AND j.fencing_token = $2::int4 AND j.state = 'running'
"""
# Until the transaction ends nobody else takes the job or asks for its cancel.
_HOLD = f"{_LOOK} FOR UPDATE"
_SUCCEED = """
UPDATE pgml_tune.job AS j SET state = 'succeeded', ended_at = pg_catalog.clock_timestamp(), result = $3::jsonb
WHERE j.job_id = $1::int8 AND j.fencing_token = $2::int4 AND j.state = 'running'
"""
_EVALUATE = """
INSERT INTO pgml_tune.evaluation (
    model, version, artifact_sha256, metric, metric_value, dataset_query, dataset_rows, dataset_sha256, job_id,
    created_by
)
SELECT e.model, e.version, e.artifact_sha256, e.metric, e.metric_value, e.dataset_query, e.dataset_rows,
       e.dataset_sha256, $1::int8, $2::text
FROM pg_catalog.jsonb_to_recordset($3::jsonb) AS e (
    model text, version text, artifact_sha256 text, metric text, metric_value double precision, dataset_query text,
    dataset_rows bigint, dataset_sha256 text
)
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker has been given, for as long as its lease lasts and nobody claims it again."""

    job_id: int
    token: int
    kind: str
    parameters: dict[str, Any]
    created_by: str
    artifacts: list[dict[str, Any]]  # what it has published, under this or an earlier claim
    evaluations: list[dict[str, Any]]  # what it has measured
    result: dict[str, Any] | None  # None: it still has to run
    lost_count: int
    installation_id: int

    @property
    def label(self) -> str:
        """Names its folders: no other claim has the same."""
        return f"{self.installation_id}-{self.job_id}-{self.token}"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a job's query, as they were found and checked when it was queued."""

    part: str  # train | eval | calibration
    query: str
    row_count: int
    rows_sha256: str  # of the lines, each with its end
    column_names: list[str]
    shape: str


def extension_version(db: Database) -> str | None:
    """The version of the SQL objects; None where the extension is not installed."""
    version: str | None = db.fetch(_EXTENSION)[0]["version"]
    return version


def databases(db: Database) -> list[str]:
    """The databases of the cluster that one can connect to."""
    return [row["datname"] for row in db.fetch(_DATABASES)]


def transaction_status(db: Database, transaction_id: int) -> str | None:
    """in progress, committed or aborted; None where it is too long ago to tell."""
    status: str | None = db.fetch(_XACT_STATUS, str(transaction_id))[0]["status"]
    return status


def see_worker(db: Database, name: str, is_one_shot: bool) -> None:
    """Tell that a worker lives."""
    db.fetch(_SEE_WORKER, name, is_one_shot)


def forget_workers(db: Database, name: str) -> None:
    """Remove a worker, and those that are long gone."""
    db.fetch(_FORGET_WORKERS, name)


def claim(db: Database, worker: str, lease_seconds: float, most_running: int) -> Claim | None:
    """The next job for a worker."""
    for row in db.fetch(_CLAIM, worker, lease_seconds, most_running):
        return Claim(
            job_id=row["job_id"],
            token=row["fencing_token"],
            kind=row["kind"],
            parameters=_readable(row["parameters"]),
            created_by=row["created_by"],
            artifacts=json.loads(row["artifacts"]),
            evaluations=json.loads(row["evaluations"]),
            result=None if row["result"] is None else json.loads(row["result"]),
            lost_count=row["lost_count"],
            installation_id=row["installation_id"],
        )
    return None


def _readable(text: str) -> dict[str, Any]:
    """Parameters, or none where somebody has made some that cannot be read: the job then fails for the want of them."""
    try:
        parameters: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parameters


def take_post(db: Database) -> str:
    """Become the worker that ends when no job is left; says taken, filled or unclear."""
    return str(db.fetch(_TAKE_POST)[0]["outcome"])


def may_leave(db: Database) -> bool:
    """Whether there is no job, and no open transaction has added one."""
    return bool(db.fetch(_MAY_LEAVE)[0]["may_leave"])


def parts(db: Database, job_id: int) -> list[Part]:
    """What the rows of a job are."""
    return [Part(**row) for row in db.fetch(_PARTS, job_id)]


def owner(db: Database, job_id: int) -> str:
    """The role whose job it is, and with whose rights it runs SQL."""
    return str(db.fetch(_OWNER, job_id)[0]["name"])


def chunks(db: Database, job_id: int, part: str) -> Iterator[str]:
    """The rows of a part, some at a time, a JSON object per line."""
    last = 0
    while rows := db.fetch(_CHUNK, job_id, part, last):
        last = rows[0]["chunk_no"]
        yield rows[0]["lines"]


def beat(db: Database, held: Claim, lease_seconds: float, memory_bytes: int | None) -> str:
    """Renew the lease; says ok, cancel or lost."""
    return str(db.fetch(_BEAT, held.job_id, held.token, lease_seconds, memory_bytes)[0]["outcome"])


def tell_progress(db: Database, held: Claim, progress: dict[str, Any]) -> bool:
    """Write down how far a job has come; False, as the next five, if it is held no more."""
    return _is_held(db, _PROGRESS, held, json.dumps(progress, allow_nan=False))


def log(db: Database, held: Claim, lines: Sequence[str]) -> bool:
    """Add lines to the log of a job."""
    return _is_held(db, _LOG, held, list(lines))


def publish(db: Database, held: Claim) -> bool:
    """Write down what a job has published and measured, and its result once it has ended well."""
    documents = (json.dumps(document, allow_nan=False) for document in (held.artifacts, held.evaluations))
    result = None if held.result is None else json.dumps(held.result, allow_nan=False)
    return _is_held(db, _PUBLISH, held, *documents, result)


def fail(db: Database, held: Claim, error: TuneError) -> bool:
    """End a job with an error."""
    return _is_held(db, _FAIL, held, error.sqlstate, error.message, error.detail or None, error.hint or None)


def end_cancelled(db: Database, held: Claim) -> bool:
    """End a job whose cancel was asked for."""
    return _is_held(db, _CANCELLED, held)


def give_back(db: Database, held: Claim, *, is_lost: bool) -> bool:
    """Queue a job again; `is_lost` counts it among those that were killed."""
    return _is_held(db, _GIVE_BACK, held, is_lost)


def look(db: Database, held: Claim) -> str:
    """How a job stands; says ok, cancel or lost."""
    return _standing(db.fetch(_LOOK, held.job_id, held.token))


def hold(db: Database, held: Claim) -> str:
    """Lock a job until the transaction ends; says ok, cancel or lost."""
    return _standing(db.fetch(_HOLD, held.job_id, held.token))


def _standing(rows: Sequence[Row]) -> str:
    if not rows:
        return "lost"
    return "cancel" if rows[0]["is_cancelled"] else "ok"


def succeed(db: Database, held: Claim, result: dict[str, Any]) -> None:
    """End a job well."""
    db.fetch(_SUCCEED, held.job_id, held.token, json.dumps(result, allow_nan=False))


def add_evaluations(db: Database, held: Claim, evaluations: Sequence[dict[str, Any]]) -> None:
    """Keep what a job has measured."""
    db.fetch(_EVALUATE, held.job_id, held.created_by, json.dumps(list(evaluations), allow_nan=False))


def _is_held(db: Database, statement: str, held: Claim, *values: Any) -> bool:
    return bool(db.fetch(statement, held.job_id, held.token, *values)[0]["is_held"])
