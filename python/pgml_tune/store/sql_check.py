"""Statements on SQL that a model has written, run under the search path of whoever asks.

The text itself is SQL, not a value; it is proved to be one SELECT before the server analyses it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pgml_tune.db import Database, Failure, Session
from pgml_tune.db.bounds import Bounds

# Never made: the cursor is refused, in every language with a message that holds the command if there is only this one.
_PROBE = "CREATE TEMPORARY VIEW pg_temp.x AS "
_COMMAND = "CREATE VIEW"
_NOT_FOR_A_CURSOR = "42P11"
_ANALYSE = "SELECT a.view_id::pg_catalog.int8 AS view_id, a.tree FROM pgml_tune._analyse_sql($1::pg_catalog.text) AS a"
_PLAN = "SELECT pgml_tune._plan_sql($1::pg_catalog.text) AS cost"
_RUN = """
SELECT r.lines, r.is_cut FROM pgml_tune._run_sql($1::pg_catalog.text, $2::pg_catalog.int4, $3::pg_catalog.int8) AS r
"""
_FUNCTIONS = """
SELECT f.function_id::pg_catalog.int8 AS function_id, f.operator_id::pg_catalog.int8 AS operator_id, f.name,
       f.signature, f.schema_name, f.volatility, f.kind, f.is_builtin, f.extension, f.argument_types
FROM pgml_tune._sql_functions($1::pg_catalog.oid[], $2::pg_catalog.oid[]) AS f
"""
_RELATIONS = """
SELECT r.relation_id::pg_catalog.int8 AS relation_id, r.schema_name, r.name, r.kind, r.is_own, r.columns, r.tree,
       r.policies
FROM pgml_tune._sql_relations($1::pg_catalog.oid[]) AS r
"""


@dataclass(frozen=True, slots=True)
class Function:
    """What a function is, or that of an operator."""

    function_id: int
    operator_id: int | None
    name: str
    signature: str
    schema_name: str
    volatility: str  # i | s | v
    kind: str  # f | a | w | p
    is_builtin: bool
    extension: str | None  # of a superuser, which it belongs to
    argument_types: list[str]


@dataclass(frozen=True, slots=True)
class Relation:
    """What a relation is, and what else is evaluated when it is read."""

    relation_id: int
    schema_name: str
    name: str
    kind: str
    is_own: bool  # the server's or ours
    columns: dict[int, str]
    tree: str | None
    policies: list[str] | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The first rows of a query, as lines of JSON."""

    lines: list[str]
    is_cut: bool


def single_query_error(db: Session, sql: str) -> Failure | None:
    """What is wrong with a text that is not one query, by its grammar alone."""
    failure = db.why_no_cursor(_PROBE + sql)
    if failure is not None and failure.sqlstate == _NOT_FOR_A_CURSOR:
        return None if _COMMAND in failure.message else Failure("42601", "it has several statements")
    return failure


def analyse(db: Session, bounds: Bounds, sql: str) -> tuple[int, str] | Failure:
    """The view that the server has made of a query, and its tree."""
    rows = db.try_fetch(bounds, _ANALYSE, sql)
    return rows if isinstance(rows, Failure) else (rows[0]["view_id"], rows[0]["tree"])


def plan_cost(db: Session, bounds: Bounds, sql: str) -> float | Failure:
    """What the planner thinks a query costs."""
    rows = db.try_fetch(bounds, _PLAN, sql)
    return rows if isinstance(rows, Failure) else float(rows[0]["cost"])


def run(db: Session, bounds: Bounds, sql: str, max_rows: int, max_bytes: int) -> Rows | Failure:
    """The first rows of a query that returns lines."""
    rows = db.try_fetch(bounds, _RUN, sql, max_rows, max_bytes)
    return rows if isinstance(rows, Failure) else Rows(rows[0]["lines"], rows[0]["is_cut"])


def functions(db: Database, function_ids: list[int], operator_ids: list[int]) -> list[Function]:
    """What these functions are, and those of operators."""
    return [Function(**row) for row in db.fetch(_FUNCTIONS, function_ids, operator_ids)]


def relations(db: Database, relation_ids: list[int]) -> list[Relation]:
    """What these relations are."""
    found = []
    for row in db.fetch(_RELATIONS, relation_ids):
        columns = {int(number): name for number, name in json.loads(row["columns"] or "{}").items()}
        found.append(Relation(**(row | {"columns": columns})))
    return found
