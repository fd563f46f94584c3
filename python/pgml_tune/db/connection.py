"""The database seen from outside: a connection of psycopg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import make_conninfo
from psycopg.pq import Format
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from pgml_tune.db import Row
from pgml_tune.db.vectors import Vectors

_CANCEL_SECONDS = 2.0
# What the role or the database has set must not change what our statements mean, nor end them early or late.
_SESSION = """
SET search_path = pg_catalog, pg_temp;
SET client_min_messages = warning;
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET statement_timeout = '1min';
SET lock_timeout = '20s';
SET idle_in_transaction_session_timeout = 0;
SET TimeZone = 'UTC'
"""


class _VectorsDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vectors) -> bytes:
        return obj.to_binary()


class ConnectionDatabase:
    """Statements are committed one by one, but for those inside `transaction()`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    def connect(
        cls, dsn: str, application_name: str, database: str | None = None, *, prepares: bool = True
    ) -> ConnectionDatabase:
        """A session where `dsn` says, or in another database there; statements that come often may be prepared."""
        # Whatever the database has: of one in SQL_ASCII psycopg would make bytes instead of texts.
        place = make_conninfo(
            dsn, dbname=database, application_name=application_name, connect_timeout=10, client_encoding="UTF8"
        )
        connection = psycopg.connect(place, autocommit=True)
        if not prepares:
            connection.prepare_threshold = None
        connection.execute(_SESSION)
        # As SPI has it: a JSON value is its text.
        for name in ("json", "jsonb"):
            connection.adapters.register_loader(name, TextLoader)
        connection.adapters.register_dumper(Vectors, _VectorsDumper)
        return cls(connection)

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        with psycopg.RawCursor(self._connection, row_factory=dict_row) as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall() if cursor.description else []

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

    def renew(self) -> None:
        self._connection.execute(_SESSION)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """A transaction that is rolled back in any case."""
        with self._connection.transaction(force_rollback=True):
            yield

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._connection.info.dbname

    @property
    def dsn(self) -> str:
        """Where another session of the same role in the same database is opened; may hold a password."""
        info = self._connection.info
        known: dict[str, Any] = {**info.get_parameters(), "password": info.password or None, "application_name": None}
        return make_conninfo(**known | {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname})

    @property
    def is_lost(self) -> bool:
        return self._connection.broken or self._connection.closed

    def cancel(self) -> None:
        """End the statement that another thread is at."""
        with suppress(psycopg.Error):  # the server is gone, and the statement with it
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)

    def close(self) -> None:
        self._connection.close()
