"""Values in SQL that no row has, and what they might have been meant to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from pgml_tune.service.likeness import closest
from pgml_tune.service.schema import Schema
from pgml_tune.service.sql_text import name_of, parsed, parts

# The values of the column (table and column as the schema names them) beside a text; None: the text is one of them.
Beside = Callable[[str, str, str], list[str] | None]

_MOST_LITERALS = 8  # looked up for one statement
_LONGEST_LITERAL = 200  # characters


def corrected(sql: str, schema: Schema, beside: Beside) -> str | None:
    """A statement with the closest values for those that no row has; None where there is nothing to correct."""
    statement = parsed(sql)
    if statement is None:
        return None
    columns = {
        (parts(table.name), parts(column.name)[-1]): (table.name, column.name)
        for table in schema.tables
        for column in table.columns
    }
    is_changed = False
    for place, (column, literal) in enumerate(list(_comparisons(statement, columns))):
        if place >= _MOST_LITERALS:
            break
        if len(literal.name) > _LONGEST_LITERAL:
            continue
        values = beside(*column, literal.name)
        value = closest(literal.name, values) if values else None
        if value is not None:
            literal.replace(exp.Literal.string(value))
            is_changed = True
    return statement.sql(dialect="postgres", comments=False) if is_changed else None


def _comparisons(
    statement: exp.Expression, columns: dict[tuple[tuple[str, ...], str], tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], exp.Literal]]:
    """The texts that a statement compares with columns, each with its column."""
    for scope in _scopes(statement):
        for comparison in scope.find_all(exp.EQ, exp.NEQ, exp.In):
            sides = [comparison.this, comparison.args.get("expression"), *comparison.expressions]
            column = next((side for side in sides if isinstance(side, exp.Column)), None)
            known = None if column is None else _resolve(column, scope, columns)
            if known is not None:
                for side in sides:
                    if isinstance(side, exp.Literal) and side.is_string:
                        yield known, side


def _scopes(statement: exp.Expression) -> list[Scope]:
    try:
        return list(traverse_scope(statement))
    except (SqlglotError, RecursionError, ValueError):
        return []


def _resolve(
    column: exp.Column, scope: Scope | None, columns: dict[tuple[tuple[str, ...], str], tuple[str, str]]
) -> tuple[str, str] | None:
    """The column of the schema that a name means, looked for in a query and then in those around it."""
    name = name_of(column.this)
    while scope is not None:
        found = []
        for alias, source in scope.sources.items():
            if isinstance(source, exp.Table) and column.table in ("", alias):
                table = tuple(name_of(part) for part in source.parts if isinstance(part, exp.Identifier))
                found += [columns[table, name]] if (table, name) in columns else []
        if found:
            return found[0] if len(found) == 1 else None
        scope = scope.parent
    return None
