"""What rows of a query are good for: their shape, and whether a job can work with them.

The shape follows the types and the order of the columns, as in sentence-transformers, and the name of a last column of
numbers. Everything is checked before a job waits for hours to find it out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.errors import DatatypeMismatch, InvalidArgument, LimitExceeded

FEWEST_TRAINING_ROWS = 10
FEWEST_ROWS = 3
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # how JSON of PostgreSQL writes them
_GRADES = ("grade", "relevance")  # names of a last column that says how well a document answers
_MOST_LABELS = 10_000
_LONGEST_KEPT = 200  # bytes

SQL_SHAPE = "question_sql"
SHAPES = {
    "pair_score": "(text, text, score)",
    "pair_label": "(text, text, label 0 or 1)",
    "pair": "(anchor, positive)",
    "triplet": "(anchor, positive, negative)",
    "text_label": "(text, label)",
    "text": "(text)",
    "retrieval": "(query, document) or (query, document, grade)",
    SQL_SHAPE: "(question, sql) or (question, sql, search path)",
}


# What an embedding model can be trained with on rows of a shape; the first one is the default.
LOSSES = {
    "pair_score": ("cosine", "cosent"),
    "pair_label": ("contrastive", "cosine", "cosent"),
    "pair": ("mnrl", "cached_mnrl"),
    "triplet": ("mnrl", "cached_mnrl", "triplet"),
}


@dataclass(slots=True)
class _Column:
    """What was seen in one column."""

    name: str
    texts: int = 0
    blanks: int = 0
    numbers: int = 0
    booleans: int = 0
    nulls: int = 0
    others: int = 0
    not_finite: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    is_integer: bool = True
    longest_bytes: int = 0
    values: Counter[str] = field(default_factory=Counter)

    def add(self, value: Any) -> None:
        if value is None:
            self.nulls += 1
        elif type(value) is str:
            self._add_text(value)
        elif type(value) is bool:
            self.booleans += 1
            self._add_number(int(value))
        elif type(value) in (int, float):
            self.numbers += 1
            self.is_integer = self.is_integer and float(value).is_integer()
            self._add_number(value)
        else:
            self.others += 1

    def _add_text(self, value: str) -> None:
        if "\0" in value:
            raise ValueError
        self.texts += 1
        self.not_finite += value in _NOT_FINITE
        self.blanks += not value.strip()
        content = value.encode()
        self.longest_bytes = max(self.longest_bytes, len(content))
        # Whole texts are not kept: ten thousand of the longest would fill the memory.
        self._count(value if len(content) <= _LONGEST_KEPT else hashlib.sha256(content).hexdigest())

    def _add_number(self, value: float) -> None:
        self.lowest, self.highest = min(self.lowest, float(value)), max(self.highest, float(value))
        # A whole number itself: as a double precision the long ones would be the same.
        self._count(str(value if type(value) is int else int(value) if value.is_integer() else value))

    def _count(self, value: str) -> None:
        if len(self.values) <= _MOST_LABELS:
            self.values[value] += 1

    @property
    def is_text(self) -> bool:
        return self.texts > self.not_finite and not (self.numbers or self.booleans or self.others)

    @property
    def is_number(self) -> bool:
        """NaN and infinity stand as text among the numbers."""
        has_some = self.numbers + self.booleans + self.not_finite > 0
        return has_some and self.texts == self.not_finite and not self.others

    @property
    def is_binary(self) -> bool:
        return self.is_number and set(self.values) <= {"0", "1"}


@dataclass(frozen=True, slots=True)
class RowFacts:
    """The shape that rows have, their columns and their number."""

    shape: str
    columns: list[str]
    count: int


def examine(lines: Iterable[str], part: str, shapes: Iterable[str], max_text_bytes: int) -> RowFacts:
    """The facts of rows, one JSON object per line; `shapes` are those that the job can use, the first preferred."""
    columns, count = _read(lines, part)
    allowed = list(shapes)
    fitting = [shape for shape in allowed if _FITS[shape](columns)]
    if not fitting:
        raise DatatypeMismatch(
            f"the columns of the {part} query do not fit",
            detail=f"They are: {', '.join(_described(column) for column in columns)}. Needed are:"
            f" {' or '.join(SHAPES[shape] for shape in allowed)}.",
        )
    # A document that no query asks for is only of use there.
    shape = "retrieval" if "retrieval" in fitting and columns[0].nulls else fitting[0]
    _check_values(columns, part, shape, count, max_text_bytes)
    if shape in _CHECKS:
        _CHECKS[shape](columns, part)
    return RowFacts(shape, [column.name for column in columns], count)


def _read(lines: Iterable[str], part: str) -> tuple[list[_Column], int]:
    columns: list[_Column] = []
    count = 0
    for pairs in _pairs(lines, part):
        if not columns:
            columns = [_Column(name) for name, _ in pairs]
        try:
            for column, (_, value) in zip(columns, pairs, strict=True):
                column.add(value)
        except (ValueError, OverflowError):
            raise _unreadable(part, count) from None
        count += 1
    if count == 0:
        raise InvalidArgument(
            f"the {part} query returns no rows", hint="Run it by itself: its rows are read with your rights."
        )
    return columns, count


def _pairs(lines: Iterable[str], part: str) -> Iterator[list[tuple[str, Any]]]:
    for count, line in enumerate(lines):
        try:
            pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
        except (ValueError, RecursionError):
            raise _unreadable(part, count) from None
        yield pairs


def _unreadable(part: str, count: int) -> InvalidArgument:
    return InvalidArgument(
        f"row {count + 1} of the {part} query has a value that cannot be used",
        detail="Of use are texts of Unicode, and numbers that a double precision can hold.",
    )


def _described(column: _Column) -> str:
    if column.is_text:
        kind = "text"
    elif column.is_number:
        kind = "boolean" if column.booleans else "number"
    elif not (column.texts or column.numbers or column.booleans or column.others):
        kind = "NULL"
    else:
        kind = "of another type"
    return f"{column.name} ({kind})"


def _all_texts(columns: list[_Column], number: int) -> bool:
    return len(columns) == number and all(column.is_text for column in columns)


def _has_number(columns: list[_Column]) -> bool:
    return len(columns) == 3 and _all_texts(columns[:2], 2) and columns[2].is_number


def _is_label(columns: list[_Column]) -> bool:
    if not _has_number(columns) or not columns[2].is_binary:
        return False
    return columns[2].name in ("label", "labels") or columns[2].booleans > 0


def _has_classes(columns: list[_Column]) -> bool:
    """Text and a class, whose names may be whole numbers."""
    return len(columns) == 2 and columns[0].is_text and (columns[1].is_text or _is_whole(columns[1]))


def _is_whole(column: _Column) -> bool:
    return column.is_number and column.is_integer and not column.not_finite


_FITS: dict[str, Callable[[list[_Column]], bool]] = {
    "pair_score": lambda columns: _has_number(columns) and not _is_label(columns) and columns[2].name not in _GRADES,
    "pair_label": _is_label,
    "pair": lambda columns: _all_texts(columns, 2),
    "triplet": lambda columns: _all_texts(columns, 3),
    "text_label": _has_classes,
    "text": lambda columns: _all_texts(columns, 1),
    "retrieval": lambda columns: _all_texts(columns, 2) or _has_number(columns),
    SQL_SHAPE: lambda columns: _all_texts(columns, 2) or _all_texts(columns, 3),
}


def _check_values(columns: list[_Column], part: str, shape: str, count: int, max_text_bytes: int) -> None:
    fewest = FEWEST_TRAINING_ROWS if part == "train" else FEWEST_ROWS
    if count < fewest:
        raise InvalidArgument(f"the {part} query returns {count} rows, at least {fewest} are needed")
    for place, column in enumerate(columns):
        may_be_null = shape == "retrieval" and place != 1
        if column.nulls and not may_be_null:
            raise InvalidArgument(
                f'{column.nulls} of {count} rows of the {part} query have NULL in column "{column.name}"',
                hint=f'SELECT ... WHERE "{column.name}" IS NOT NULL',
            )
        if column.is_text and column.blanks:
            raise InvalidArgument(
                f'{column.blanks} of {count} rows of the {part} query have an empty text in column "{column.name}"',
                hint=f"SELECT ... WHERE btrim(\"{column.name}\") <> ''",
            )
        if not column.is_text and column.not_finite:
            raise InvalidArgument(
                f"{column.not_finite} of {count} rows of the {part} query have NaN or infinity in column"
                f' "{column.name}"'
            )
        if column.longest_bytes > max_text_bytes:
            raise LimitExceeded(
                f'column "{column.name}" of the {part} query has a text of {column.longest_bytes} bytes',
                detail=f"At most {max_text_bytes} are accepted.",
                hint=f'Cut it in the query: SELECT left("{column.name}", 10000)',
            )


def _check_scores(columns: list[_Column], part: str) -> None:
    score = columns[-1]
    if len(score.values) < 2:
        raise InvalidArgument(f'all rows of the {part} query have the same value in column "{score.name}"')
    if part == "train" and not (-1 <= score.lowest and score.highest <= 1):
        raise InvalidArgument(
            f'column "{score.name}" of the {part} query goes from {score.lowest:g} to {score.highest:g}',
            detail="A score is the cosine that two texts are to have: -1 to 1.",
            hint=f'SELECT ..., "{score.name}" / {max(abs(score.lowest), abs(score.highest)):.1f} AS score FROM ...',
        )


def _check_binary(columns: list[_Column], part: str) -> None:
    if len(columns[-1].values) < 2:
        raise InvalidArgument(f'all rows of the {part} query have the same value in column "{columns[-1].name}"')


def _check_classes(columns: list[_Column], part: str) -> None:
    labels = columns[1].values
    if len(labels) > _MOST_LABELS:
        raise LimitExceeded(f"the {part} query has more than {_MOST_LABELS} labels")
    if part != "train":
        return
    if len(labels) < 2:
        raise InvalidArgument(f"all rows of the {part} query have the same label")
    single = sum(number < 2 for number in labels.values())
    if single:
        # Not which: a label is a text of the user.
        raise InvalidArgument(
            f"{single} of {len(labels)} labels of the {part} query have a single example",
            detail="A label needs one to learn from and one to measure with.",
            hint=f'SELECT "{columns[1].name}" FROM (...) AS q GROUP BY 1 HAVING count(*) = 1',
        )


def _check_grades(columns: list[_Column], part: str) -> None:
    if len(columns) == 3 and columns[2].lowest < 0:
        raise InvalidArgument(f'column "{columns[2].name}" of the {part} query has grades below 0')


_CHECKS: dict[str, Callable[[list[_Column], str], None]] = {
    "pair_score": _check_scores,
    "pair_label": _check_binary,
    "text_label": _check_classes,
    "retrieval": _check_grades,
}
