"""Whether SQL that a model has written does nothing but read what its caller may read.

The server itself analyses the text, and what it has understood is compared with what is allowed: kinds of nodes,
functions and operators wherever they stand, types, relations, and what is evaluated when those are read. Then it is
planned where nothing can be written. All of this under the search path of the caller, so never inside own_settings().
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from pgml_tune.db import Failure, Session
from pgml_tune.db.bounds import Bounds
from pgml_tune.errors import NotReady, ReadOnlyTransaction
from pgml_tune.service.query_tree import TreeError, name, parse
from pgml_tune.service.sql_parts import find_parts, written_query
from pgml_tune.service.sql_rules import Refusal, Rules
from pgml_tune.settings import Limits
from pgml_tune.store import sql_check as store

MAX_SQL_BYTES = 65536
HIDDEN = "it names a table or column that does not exist for you"
_MAX_TREE_BYTES = 1 << 20
_UNKNOWN = "42P01"
_HIDDEN_STATES = frozenset((_UNKNOWN, "42703", "42501", "3F000"))
_OF_TEMPORARY_TABLES = "42P16"
_RAISED = frozenset(("42501", "P0001"))
_REFUSED, _TOO_LARGE, _SYNTAX = "42501", "54000", "42601"
_BLANKS = " \t\r\n\f\v;"
_WORD = re.compile(r'"(?:[^"]|"")*"|[^\W\d][\w$]*')
_ESCAPED_NAME = re.compile(r'u&"', re.IGNORECASE)
_LEAST_SECONDS = 0.05
_MOST_ARGUMENTS = 50  # of a function, well below what the server takes


@dataclass(frozen=True, slots=True)
class Read:
    """A relation that a query reads, and which of its columns."""

    schema: str
    name: str
    columns: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"schema": self.schema, "name": self.name, "columns": list(self.columns)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a text that should be one SELECT; `error` is None if the caller may run it."""

    sql: str  # without what may end it
    error: str | None = None
    sqlstate: str | None = None
    cost: float | None = None
    is_ordered: bool = False
    columns: tuple[str, ...] = ()
    relations: tuple[Read, ...] = ()

    @property
    def is_valid(self) -> bool:
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        return {
            "error": self.error,
            "sqlstate": self.sqlstate,
            "cost": self.cost,
            "is_ordered": self.is_ordered,
            "columns": list(self.columns),
            "relations": [read.to_json() for read in self.relations],
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and the first rows of a query that passes, each a JSON array."""

    verdict: Verdict
    lines: tuple[str, ...] = ()
    is_cut: bool = False

    def to_json_text(self) -> str:
        # The rows as they are: Python's numbers are neither as long nor as exact as the server's.
        head = json.dumps(self.verdict.to_json() | {"is_cut": self.is_cut}, ensure_ascii=False)
        return f'{head[:-1]}, "rows": [{", ".join(self.lines)}]}}'


class _Budget:
    """The time and memory that are left for one text."""

    def __init__(self, limits: Limits) -> None:
        self._end = time.monotonic() + limits.sql_seconds
        self._memory_bytes = limits.sql_memory_bytes

    def bounds(self) -> Bounds:
        return Bounds(max(_LEAST_SECONDS, self._end - time.monotonic()), self._memory_bytes)


def check(db: Session, sql: str, limits: Limits) -> Verdict:
    """The verdict on a text; raises only what is not the text's fault."""
    return _check(db, sql, limits, _Budget(limits))


def try_sql(db: Session, sql: str, max_rows: int | None, limits: Limits) -> Outcome:
    """The verdict on a text and, if it passes, its first rows."""
    budget = _Budget(limits)
    verdict = _check(db, sql, limits, budget)
    if not verdict.is_valid:
        return Outcome(verdict)
    most = limits.sql_max_rows if max_rows is None else max(0, min(max_rows, limits.sql_max_rows))
    rows = store.run(db, budget.bounds(), _as_lines(verdict), most, limits.sql_max_bytes)
    if isinstance(rows, Failure):
        return Outcome(_refuse(verdict.sql, rows, limits))
    return Outcome(verdict, tuple(rows.lines), rows.is_cut)


def _check(db: Session, sql: str, limits: Limits, budget: _Budget) -> Verdict:
    _require_writable(db)
    text = sql.strip(_BLANKS)
    if len(text.encode()) > MAX_SQL_BYTES:
        return Verdict("", f"it has more than {MAX_SQL_BYTES} bytes", _TOO_LARGE)
    if not text:
        return Verdict("", "it is empty", _SYNTAX)
    failure = store.single_query_error(db, text)
    if failure is not None:
        return _refuse(text, failure, limits)
    rules = Rules(db, limits)
    if rules.names_code(text):
        return Verdict(text, "it names a type, or a table with one, whose checks call functions", _REFUSED)
    analysed = _analyse(db, text, limits, budget)
    if isinstance(analysed, Verdict):
        return analysed
    try:
        verdict = _examine(rules, text, *analysed)
    except Refusal as refusal:
        return Verdict(text, refusal.reason or HIDDEN, _REFUSED if refusal.reason else _UNKNOWN)
    except TreeError:
        return Verdict(text, "it is of a form that is not known", _REFUSED)
    cost = store.plan_cost(db, budget.bounds(), text)
    if isinstance(cost, Failure):
        return _refuse(text, cost, limits)
    if cost > limits.sql_max_cost:
        return Verdict(text, f"it would cost {cost:.0f}, more than {limits.sql_max_cost}", _TOO_LARGE, cost)
    return replace(verdict, cost=cost)


def _analyse(db: Session, text: str, limits: Limits, budget: _Budget) -> tuple[int, str] | Verdict:
    analysed = store.analyse(db, budget.bounds(), text, False, _MAX_TREE_BYTES)
    if isinstance(analysed, Failure) and analysed.sqlstate == _OF_TEMPORARY_TABLES:
        # Only a temporary view may read them.
        analysed = store.analyse(db, budget.bounds(), text, True, _MAX_TREE_BYTES)
    if isinstance(analysed, Failure):
        if analysed.sqlstate in _RAISED and store.parse_error(db, text) is None:
            raise NotReady(
                "SQL cannot be checked here",
                detail=f"The server makes no view of a query that it understands: {analysed.message}.",
                hint="Roles with grant_usage() may; an event trigger must let views in schema pgml_tune_scratch pass.",
            )
        if analysed.sqlstate not in _HIDDEN_STATES and _hides(db, text):
            return Verdict(text, HIDDEN, _UNKNOWN)
        return _refuse(text, analysed, limits)
    view_id, tree = analysed
    if tree is None:
        return Verdict(text, "its analysis is too long", _TOO_LARGE)
    return view_id, tree


def _examine(rules: Rules, sql: str, view_id: int, tree_text: str) -> Verdict:
    tree = parse(tree_text)
    parts = find_parts(tree, view_id)
    relations = rules.check(tree, parts)
    query = written_query(tree)
    reads = []
    for number, columns in parts.reads.items():
        relation = relations[number]
        names = (one for place, one in relation.columns.items() if place in columns or 0 in columns)
        reads.append(Read(relation.schema_name, relation.name, tuple(sorted(names))))
    return Verdict(
        sql,
        is_ordered=not query.is_empty("sortClause"),
        columns=tuple(name(one["resname"]) for one in query.items("targetList") if one["resjunk"] == "false"),
        relations=tuple(sorted(reads, key=lambda read: (read.schema, read.name))),
    )


def _as_lines(verdict: Verdict) -> str:
    """A query for the rows of a query, each a JSON array in a text; columns of equal names are told apart."""
    names = [f"c{number}" for number in range(len(verdict.columns))]
    parts = [names[begin : begin + _MOST_ARGUMENTS] for begin in range(0, len(names), _MOST_ARGUMENTS)]
    arrays = [f"pg_catalog.jsonb_build_array({', '.join(f'r.{one}' for one in part)})" for part in parts or [[]]]
    alias = f"r ({', '.join(names)})" if names else "r"
    values = " OPERATOR(pg_catalog.||) ".join(arrays)
    return f"SELECT ({values})::pg_catalog.text FROM (\n{verdict.sql}\n) AS {alias}"


def _require_writable(db: Session) -> None:
    transaction = db.transaction()
    if transaction.is_standby or transaction.is_read_only:
        raise ReadOnlyTransaction(
            "SQL cannot be checked in a read-only transaction",
            detail="The server analyses it as the query of a view, which is rolled back.",
            hint="Ask in a transaction that may write, on the primary.",
        )


def _refuse(sql: str, failure: Failure, limits: Limits) -> Verdict:
    if failure.sqlstate in _HIDDEN_STATES:
        return Verdict(sql, HIDDEN, _UNKNOWN)
    if failure.sqlstate == "57014":
        return Verdict(sql, f"it takes more than {limits.sql_seconds} s", failure.sqlstate)
    if failure.sqlstate == "53200":
        return Verdict(sql, f"it takes more than {limits.sql_memory_bytes} bytes of memory", failure.sqlstate)
    return Verdict(sql, failure.message, failure.sqlstate)


def _hides(db: Session, text: str) -> bool:
    """Whether an error could tell of something that the caller may not read: what it is, or that it exists."""
    words: set[str] = set()
    for word in _WORD.findall(text):
        words.update((word[1:-1].replace('""', '"'),) if word.startswith('"') else (word.lower(), word))
    return bool(_ESCAPED_NAME.search(text)) or store.hides_one(db, sorted(words))
