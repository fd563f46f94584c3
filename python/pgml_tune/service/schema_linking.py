"""Which tables and columns a question is about, where not all of them fit into what a model reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from pgml_tune.service.schema import Column, Schema, Table

# How near texts are to a question, as cosines.
Nearness = Callable[[Sequence[str]], list[float]]

_MOST_TABLES = 500  # that are compared by meaning
_MOST_COLUMNS = 20  # of a table, besides keys and columns that the question names
_LONGEST_TEXT = 1000  # characters that describe a table
_NAMED, _WORDS, _NEIGHBOUR = 1.0, 0.5, 0.3  # what counts beside the nearness of meaning
_WORD = re.compile(r"[^\W_]+")


def nearest_first(
    question: str, schema: Schema, named: Collection[tuple[str, str]], nearness: Nearness | None
) -> Schema:
    """The tables by what they have to do with a question, the nearest first, without columns that have nothing.

    `named` are the columns with values that the question names. Without a model for meanings words are compared.
    """
    words = _stems(question)
    likely = sorted(schema.tables, key=lambda table: -_words_shared(words, _describe(table)))[:_MOST_TABLES]
    scores = {table.name: _WORDS * _words_shared(words, _describe(table)) for table in schema.tables}
    for name in {table for table, _ in named}:
        scores[name] += _NAMED
    if nearness is not None:
        for table, near in zip(likely, nearness([_describe(table) for table in likely]), strict=True):
            scores[table.name] += near
    neighbours = _neighbours(schema)
    final = {
        name: score + _NEIGHBOUR * max((scores[other] for other in neighbours.get(name, ())), default=0.0)
        for name, score in scores.items()
    }
    ordered = sorted(schema.tables, key=lambda table: -final.get(table.name, 0.0))
    joins = _joins(schema)
    return Schema(tuple(_narrowed(table, words, joins | set(named), nearness) for table in ordered))


def largest_fitting(tables: Sequence[Table], fits: Callable[[Schema], bool]) -> Schema:
    """As many of the first tables as fit, or the first one."""
    fitting, too_many = 0, len(tables) + 1
    while too_many - fitting > 1:
        # Few do: the length of what is tried doubles until it is too much.
        count = min(fitting * 2 or 1, (fitting + too_many) // 2)
        if fits(Schema(tuple(tables[:count]))):
            fitting = count
        else:
            too_many = count
    return Schema(tuple(tables[: max(fitting, 1)]))


def _narrowed(table: Table, words: set[str], kept: set[tuple[str, str]], nearness: Nearness | None) -> Table:
    if len(table.columns) <= _MOST_COLUMNS:
        return table
    texts = [_describe_column(table, column) for column in table.columns]
    scores = [_words_shared(words, text) for text in texts]
    if nearness is not None:
        scores = [shared + near for shared, near in zip(scores, nearness(texts), strict=True)]
    best = sorted(range(len(texts)), key=lambda place: -scores[place])[:_MOST_COLUMNS]
    columns = tuple(
        column
        for place, column in enumerate(table.columns)
        if place in best or column.is_key or (table.name, column.name) in kept
    )
    return replace(table, columns=columns)


def _describe(table: Table) -> str:
    columns = ", ".join(_spaced(column.name) for column in table.columns)
    return f"{_spaced(table.name)}: {table.comment or ''} {columns}"[:_LONGEST_TEXT]


def _describe_column(table: Table, column: Column) -> str:
    return f"{_spaced(column.name)} of {_spaced(table.name)} {column.comment or ''}".strip()


def _spaced(name: str) -> str:
    return " ".join(_WORD.findall(name))


def _stems(text: str) -> set[str]:
    """The words of a text, so that a plural is the same as its singular."""
    return {word.removesuffix("s") for word in _WORD.findall(text.lower()) if len(word) > 1}


def _words_shared(words: set[str], text: str) -> float:
    """The share of the words of a question that a text has."""
    return len(words & _stems(text)) / len(words) if words else 0.0


def _neighbours(schema: Schema) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table in schema.tables:
        for key in table.foreign_keys:
            found.setdefault(table.name, set()).add(key.table)
            found.setdefault(key.table, set()).add(table.name)
    return found


def _joins(schema: Schema) -> set[tuple[str, str]]:
    """The columns by which tables are joined."""
    found = {(table.name, column) for table in schema.tables for key in table.foreign_keys for column in key.columns}
    return found | {
        (key.table, column) for table in schema.tables for key in table.foreign_keys for column in key.target_columns
    }
