"""SQL that a model is to write: its normal form, the values in it, and the same with placeholders for values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pgml_tune.service.prompt import PLACEHOLDERS, is_number

_DIALECT = "postgres"


@dataclass(frozen=True, slots=True)
class SqlTarget:
    """A statement that was understood."""

    tree: exp.Expression
    text: str  # all alike in spaces, small and large letters of keywords, and superfluous brackets

    @classmethod
    def parse(cls, sql: str) -> SqlTarget | None:
        """The statement that a text is; None if it cannot be understood."""
        try:
            trees = sqlglot.parse(sql, read=_DIALECT)
            if len(trees) != 1 or not isinstance(trees[0], exp.Expression):
                return None
            return cls(trees[0], trees[0].sql(_DIALECT, comments=False))
        except (SqlglotError, RecursionError):
            return None

    def compared(self) -> dict[str, set[str]]:
        """The texts in it, in lower case, each with the names of the columns that it is compared with."""
        found: dict[str, set[str]] = {}
        for literal in self.tree.find_all(exp.Literal):
            if literal.is_string and literal.parent is not None:
                column = literal.parent.find(exp.Column)
                names = {_name(column)} if column is not None else set()
                found.setdefault(literal.this.lower(), set()).update(names)
        return found

    def with_placeholders(self, values: Sequence[str]) -> str:
        """The statement as a model is to write it, where placeholders stand for these values."""
        signs = {value.lower(): sign for value, sign in zip(values, PLACEHOLDERS, strict=False)}
        tree = self.tree.copy()
        for literal in tree.find_all(exp.Literal):
            value = literal.this
            sign = signs.get(value.lower())
            if sign is not None:
                literal.set("this", sign)
                # Quotes that restore() adds by itself are two signs less to get right.
                literal.set("is_string", literal.is_string and is_number(value))
        return str(tree.sql(_DIALECT, comments=False))


def _name(column: exp.Column) -> str:
    """The name of a column as a statement must have it."""
    return str(column.this.sql(_DIALECT))
