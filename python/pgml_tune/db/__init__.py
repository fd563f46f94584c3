"""How the rest of the package reaches the database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pgml_tune.db.bounds import Bounds

Row = dict[str, Any]


class Database(Protocol):
    """Runs one SQL statement; implemented over SPI inside a backend and over psycopg outside."""

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        """The rows of `sql`, whose parameters are written `$1::type` or `$1::pg_catalog.type`, and so on."""
        ...


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the caller's transaction is."""

    is_read_only: bool
    is_serializable: bool
    is_standby: bool
    is_block: bool = False  # whoever has begun it ends it
    keeps_snapshot: bool = False  # REPEATABLE READ or SERIALIZABLE


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that ended a statement."""

    sqlstate: str
    message: str


@dataclass(frozen=True, slots=True)
class Place:
    """Which backend this is."""

    node: str  # of a server and its data directory, whose copy is another one
    database_id: int
    backend: str  # its process and when that began: no two backends of a node are the same


class Connection(Database, Protocol):
    """The database seen from outside, where each statement is committed by itself."""

    def transaction(self) -> AbstractContextManager[object]:
        """What is done inside is committed together, or not at all."""
        ...

    def renew(self) -> None:
        """Take back what functions of others may have set in the session."""
        ...

    def undone(self) -> AbstractContextManager[object]:
        """What is done inside is taken back, and its locks are let go."""
        ...


class Session(Database, Protocol):
    """The database seen from inside one of its sessions, with what can be known there without SQL."""

    def fetch_if_possible(self, sql: str, *args: Any) -> list[Row] | None:
        """The rows of `sql`; None if the disk is full or a lock is held, and nothing was done."""
        ...

    def describe(self, sql: str) -> list[tuple[str, int]]:
        """The names and types of the columns of `sql`, which is run; refused unless it is one SELECT."""
        ...

    def hold(self, sql: str) -> None:
        """Lock the tables that a query names; it is not run, nor planned, which could run code of others."""
        ...

    def attempt(self, work: Callable[[], None]) -> str | None:
        """Do some work; what went wrong in its SQL, where the work ended and its last statement was undone."""
        ...

    def try_fetch(self, bounds: Bounds, sql: str, *args: Any) -> list[Row] | Failure:
        """The rows of `sql`, or what is wrong with it; 57014 or 53200 if it took more than its bounds.

        What is not its fault is raised: a cancel by somebody else, a lack of resources, a lock, a conflict.
        """
        ...

    def rolled_back(self) -> AbstractContextManager[None]:
        """What is done inside is taken back in the end, and its locks are let go of."""
        ...

    def why_no_cursor(self, sql: str) -> Failure | None:
        """Why a statement, which is parsed and neither analysed nor run, cannot be opened as a cursor."""
        ...

    def why_not_prepared(self, sql: str) -> Failure | None:
        """Why a statement, which is analysed and not run, cannot be prepared."""
        ...

    def checkpoint(self) -> None:
        """Let a cancel or a timeout that has arrived take effect."""
        ...

    def give_way(self) -> None:
        """Let a cancel or a timeout that has arrived take effect; costs nothing else, and runs anywhere."""
        ...

    def commit(self) -> bool:
        """Commit what was done so far; in a transaction block, which only its owner may end, False and nothing done."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; QueryCanceled when a cancel or a timeout arrives."""
        ...

    def notice(self, message: str) -> None:
        """Show a line to the client at once."""
        ...

    def warn(self, message: str) -> None:
        """Show a line to the client at once, as a WARNING."""
        ...

    def acting_as(self, role: int) -> AbstractContextManager[None]:
        """A block in which statements have the rights of a role, by oid, and no way back to those of the session."""
        ...

    def begin_restricted(self) -> int:
        """Let functions that follow leave nothing behind which would run as the session's own role."""
        ...

    def end_restricted(self, level: int) -> None:
        """End what begin_restricted() has begun, of which this is the level."""
        ...

    def role(self) -> int:
        """The oid of the role the current function runs as."""
        ...

    def place(self) -> Place:
        """Which backend this is, of which database and server."""
        ...

    def can_hold(self, text: str) -> bool:
        """Whether the database has all characters of a text."""
        ...

    def transaction(self) -> Transaction:
        """What the current transaction is."""
        ...

    def visible_state(self) -> tuple[int, ...]:
        """Equal values mean that the calling statement sees the same rows; empty where that is not known."""
        ...

    def holds_table(self, table: int) -> bool:
        """Whether the transaction has read the table of this oid, so that nobody can lock it for himself alone."""
        ...

    def statement(self) -> int:
        """Tells apart what clients send, each of which may hold several statements."""
        ...

    def preference(self, name: bytes) -> str | None:
        """The value of a session preference; None where it was never set."""
        ...
