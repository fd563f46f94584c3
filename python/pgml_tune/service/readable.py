"""What the asker of a question may ask about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgml_tune.db import Database
from pgml_tune.errors import InvalidArgument, PermissionDenied, UndefinedTable
from pgml_tune.service.schema import Schema
from pgml_tune.store import schema as store

_MOST_VALUES = 2000  # of a column, to compare with words that are no value
_MOST_ROWS = 50_000  # of all tables together that are read for it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question is asked: the search path, and the tables that it is limited to."""

    path: list[str]
    tables: list[int] | None  # None: all along the path


@dataclass(frozen=True, slots=True)
class Readable:
    """The tables that a question may be about, as its asker may read them."""

    place: Place
    schema: Schema
    relations: dict[str, int]  # by the names of the tables in the schema

    def values_named(
        self, db: Database, terms: list[str], is_looked_at: Callable[[str, str], bool]
    ) -> list[tuple[str, str, str]]:
        """Where texts in lower case stand as values of columns that are looked at: table, column, value."""
        rows = store.values_named(db, self.place.path, self._looked_at(is_looked_at), terms)
        return [row for row in rows if is_looked_at(row[0], row[1])]

    def all_values(self, db: Database, is_looked_at: Callable[[str, str], bool]) -> list[tuple[str, str, str]]:
        """The values of columns that are looked at, as far as they are quickly read."""
        relations = self._looked_at(is_looked_at)
        rows = store.all_values(db, self.place.path, relations, _MOST_VALUES, _MOST_ROWS)
        return [row for row in rows if is_looked_at(row[0], row[1])]

    def values_beside(self, db: Database, table: str, column: str, text: str) -> list[str] | None:
        """The values of a column in which a text does not stand; None if it does, or nobody may look."""
        return store.values_beside(db, self.place.path, self.relations[table], column, text)

    def _looked_at(self, is_looked_at: Callable[[str, str], bool]) -> list[int]:
        return [
            self.relations[table.name]
            for table in self.schema.tables
            if any(is_looked_at(table.name, column.name) for column in table.columns)
        ]


def find_place(db: Database, tables: Sequence[str | None] | None) -> Place:
    """Where a question is asked, under the settings of its asker."""
    named = None
    if tables is not None:
        named = [table for table in tables if table is not None]
        if not named or len(named) != len(tables):
            raise InvalidArgument(
                "tables is empty or holds NULL", hint="SELECT text_to_sql('question', tables => '{orders, customer}')"
            )
    return Place(store.read_path(db), None if named is None else store.relation_oids(db, named))


def read(db: Database, place: Place, with_values: bool) -> Readable:
    """The tables there, with frequent values if that is wanted, under own settings."""
    found = store.read_tables(db, place.path, place.tables, with_values)
    if place.tables is not None and len(found) < len(set(place.tables)):
        raise PermissionDenied(
            "one of the tables cannot be asked about",
            detail="It is not a table or view of which you may read a column, or it is temporary or a partition.",
        )
    if not found:
        raise UndefinedTable(
            "there is no table here that you may read",
            detail=f"The search path finds these schemas: {', '.join(place.path) or 'none'}.",
            hint="SET search_path = ...",
        )
    schema = Schema.from_json(table.description for table in found)
    names = (table.name for table in schema.tables)
    return Readable(place, schema, dict(zip(names, (table.relation for table in found), strict=True)))
