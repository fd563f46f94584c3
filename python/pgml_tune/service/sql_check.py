"""Whether SQL that a model has written does nothing but read what its caller may read.

The server itself analyses the text, and what it has understood is compared with what is allowed: kinds of nodes,
functions and operators wherever they stand, types, relations, and what is evaluated when those are read. Then it is
planned where nothing can be written. All of this under the search path of the caller, so never inside own_settings().
"""

from __future__ import annotations

import json
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from pgml_tune.db import Failure, Session
from pgml_tune.db.bounds import Bounds
from pgml_tune.errors import NotReady, NotSupported, ObjectNotFound, PermissionDenied, ReadOnlyTransaction
from pgml_tune.service.query_tree import TreeError, name, parse
from pgml_tune.service.sql_parts import find_parts, written_query
from pgml_tune.service.sql_rules import Refusal, Rules
from pgml_tune.settings import Limits
from pgml_tune.store import sql_check as store
from pgml_tune.store.sql_check import Analysis

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
    return _try(db, sql, limits, None).verdict


def try_sql(db: Session, sql: str, max_rows: int | None, limits: Limits) -> Outcome:
    """The verdict on a text and, if it passes, its first rows."""
    most = limits.sql_max_rows
    return _try(db, sql, limits, most if max_rows is None else max(0, min(max_rows, most)))


def try_sql_as(
    db: Session, role: str, search_path: str, sql: str, max_rows: int | None, limits: Limits
) -> Outcome:
    """What `try_sql` gives to another role under a search path; for superusers, who could act as anybody anyway."""
    if not store.is_superuser(db):
        raise PermissionDenied("only a superuser may run SQL as another role", hint="SELECT pgml_tune._try_sql('...')")
    role_id = store.role_id(db, role)
    if role_id is None:
        raise ObjectNotFound(f'role "{role}" does not exist', hint="SELECT rolname FROM pg_roles")
    with db.acting_as(role_id):
        store.take_search_path(db, search_path)
        return try_sql(db, sql, max_rows, limits)


def _try(db: Session, sql: str, limits: Limits, max_rows: int | None) -> Outcome:
    """The verdict, and where that many rows are wanted the rows."""
    _require_writable(db)
    budget = _Budget(limits)
    text = sql.strip(_BLANKS)
    if len(text.encode()) > MAX_SQL_BYTES:
        return Outcome(Verdict("", f"it has more than {MAX_SQL_BYTES} bytes", _TOO_LARGE))
    if not text:
        return Outcome(Verdict("", "it is empty", _SYNTAX))
    rules = Rules(db, limits)
    # Before anything is made of the text: to find that it has two statements the server analyses both.
    if rules.names_code(text):
        return Outcome(Verdict(text, "it names a type, or a table with one, whose checks call functions", _REFUSED))
    with db.rolled_back():
        store.wait_for_nobody(db)
        with _restricted(db):
            failure = store.single_query_error(db, text)
        if failure is not None:
            return Outcome(_refuse(db, text, failure, limits))
        return _judge_and_run(db, text, limits, budget, rules, max_rows)


def _judge_and_run(
    db: Session, text: str, limits: Limits, budget: _Budget, rules: Rules, max_rows: int | None
) -> Outcome:
    analysis = _analyse(db, text, limits, budget)
    if isinstance(analysis, Verdict):
        return Outcome(analysis)
    try:
        verdict = _examine(rules, text, analysis)
    except Refusal as refusal:
        if refusal.reason is None or (refusal.may_tell and _hides(db, text)):
            return Outcome(Verdict(text, HIDDEN, _UNKNOWN))
        return Outcome(Verdict(text, refusal.reason, _REFUSED))
    except TreeError:
        return Outcome(Verdict(text, "it is of a form that is not known", _REFUSED))
    with _restricted(db):
        cost = store.plan_cost(db, budget.bounds(), analysis.view_name)
    if isinstance(cost, Failure):
        return Outcome(_refuse(db, text, cost, limits))
    verdict = replace(verdict, cost=cost)
    if cost > limits.sql_max_cost:
        error = f"it would cost {cost:.0f}, more than {limits.sql_max_cost}"
        return Outcome(replace(verdict, error=error, sqlstate=_TOO_LARGE))
    if max_rows is None:
        return Outcome(verdict)
    with _restricted(db):
        rows = store.run(db, budget.bounds(), analysis.view_name, max_rows, limits.sql_max_bytes)
    if isinstance(rows, Failure):
        return Outcome(_refuse(db, text, rows, limits))
    return Outcome(verdict, tuple(rows.lines), rows.is_cut)


def _restricted(db: Session) -> AbstractContextManager[None]:
    """The role of the caller, without a way to another one: for what the rules might have missed."""
    return db.acting_as(db.role())


def _analyse(db: Session, text: str, limits: Limits, budget: _Budget) -> Analysis | Verdict:
    with _restricted(db):
        analysis = store.analyse(db, budget.bounds(), text, False, _MAX_TREE_BYTES)
    if isinstance(analysis, Failure) and analysis.sqlstate == _OF_TEMPORARY_TABLES:
        # Only a temporary view may read them.
        analysis = store.analyse(db, budget.bounds(), text, True, _MAX_TREE_BYTES)
    if isinstance(analysis, Failure):
        if analysis.sqlstate in _RAISED:
            failure = store.parse_error(db, text)
            if failure is None:
                raise NotReady(
                    "SQL cannot be checked here",
                    detail=f"The server makes no view of a query that it understands: {analysis.message}.",
                    hint="Roles with grant_usage() may; event triggers must let views in pgml_tune_scratch pass.",
                )
            analysis = failure
        return _refuse(db, text, analysis, limits)
    if analysis.tree is None:
        return Verdict(text, "its analysis is too long", _TOO_LARGE)
    return analysis


def _examine(rules: Rules, sql: str, analysis: Analysis) -> Verdict:
    tree = parse(analysis.tree or "")
    parts = find_parts(tree, analysis.view_id)
    relations = rules.check(parts)
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


def _require_writable(db: Session) -> None:
    transaction = db.transaction()
    if transaction.is_standby or transaction.is_read_only:
        raise ReadOnlyTransaction(
            "SQL cannot be checked in a read-only transaction",
            detail="The server analyses it as the query of a view, which is rolled back.",
            hint="Ask in a transaction that may write, on the primary.",
        )
    if transaction.keeps_snapshot:
        raise NotSupported(
            "SQL cannot be checked in a REPEATABLE READ or SERIALIZABLE transaction",
            detail="It would be judged by the definitions of views as they were, and run by those of now.",
            hint="BEGIN ISOLATION LEVEL READ COMMITTED",
        )


def _refuse(db: Session, sql: str, failure: Failure, limits: Limits) -> Verdict:
    if failure.sqlstate in _HIDDEN_STATES or (failure.sqlstate != _SYNTAX and _hides(db, sql)):
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
