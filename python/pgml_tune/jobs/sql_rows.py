"""The rows that a model learns to write SQL from, each under the search path that its tables are found by."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs.caller import Caller, Outcome
from pgml_tune.jobs.job import Job, Rows
from pgml_tune.jobs.lexicon import Example, learn_lexicon
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.sql_targets import SqlTarget
from pgml_tune.service.prompt import Match, Prompt, PromptFormat, render
from pgml_tune.service.schema import Schema
from pgml_tune.service.training_rows import FEWEST_TRAINING_ROWS
from pgml_tune.service.value_links import ValueIndex, index, link
from pgml_tune.store.job_schema import SCHEMA, VALUES

DEFAULT_SHARE = 0.1  # held out to measure with
_LOGGED = 20  # rows that are dropped are told one by one up to here
_RARELY = 0.005  # of all texts in SQL: columns with fewer are not looked through for values


@dataclass(frozen=True, slots=True)
class Place:
    """What the caller may read under a search path."""

    schema: Schema
    values: tuple[tuple[str, str, str], ...]  # (table, column, value)

    def index(self, form: PromptFormat) -> ValueIndex:
        """The values that questions are searched for."""
        return index(row for row in self.values if form.links(row[0], row[1]))


@dataclass(frozen=True, slots=True)
class SqlRow:
    """A question with its SQL, which ran."""

    question: str
    sql: str
    search_path: str
    target: SqlTarget | None  # None: it could not be understood, and is learnt as it is
    outcome: Outcome

    @property
    def text(self) -> str:
        return self.sql if self.target is None else self.target.text


@dataclass(frozen=True, slots=True)
class SqlRows:
    """What to learn from, and what to measure with."""

    train: list[SqlRow]
    evaluation: list[SqlRow]
    part: str  # of the job's rows that are measured with: "eval", or "train" where a share of it is held out
    dropped: int
    places: Mapping[str, Place]

    @property
    def is_held_out(self) -> bool:
        return self.part == "train" and bool(self.evaluation)


def read_places(job: Job) -> dict[str, Place]:
    """What the caller could read when the job was queued, by search path."""
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path, name, comment, columns, keys in job.rows[SCHEMA].read():
        document = {"name": name, "comment": comment, "columns": json.loads(columns), "foreign_keys": json.loads(keys)}
        tables[path].append(document)
    values: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for path, table, column, value in job.rows[VALUES].read():
        values[path].append((table, column, value))
    return {path: Place(Schema.from_json(tables[path]), tuple(values[path])) for path in tables}


def read_rows(job: Job, caller: Caller, report: Reporter) -> SqlRows:
    """The rows of a job whose SQL runs; where it has none to measure with, a share of the others is held out."""
    places = read_places(job)
    if not places:
        raise InvalidArgument(
            "the caller can read no table in the search paths of the rows",
            hint="GRANT him SELECT, or SET search_path before the call.",
        )
    train, dropped = running_rows(job.rows["train"], "train", places, caller, report)
    if len(train) < FEWEST_TRAINING_ROWS:
        raise InvalidArgument(
            f"of {job.rows['train'].count:,} rows of the train query the SQL of {len(train):,} runs,"
            f" at least {FEWEST_TRAINING_ROWS} are needed",
            detail="The SQL of each is run with the rights of the caller, under his search path or that of the row.",
            hint=f"SELECT job_log({job.job_id})",
        )
    given = job.rows.get("eval")
    share = job.parameters["eval_share"]
    if share is None:
        share = 0.0 if given is not None else DEFAULT_SHARE
    train, held_out = split(train, share, job.parameters["seed"])
    if given is None:
        return SqlRows(train, held_out, "train", dropped, places)
    evaluation, more = running_rows(given, "eval", places, caller, report)
    return SqlRows(train, evaluation, "eval", dropped + more, places)


def running_rows(
    rows: Rows, part: str, places: Mapping[str, Place], caller: Caller, report: Reporter
) -> tuple[list[SqlRow], int]:
    """The rows whose SQL runs as the caller, and how many others there were."""
    kept: list[SqlRow] = []
    dropped = 0
    for number, row in enumerate(rows.read(), 1):
        report.progress("running the SQL of the rows", step=number, steps=rows.count)
        search_path = _search_path(row, places)
        found = _run(str(row[0]), str(row[1]), search_path, caller)
        if found.outcome.is_valid:
            kept.append(found)
        else:
            dropped += 1
            if dropped <= _LOGGED:
                report.log(f"row {number} of the {part} query is left out: {found.outcome.error}")
    if dropped > _LOGGED:
        report.log(f"and so are {dropped - _LOGGED:,} more")
    return kept, dropped


def _search_path(row: Sequence[Any], places: Mapping[str, Place]) -> str:
    if len(row) > 2:
        return str(row[2])
    if len(places) > 1:
        raise InvalidArgument(
            "the train and the eval query have search paths in one of them only",
            hint="Return (question, sql, search path) from both, or from neither.",
        )
    return next(iter(places))


def _run(question: str, sql: str, search_path: str, caller: Caller) -> SqlRow:
    """A row with what its SQL returns; its normal form is used where that returns the same."""
    sql = sql.strip().rstrip("; \t\r\n")
    outcome = caller.run(sql, search_path)
    target = SqlTarget.parse(sql) if outcome.is_valid else None
    if target is not None and target.text != sql:
        again = caller.run(target.text, search_path)
        if not again.is_valid or not (outcome.is_cut or outcome.matches(again)):
            target = None
    return SqlRow(question, sql, search_path, target, outcome)


def split(rows: Sequence[SqlRow], share: float, seed: int) -> tuple[list[SqlRow], list[SqlRow]]:
    """Rows to train on and rows held out; all those of a question, in any letters, are on one side."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        groups[" ".join(row.question.lower().split())].append(place)
    wanted = round(share * len(rows))
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held_out: set[int] = set()
    for name in names:
        if len(held_out) >= wanted:
            break
        held_out.update(groups[name])
    return (
        [row for place, row in enumerate(rows) if place not in held_out],
        [row for place, row in enumerate(rows) if place in held_out],
    )


def linked_columns(rows: Iterable[SqlRow], places: Mapping[str, Place]) -> tuple[str, ...]:
    """The columns whose values questions name, as their SQL compares with texts of them."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        for names in (row.target.compared() if row.target else {}).values():
            for name in names:
                counts[name] += 1
    fewest = _RARELY * sum(counts.values())
    names = {name for name, count in counts.items() if count >= fewest}
    return tuple(
        sorted(
            {
                f"{table.name}.{column.name}"
                for place in places.values()
                for table in place.schema.tables
                for column in table.columns
                if column.name in names
            }
        )
    )


def lexicon_of(rows: Sequence[SqlRow], places: Mapping[str, Place], form: PromptFormat) -> dict[str, str]:
    """What questions call values."""
    indexes = {path: place.index(form) for path, place in places.items()}
    return learn_lexicon(
        [
            Example(row.question, frozenset(row.target.compared()), indexes[row.search_path])
            for row in rows
            if row.target is not None and row.search_path in indexes
        ]
    )


@dataclass(frozen=True, slots=True)
class Lesson:
    """A row as a model reads and writes it."""

    row: SqlRow
    matches: tuple[Match, ...]
    prompt: Prompt
    output: str  # with placeholders where the prompt has them
    template: str  # with placeholders for all values that the question names
    named: tuple[str, ...]  # those values

    def with_output(self, text: str) -> Lesson:
        """The same question with another SQL that answers it."""
        target = SqlTarget.parse(text)
        if target is None:
            return self
        return replace(
            self,
            output=target.with_placeholders(self.prompt.values),
            template=target.with_placeholders(self.named),
        )


@dataclass(slots=True)
class Reader:
    """Turns rows into prompts, as text_to_sql() does with questions."""

    form: PromptFormat
    lexicon: Mapping[str, str]
    places: Mapping[str, Place]
    fits: Callable[[str], bool] = field(default=lambda prompt: True)
    _indexes: dict[str, ValueIndex] = field(default_factory=dict)

    def lesson(self, row: SqlRow) -> Lesson:
        """A row as the model reads and writes it."""
        place = self.places[row.search_path]
        if row.search_path not in self._indexes:
            self._indexes[row.search_path] = place.index(self.form)
        matches = tuple(link(row.question, self._indexes[row.search_path], self.lexicon))
        prompt = self.render(row, row.question, matches)
        named = render(row.question, place.schema, matches, replace(self.form, schema="none", values="placeholder"))
        if row.target is None:
            return Lesson(row, matches, prompt, row.sql, row.sql, ())
        output = row.target.with_placeholders(prompt.values)
        template = row.target.with_placeholders(named.values)
        return Lesson(row, matches, prompt, output, template, named.values)

    def render(self, row: SqlRow, question: str, matches: Sequence[Match]) -> Prompt:
        """The prompt for a row with its question in other words."""
        return render(question, self.places[row.search_path].schema, matches, self.form, self.fits)
