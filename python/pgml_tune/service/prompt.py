"""The prompt that a model reads to write SQL, and what becomes of its output: one pure function for training and use.

A question "what is the area of texas" about a schema becomes, in full,

    what is the area of <v0> | <v0> state.state_name river.traverse | state: state_name text, area double precision

A placeholder stands for a value that the question names, so that a small model need not have seen each;
restore() puts the values back into the SQL that the model has written with placeholders.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from pgml_tune.errors import InvalidArgument, LimitExceeded, NotSupported
from pgml_tune.service.schema import Schema, Table

VERSION = 1  # raised when the same question and schema would give another prompt
SCHEMAS = ("full", "linked", "none")
VALUES = ("placeholder", "hint", "none")
PLACEHOLDERS = tuple(f"<v{number}>" for number in range(10))  # each one token of a model trained from scratch

_PLACEHOLDER = re.compile(r"<v(\d)>")
_NUMBER = re.compile(r"\d+(?:\.\d+)?\Z", re.ASCII)
# What a question may name though no row has it: a number, a day, and whatever stands in quotes.
_SAID = re.compile(
    r"""(?<![\w.])(?:\d{4}-\d\d-\d\d|\d+(?:\.\d+)?)(?![\w]|\.\d)|(?<!\w)(?:"[^"]+"|'[^']+'(?!\w))|“[^”]+”|「[^」]+」""",
    re.ASCII,
)
_QUOTES = "\"'“”「」"
_SPACES = re.compile(r"\s+")
# A text in SQL, or a placeholder outside of one.
_PIECE = re.compile(r"'(?:[^']|'')*'|<v\d>")
# How much is said of the tables, from all to the least.
_DETAILS = (
    frozenset({"types", "comments", "values"}),
    frozenset({"types", "comments"}),
    frozenset({"types"}),
    frozenset[str](),
)


class Match(Protocol):
    """A value that a question names from `begin` to `end`, and the columns (table, column) that have it."""

    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def value(self) -> str: ...
    @property
    def columns(self) -> Sequence[tuple[str, str]]: ...


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How a model's prompts are written; it is kept with the model, in ArtifactConfig.generation."""

    version: int = VERSION
    schema: str = (
        "full"  # full, linked: what is nearest to the question; none: the model has learnt one schema by heart
    )
    values: str = "hint"  # placeholder: the model writes <v0> for a value; hint: it is told which columns have it; none
    lower: bool = False  # the question in small letters
    columns: tuple[str, ...] | None = None  # "table.column" whose values are looked for in questions; None: all

    def __post_init__(self) -> None:
        if self.schema not in SCHEMAS or self.values not in VALUES:
            raise InvalidArgument("there is no such format of prompts")

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> PromptFormat:
        """The format of a model; of one that was imported without any the default."""
        if found.get("version", VERSION) != VERSION:
            raise NotSupported(
                f"the model reads prompts of format {found['version']}, this version writes those of {VERSION}"
            )
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in found.items() if name in known}
        columns = values.get("columns")
        return cls(**{**values, "columns": None if columns is None else tuple(columns)})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def links(self, table: str, column: str) -> bool:
        """Whether values of this column are looked for in questions."""
        return self.columns is None or f"{table}.{column}" in self.columns


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model reads, and the values that its placeholders stand for."""

    text: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Said:
    """A match without columns: no row has this value, but a statement may compare with it."""

    begin: int
    end: int
    value: str
    columns: tuple[tuple[str, str], ...] = ()


def render(
    question: str,
    schema: Schema,
    matches: Sequence[Match],
    form: PromptFormat,
    fits: Callable[[str], bool] = lambda prompt: True,
) -> Prompt:
    """The prompt for a question; of the schema as much as fits, tables at the end go first."""
    asked, hints, values = _asked(question, matches, form)
    head = " | ".join(part for part in (asked, " ; ".join(hints)) if part)
    if form.schema == "none":
        if not fits(head):
            raise _too_long()
        return Prompt(head, values)
    named = {column for match in matches for column in match.columns}
    for written in _schemas(schema, named):
        text = f"{head} | {written}" if written else head
        if fits(text):
            return Prompt(text, values)
    raise _too_long()


def restore(output: str, prompt: Prompt) -> str:
    """The SQL that a model means: its output with values for placeholders; '' if it has one that stands for nothing."""
    if any(int(number) >= len(prompt.values) for number in _PLACEHOLDER.findall(output)):
        return ""

    def put(piece: re.Match[str]) -> str:
        if piece[0].startswith("'"):
            return _PLACEHOLDER.sub(lambda place: quoted(prompt.values[int(place[1])]), piece[0])
        value = prompt.values[int(piece[0][2])]
        return value if is_number(value) else f"'{quoted(value)}'"

    return _PIECE.sub(put, output)


def is_number(value: str) -> bool:
    """Whether a value stands in SQL without quotes."""
    return _NUMBER.match(value) is not None


def quoted(value: str) -> str:
    """A value as it stands between the quotes of a text in SQL."""
    return value.replace("'", "''")


def _asked(question: str, matches: Sequence[Match], form: PromptFormat) -> tuple[str, list[str], tuple[str, ...]]:
    """The question as the model reads it, a hint for each value that it names, and the values of placeholders."""
    if form.values == "none":
        return _plain(question, form), [], ()
    if form.values == "hint":
        hints = {match.value: _hint(match.value, match, form) for match in matches}
        return _plain(question, form), list(hints.values()), ()
    # What a question has of these signs by itself must not be taken for a placeholder.
    pieces: list[str] = []
    found: dict[str, str] = {}
    at = 0
    for match in _in_order(question, matches):
        if match.value not in found:
            if len(found) == len(PLACEHOLDERS):
                continue
            found[match.value] = _hint(PLACEHOLDERS[len(found)], match, form)
        sign = PLACEHOLDERS[list(found).index(match.value)]
        pieces += [_plain(question[at : match.begin], form), sign]
        at = match.end
    pieces.append(_plain(question[at:], form))
    return " ".join(piece for piece in pieces if piece), list(found.values()), tuple(found)


def _plain(text: str, form: PromptFormat) -> str:
    text = unicodedata.normalize("NFKC", text)
    text = text.lower() if form.lower else text
    return _SPACES.sub(" ", _PLACEHOLDER.sub(" ", text)).strip()


def _hint(sign: str, match: Match, form: PromptFormat) -> str:
    """What is told of a value: where it stands; to a model that is shown no tables the columns alone."""
    has_tables = form.schema != "none"
    columns = sorted({f"{table}.{column}" if has_tables else column for table, column in match.columns})
    if columns:
        return f"{sign} {' '.join(columns)}"
    return f"{sign} {'number' if is_number(match.value) else 'text'}"


def _in_order(question: str, matches: Sequence[Match]) -> Iterator[Match]:
    """Matches by their place, with what else the question says to compare with."""
    taken = [(match.begin, match.end) for match in matches]
    said = [
        _Said(found.start(), found.end(), found[0].strip(_QUOTES) or found[0])
        for found in _SAID.finditer(question)
        if not any(begin < found.end() and found.start() < end for begin, end in taken)
    ]
    yield from sorted([*matches, *said], key=lambda match: match.begin)


def _schemas(schema: Schema, named: set[tuple[str, str]]) -> Iterator[str]:
    """The schema with less and less said of it; then without columns that join nothing and are not named; then cut."""
    for detail in _DETAILS:
        yield " | ".join(_table(table, detail) for table in schema.tables)
    joins = {(table.name, column) for table in schema.tables for key in table.foreign_keys for column in key.columns}
    joins |= {
        (key.table, column) for table in schema.tables for key in table.foreign_keys for column in key.target_columns
    }
    lean = [_table(table, frozenset(), joins | named) for table in schema.tables]
    for count in range(len(lean), 0, -1):
        yield " | ".join(lean[:count])


def _table(table: Table, detail: frozenset[str], only: set[tuple[str, str]] | None = None) -> str:
    columns = []
    for column in table.columns:
        if only is not None and not column.is_key and (table.name, column.name) not in only:
            continue
        words = [column.name + ("*" if column.is_key else "")]
        if "types" in detail:
            words.append(column.type)
        if "comments" in detail and column.comment:
            words.append(f"({_one_line(column.comment)})")
        if "values" in detail and column.values:
            words.append(f"[{', '.join(map(_one_line, column.values))}]")
        columns.append(" ".join(words))
    keys = [f"{', '.join(key.columns)} -> {key.table}({', '.join(key.target_columns)})" for key in table.foreign_keys]
    name = f"{table.name} ({_one_line(table.comment)})" if "comments" in detail and table.comment else table.name
    return f"{name}: {', '.join(columns)}" + "".join(f" ; {key}" for key in keys)


def _one_line(text: str) -> str:
    """A comment or a value without what separates parts of a prompt."""
    return _SPACES.sub(" ", _PLACEHOLDER.sub(" ", text).replace("|", " ")).strip()


def _too_long() -> LimitExceeded:
    return LimitExceeded("the question is longer than the model reads", hint="Ask in fewer words.")
