"""A session in a database that is opened again when it is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg

from pgml_tune.db.connection import ConnectionDatabase

_APPLICATION = "pgml-tune worker"
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 5.0
# Not our fault, and over soon: a conflict, a lock, a timeout, want of memory, disk or connections, a shutdown.
_PASSING = ("40", "53", "55P03", "57")
Result = TypeVar("Result")


class Unreachable(Exception):
    """The database cannot be asked now; it may be later."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is: as the command was told, or another one there."""

    dsn: str
    database: str | None = None


@dataclass(slots=True)
class Link:
    """One session; used by one thread."""

    place: Place
    _db: ConnectionDatabase | None = None
    _wait: float = _FIRST_WAIT
    _next: float = field(default_factory=time.monotonic)

    def use(self, work: Callable[[ConnectionDatabase], Result]) -> Result:
        """What `work` gives; Unreachable if the database is gone, wherever in the work that showed."""
        if time.monotonic() < self._next:
            raise Unreachable("it was not reachable a moment ago")
        try:
            if self._db is None:
                # Functions of others that are called here could put another statement in place of one that is prepared.
                self._db = ConnectionDatabase.connect(self.place.dsn, _APPLICATION, self.place.database, prepares=False)
            result = work(self._db)
        except psycopg.Error as error:
            if self._db is not None and not self._db.is_lost and not (error.sqlstate or "").startswith(_PASSING):
                raise
            if self._db is None or self._db.is_lost:
                self.close()
            self._next = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            raise Unreachable(str(error).strip().partition("\n")[0]) from error
        self._wait = _FIRST_WAIT
        return result

    def cancel(self) -> None:
        """End the statement that it is at; for another thread than the one that uses it."""
        db = self._db
        if db is not None:
            db.cancel()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def ask_once(place: Place, question: Callable[[ConnectionDatabase], Result]) -> Result:
    """What a database answers, in a session for that only."""
    link = Link(place)
    try:
        return link.use(question)
    finally:
        link.close()
