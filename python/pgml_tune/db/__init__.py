"""How the rest of the package reaches the database: one method."""

from __future__ import annotations

from typing import Any, Protocol

Row = dict[str, Any]


class Database(Protocol):
    """Runs one SQL statement; implemented over SPI inside a backend and over psycopg outside."""

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        """The rows of `sql`, whose parameters are written `$1::type` and so on."""
        ...
