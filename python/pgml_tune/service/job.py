"""Adding jobs with their rows, and waiting for them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.db import Session
from pgml_tune.errors import (
    DatatypeMismatch,
    InvalidArgument,
    JobFailed,
    LimitExceeded,
    QueryCanceled,
    SystemFault,
)
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.progress import duration
from pgml_tune.service.training_rows import examine
from pgml_tune.settings import Limits
from pgml_tune.store import job as store
from pgml_tune.store import job_schema
from pgml_tune.store.job import JobStatus
from pgml_tune.store.setting import read_settings

_POLL_SECONDS = 0.25
_START_AGAIN_SECONDS = 20.0  # a worker that was started is seen well before
_WAITS = "waits for a worker, of which none runs: start pgml-tune worker"
_MOST_STARTS = 2  # beside the first
_FIRST_NOTICE_SECONDS, _LAST_NOTICE_SECONDS = 1.0, 30.0

# Starts a worker; the argument is a transaction whose end it waits for first.
StartWorker = Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class RowQuery:
    """A query of the caller, and the shapes that its rows may have."""

    part: str  # train | eval | calibration
    text: str
    shapes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for; the same request is the same job until that has ended."""

    kind: str
    parameters: dict[str, Any]
    queries: tuple[RowQuery, ...] = field(default=())
    takes_schema: bool = False  # also the tables, columns and values that the caller may read, where its rows are SQL

    def text(self) -> str:
        """The request as a text that is equal for equal requests."""
        queries = [[query.part, query.text] for query in self.queries]
        return json.dumps([self.kind, self.parameters, queries], sort_keys=True)


def read_limits(db: Session) -> Limits:
    """The settings in force."""
    return Limits.from_rows(read_settings(db)[1])


def submit(db: Session, request: Request, limits: Limits) -> int:
    """Add a job with a snapshot of its rows, read as the caller; the number of the job."""
    with own_settings(db):
        job_id, is_new = store.add_job(db, request.kind, request.parameters, request.text())
    if not is_new:
        db.notice(f"job {job_id} is the same request and has not ended")
        return job_id
    paths = []
    for query in request.queries:
        columns = _columns(db, query)
        _take(db, job_id, query.part, query.text, columns, limits)
        with own_settings(db):
            _describe(db, job_id, query, limits)
        paths.append((query.text, columns[2] if len(columns) > 2 else None))
    if request.takes_schema:
        for part, text in job_schema.snapshots(paths).items():
            columns = [name for name, _ in store.query_columns(db, text)]
            _take(db, job_id, part, text, columns, limits)
            with own_settings(db):
                _describe_snapshot(db, job_id, part, text, columns)
    return job_id


def _take(db: Session, job_id: int, part: str, text: str, columns: list[str], limits: Limits) -> None:
    """Keep the rows of a query of the caller."""
    outcome = store.take_rows(db, job_id, part, text, columns, limits.job_rows, limits.job_row_bytes)
    if outcome != "taken":
        raise _too_many(part, outcome, limits)


def _columns(db: Session, query: RowQuery) -> list[str]:
    """The names of the columns of a query, which must differ, and be of types that nobody has made."""
    columns = store.query_columns(db, query.text)
    names = [name for name, _ in columns]
    if not names:
        raise DatatypeMismatch(f"the {query.part} query returns no columns")
    if len(set(names)) < len(names):
        raise InvalidArgument(
            f"two columns of the {query.part} query have the same name",
            detail=f"They are: {', '.join(names)}.",
            hint="Give each a name of its own: SELECT a.body AS anchor, b.body AS positive FROM ...",
        )
    with own_settings(db):
        foreign = store.foreign_types(db, [type_id for _, type_id in columns])
    for place, type_name in foreign:
        name = names[place - 1]
        raise DatatypeMismatch(
            f'column "{name}" of the {query.part} query has type {type_name}',
            detail="A type that is not PostgreSQL's own may bring functions of others along, which would run.",
            hint=f'Cast it in the query: SELECT "{name}"::text',
        )
    return names


def _describe(db: Session, job_id: int, query: RowQuery, limits: Limits) -> None:
    digest = hashlib.sha256()
    lines = _lines(db, job_id, query.part, digest.update)
    facts = examine(lines, query.part, query.shapes, limits.max_input_bytes)
    store.describe_part(db, job_id, query.part, query.text, facts.count, digest.hexdigest(), facts.columns, facts.shape)


def _describe_snapshot(db: Session, job_id: int, part: str, text: str, columns: list[str]) -> None:
    digest = hashlib.sha256()
    count = sum(1 for _ in _lines(db, job_id, part, digest.update))
    store.describe_part(db, job_id, part, text, count, digest.hexdigest(), columns, job_schema.SHAPE)


def _lines(db: Session, job_id: int, part: str, hash_bytes: Callable[[bytes], None]) -> Iterator[str]:
    for chunk in store.kept_chunks(db, job_id, part):
        hash_bytes(chunk.encode() + b"\n")
        yield from chunk.split("\n")


def _too_many(part: str, what: str, limits: Limits) -> LimitExceeded:
    limit, setting = (limits.job_rows, "job_rows") if what == "rows" else (limits.job_row_bytes, "job_row_bytes")
    return LimitExceeded(
        f"the {part} query returns more than {limit} {what}",
        detail=f"The setting {setting} says how many a job may take.",
        hint=f"SELECT configure('{setting}', '{2 * limit}')",
    )


def run(db: Session, request: Request, limits: Limits, is_waiting: bool, start_worker: StartWorker) -> int:
    """Add a job, see to it that a worker runs, and wait for its end where that is possible."""
    job_id = submit(db, request, limits)
    starts = limits.auto_start_worker == "on"
    with own_settings(db):
        transaction = store.transaction_id(db)
        has_worker = store.is_worker_alive(db)
    if not db.commit():
        if starts and not has_worker:
            start_worker(transaction)
        begins = "begins after this transaction has committed" if starts or has_worker else _WAITS
        db.notice(f"job {job_id} is queued and {begins}")
        return job_id
    if not has_worker and not store.is_worker_alive(db):
        if not starts:
            db.notice(f"job {job_id} is queued and {_WAITS}")
            return job_id
        start_worker(None)
    if is_waiting:
        _wait(db, job_id, start_worker if limits.auto_start_worker == "on" else None)
    else:
        db.notice(f"job {job_id} is queued: SELECT * FROM pgml_tune.jobs WHERE job_id = {job_id}")
    return job_id


def _wait(db: Session, job_id: int, start_worker: StartWorker | None) -> None:
    """Tell how a job comes on until it ends; fails as the job fails."""
    teller = _Teller(db, job_id)
    started_worker, starts = time.monotonic(), 0
    try:
        while True:
            status = store.job_status(db, job_id)
            if status is None:
                raise JobFailed("42704", f"job {job_id} is gone")
            teller.tell(status)
            if status.has_ended:
                return _end(db, job_id, status, teller.seconds())
            if start_worker is not None and time.monotonic() - started_worker > _START_AGAIN_SECONDS:
                started_worker = time.monotonic()
                if not store.is_worker_alive(db):
                    starts += 1
                    if starts > _MOST_STARTS:
                        raise _no_worker(job_id)
                    start_worker(None)
            # Not for hours in one transaction: vacuum would wait for it.
            db.commit()
            db.sleep(_POLL_SECONDS)
    except QueryCanceled:
        raise QueryCanceled(
            f"no longer waiting for job {job_id}",
            detail="The job goes on.",
            hint=f"SELECT cancel_job({job_id})",
        ) from None


def _no_worker(job_id: int) -> SystemFault:
    return SystemFault(
        f"no worker could be started for job {job_id}, which waits on",
        detail="What workers print is in worker.log in the spool folder.",
        hint="SELECT * FROM doctor()",
    )


def _end(db: Session, job_id: int, status: JobStatus, seconds: float) -> None:
    if status.state == "succeeded":
        result = json.loads(status.result or "{}")
        made = ", ".join(result.get("versions", []))
        parts = [part for part in (made, result.get("summary", "")) if part]
        db.notice(f"job {job_id} succeeded after {duration(seconds)}: {'; '.join(parts)}")
        return
    if status.state == "cancelled":
        raise JobFailed(QueryCanceled.sqlstate, f"job {job_id} was cancelled")
    raise JobFailed(
        status.sqlstate or "38000",
        status.message or f"job {job_id} has failed",
        detail=status.detail or "",
        hint=status.hint or f"SELECT job_log({job_id})",
    )


class _Teller:
    """Tells of a job when its phase changes, and now and then in between, the longer it takes the rarer."""

    def __init__(self, db: Session, job_id: int) -> None:
        self._db = db
        self._job_id = job_id
        self._started = self._told = time.monotonic()
        self._phase: str | None = None
        self._step: int | None = None

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, status: JobStatus) -> None:
        if status.state != "running" or status.phase is None:
            return
        now = time.monotonic()
        interval = min(max(_FIRST_NOTICE_SECONDS, (now - self._started) / 15), _LAST_NOTICE_SECONDS)
        is_new_phase = status.phase != self._phase
        has_moved = status.step != self._step and now - self._told >= interval
        if is_new_phase or has_moved:
            self._phase, self._step, self._told = status.phase, status.step, now
            self._db.notice(f"job {self._job_id}: {status_line(status)}")


def status_line(status: JobStatus) -> str:
    """Phase, step of how many, loss, metric and time left, as far as they are known."""
    parts = [status.phase or "starting"]
    if status.step is not None and status.steps:
        parts.append(f"{status.step:,} of {status.steps:,}")
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4g}")
    if status.metric is not None and status.metric_value is not None:
        parts.append(f"{status.metric} {status.metric_value:.2f}")
    if status.seconds_left is not None and status.step != status.steps:
        parts.append(f"{duration(status.seconds_left)} left")
    return ", ".join(parts)
