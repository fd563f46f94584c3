"""The database as the caller of a job sees it: his rows, his rights, his limits.

The worker's own session runs one function, which takes the role of the caller on and hands the text to the executor
that nothing can be written with. No SET ROLE: code of users could RESET it and go on as the worker. Each call is a
transaction that is rolled back, and no statement is prepared under a name, so that nothing is left for the next.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import PermissionDenied, SystemFault
from pgml_tune.jobs.job import Access
from pgml_tune.store import job_caller

_APPLICATION = "pgml-tune job"
_PATIENCE_SECONDS = 120.0  # a server that is started again is back by then
_DIGITS = 9  # that numbers are compared in: sums of the same in another order differ in the last
_MOST_ROWS = 10_000
log = logging.getLogger("pgml_tune.jobs")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running a statement."""

    error: str | None  # None: it ran
    is_ordered: bool = False
    rows: tuple[tuple[Any, ...], ...] = ()
    is_cut: bool = False  # there were more rows than are looked at

    @property
    def is_valid(self) -> bool:
        return self.error is None

    def matches(self, other: Outcome) -> bool:
        """Whether both return the same rows, in the same order where this one is ordered."""
        if not (self.is_valid and other.is_valid) or self.is_cut or other.is_cut:
            return False
        if self.is_ordered:
            return self.rows == other.rows
        return sorted(self.rows, key=repr) == sorted(other.rows, key=repr)


class Caller:
    """Runs statements with the rights of the role whose job it is; what it has run once it remembers."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._known: dict[tuple[str, str], Outcome] = {}
        self._db = self._open()

    def run(self, statement: str, search_path: str) -> Outcome:
        """What a statement returns under a search path."""
        key = (statement, search_path)
        if key not in self._known:
            self._known[key] = self._run(statement, search_path)
        return self._known[key]

    def close(self) -> None:
        self._db.close()

    def _run(self, statement: str, search_path: str) -> Outcome:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return outcome_of(self._try(statement, search_path))
            except psycopg.Error as error:
                if not self._db.is_lost:
                    # Whatever it is, this statement is none to learn from, nor to answer with.
                    log.warning("%s: %s", error.sqlstate, statement)
                    return Outcome(error.diag.message_primary or "it cannot be run")
                if time.monotonic() > deadline:
                    raise
            self._reopen(deadline)

    def _reopen(self, deadline: float) -> None:
        while True:
            try:
                self._db = self._open()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return

    def _open(self) -> ConnectionDatabase:
        db = ConnectionDatabase.connect(self._access.dsn, _APPLICATION, prepares=False)
        may_act, exists = job_caller.may_act(db, self._access.role)
        if may_act and exists:
            return db
        db.close()
        if exists:
            raise PermissionDenied(
                "the worker may not run statements with the rights of the caller",
                detail="It is no superuser in this database.",
                hint="Let the worker connect as a superuser.",
            )
        raise SystemFault("the role of the caller does not exist any more")

    def _try(self, statement: str, search_path: str) -> str:
        with self._db.undone():
            return job_caller.run(self._db, self._access.role, statement, search_path, _MOST_ROWS)


def outcome_of(answer: str) -> Outcome:
    """The outcome that _try_sql() tells of."""
    found = json.loads(answer)
    if found["error"] is not None:
        return Outcome(str(found["error"]))
    rows = tuple(tuple(_plain(value) for value in row) for row in found["rows"])
    return Outcome(None, bool(found["is_ordered"]), rows, bool(found["is_cut"]))


def _plain(value: Any) -> Any:
    """A value as it is compared: numbers by their first digits, whatever their type; documents by their text."""
    if type(value) in (int, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, (list, dict)):
        return json.dumps(value, sort_keys=True)
    return value
