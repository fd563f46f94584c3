"""The database seen from inside a backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import plpy

from pgml_tune.db import Failure, Place, Row, Transaction, server
from pgml_tune.db.bounds import Bounds, bounded
from pgml_tune.db.gate import check_value
from pgml_tune.errors import ParallelMode, QueryCanceled

_PARAMETER = re.compile(r"\$(\d+)::((?:pg_catalog\.)?[a-z0-9]+(?:\[\])?)")
_DATA_EXCEPTION = "22"  # class of the SQLSTATEs of values that are not valid
_READ_DIRECTLY = (0, 6)  # encodings of a database: SQL_ASCII, which says nothing of the bytes, and UTF8
_OPERATOR_INTERVENTION = "57"  # class of the SQLSTATEs of a cancel and of a shutdown
_CANCELED, _OUT_OF_MEMORY, _LOCKED = "57014", "53200", "55P03"
# Classes of SQLSTATEs that tell of the server or of others, not of a statement.
_NOT_ITS_FAULT = (_OPERATOR_INTERVENTION, "40", "53", "58")


class SpiDatabase:
    """The session of this backend; its prepared statements live as long as the connection."""

    def __init__(self) -> None:
        self._plans: dict[str, Any] = {}

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        _refuse_parallel_mode()
        plan = self._plans.get(sql)
        if plan is None:
            plan = self._plans[sql] = plpy.prepare(sql, _parameter_types(sql))
        for value in args:
            check_value(value)
        return list(plpy.execute(plan, args))

    def fetch_if_possible(self, sql: str, *args: Any) -> list[Row] | None:
        try:
            return self.fetch(sql, *args)
        except (plpy.spiexceptions.DiskFull, plpy.spiexceptions.LockNotAvailable):
            return None

    def describe(self, sql: str) -> list[tuple[str, int]]:
        _refuse_parallel_mode()
        # Several statements cannot be opened as a cursor.
        plpy.cursor(check_value(sql)).close()
        result = plpy.execute(sql)
        return list(zip(result.colnames(), result.coltypes(), strict=True))

    def hold(self, sql: str) -> None:
        _refuse_parallel_mode()
        plpy.prepare(check_value(sql))

    def attempt(self, work: Callable[[], None]) -> str | None:
        try:
            work()
        except plpy.SPIError as error:
            if error.sqlstate.startswith(_OPERATOR_INTERVENTION):
                raise
            return str(error)
        return None

    def try_fetch(self, bounds: Bounds, sql: str, *args: Any) -> list[Row] | Failure:
        _refuse_parallel_mode()
        rows: list[Row] = []
        error: Any = None
        with bounded(bounds) as watch:
            try:
                rows = self.fetch(sql, *args)
            except (plpy.SPIError, MemoryError) as failure:
                error = failure
        if watch.has_fired:
            self._take_cancel()
        if error is None:
            return rows
        if isinstance(error, MemoryError):
            return Failure(_OUT_OF_MEMORY, "out of memory")
        state = error.sqlstate
        is_over = state == _CANCELED and watch.has_fired
        if not is_over and state != _OUT_OF_MEMORY and (state == _LOCKED or state.startswith(_NOT_ITS_FAULT)):
            raise error
        return Failure(state, str(error))

    def _take_cancel(self) -> None:
        """Let a cancel that came too late for its statement hit one that does nothing."""
        try:
            self.checkpoint()
        except plpy.spiexceptions.QueryCanceled:
            pass

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        _refuse_parallel_mode()
        subtransaction = plpy.subtransaction()
        subtransaction.__enter__()
        try:
            yield
        finally:
            subtransaction.__exit__(Exception, None, None)

    def why_no_cursor(self, sql: str) -> Failure | None:
        return self._failure_of(lambda: plpy.cursor(plpy.prepare(check_value(sql))).close())

    def why_not_prepared(self, sql: str) -> Failure | None:
        return self._failure_of(lambda: plpy.prepare(check_value(sql)))

    def _failure_of(self, work: Callable[[], Any]) -> Failure | None:
        _refuse_parallel_mode()
        try:
            work()
        except plpy.SPIError as error:
            if error.sqlstate == _LOCKED or error.sqlstate.startswith(_NOT_ITS_FAULT):
                raise
            return Failure(error.sqlstate, str(error))
        return None

    def checkpoint(self) -> None:
        # Running any statement looks for interrupts.
        self.fetch("SELECT 1")

    def give_way(self) -> None:
        if server.is_interrupted():
            if not server.is_in_parallel_mode():
                self.checkpoint()
            raise QueryCanceled("canceling statement due to an interrupt")

    def commit(self) -> bool:
        try:
            plpy.commit()
        except plpy.spiexceptions.InvalidTransactionTermination:
            return False
        return True

    def sleep(self, seconds: float) -> None:
        try:
            self.fetch("SELECT pg_catalog.pg_sleep($1::pg_catalog.float8)", seconds)
        except plpy.spiexceptions.QueryCanceled as error:
            raise QueryCanceled(str(error)) from None

    def notice(self, message: str) -> None:
        plpy.notice(check_value(message))

    def warn(self, message: str) -> None:
        plpy.warning(check_value(message))

    def acting_as(self, role: int) -> AbstractContextManager[None]:
        return server.acting_as(role)

    def begin_restricted(self) -> int:
        return server.begin_restricted()

    def end_restricted(self, level: int) -> None:
        server.end_restricted(level)

    def role(self) -> int:
        role: int = server.current_role()
        return role

    def place(self) -> Place:
        return server.place()

    def can_hold(self, text: str) -> bool:
        try:
            self.fetch("SELECT $1::text", text)
        except plpy.SPIError as error:
            if not error.sqlstate.startswith(_DATA_EXCEPTION):
                raise
            return False
        return True

    def transaction(self) -> Transaction:
        return Transaction(
            server.is_read_only(), server.is_serializable(), server.is_in_recovery(), server.is_in_block(),
            server.keeps_snapshot(),
        )

    def visible_state(self) -> tuple[int, ...]:
        _refuse_parallel_mode()
        return server.visible_state()

    def holds_table(self, table: int) -> bool:
        return server.holds_table(table)

    def statement(self) -> int:
        began: int = server.statement_began()
        return began

    def preference(self, name: bytes) -> str | None:
        value = server.config_option(name)
        if value is None or value.isascii() or server.database_encoding() in _READ_DIRECTLY:
            return None if value is None else value.decode(errors="replace")
        text: str = self.fetch("SELECT pg_catalog.current_setting($1::text) AS value", name.decode())[0]["value"]
        return text


def _refuse_parallel_mode() -> None:
    # Running SQL in a parallel plan corrupts the interpreter and then crashes the server.
    if server.is_in_parallel_mode():
        raise ParallelMode(
            "this function cannot run in a parallel plan",
            detail="It was called through a function that is labelled PARALLEL SAFE or RESTRICTED and must not be.",
            hint="SET max_parallel_workers_per_gather = 0",
        )


def _parameter_types(sql: str) -> list[str]:
    types = {int(number): name for number, name in _PARAMETER.findall(sql)}
    return [types[number] for number in sorted(types)]
