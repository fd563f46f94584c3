"""The part of a database that a question may be about: what its asker may read, as values.

Names are written as the asker has to write them in a statement: quoted where they need it, and a table with its schema
where the search path does not find it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """A column that may be read."""

    name: str
    type: str
    comment: str | None = None
    is_key: bool = False  # part of the primary key
    values: tuple[str, ...] = ()  # frequent ones, the most frequent first

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Column:
        return cls(found["name"], found["type"], found["comment"], found["is_key"], tuple(found["values"]))


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns whose values are those of a key of another table."""

    columns: tuple[str, ...]
    table: str
    target_columns: tuple[str, ...]

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> ForeignKey:
        return cls(tuple(found["columns"]), found["table"], tuple(found["target_columns"]))


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or a view, with those of its columns that may be read."""

    name: str
    columns: tuple[Column, ...]
    comment: str | None = None
    foreign_keys: tuple[ForeignKey, ...] = ()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Table:
        columns = tuple(Column.from_json(column) for column in found["columns"])
        keys = tuple(ForeignKey.from_json(key) for key in found["foreign_keys"])
        return cls(found["name"], columns, found["comment"], keys)


@dataclass(frozen=True)
class Schema:
    """All tables that a question may be about, in the order in which names are looked up."""

    tables: tuple[Table, ...]

    @classmethod
    def from_json(cls, tables: Iterable[dict[str, Any]]) -> Schema:
        """The schema of tables as to_json() or rows of pgml_tune._readable_schema() give them."""
        return cls(tuple(Table.from_json(table) for table in tables))

    def to_json(self) -> list[dict[str, Any]]:
        # asdict() would take as long as the server for all it has to say.
        return [
            {
                "name": table.name,
                "comment": table.comment,
                "columns": [
                    {
                        "name": column.name,
                        "type": column.type,
                        "comment": column.comment,
                        "is_key": column.is_key,
                        "values": list(column.values),
                    }
                    for column in table.columns
                ],
                "foreign_keys": [
                    {"columns": list(key.columns), "table": key.table, "target_columns": list(key.target_columns)}
                    for key in table.foreign_keys
                ],
            }
            for table in self.tables
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal schemas, whatever session or machine they were read in."""
        written = json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(written.encode()).hexdigest()
