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
_ANALYSE = """
SELECT a.view_id::pg_catalog.int8 AS view_id, a.view_name, a.tree
FROM pgml_tune._analyse_sql($1::pg_catalog.text, $2::pg_catalog.bool, $3::pg_catalog.int4) AS a
"""
_PLAN = "SELECT pgml_tune._plan_sql($1::pg_catalog.text) AS cost"
_RUN = """
SELECT r.lines, r.is_cut FROM pgml_tune._run_sql($1::pg_catalog.text, $2::pg_catalog.int4, $3::pg_catalog.int8) AS r
"""
_FUNCTIONS = """
SELECT f.function_id::pg_catalog.int8 AS function_id, f.operator_id::pg_catalog.int8 AS operator_id, f.name,
       f.schema_name, f.volatility, f.kind, f.is_builtin, f.extension, f.argument_types
FROM pgml_tune._sql_functions($1::pg_catalog.oid[], $2::pg_catalog.oid[]) AS f
"""
_TYPE_CODE = """
SELECT c.type_id::pg_catalog.int8 AS type_id, c.tree, c.function_ids::pg_catalog.int8[] AS function_ids
FROM pgml_tune._type_code() AS c
"""
_TYPE_USERS = """
SELECT u.type_ids::pg_catalog.int8[] AS type_ids, u.names, pg_catalog.current_schemas(true)::pg_catalog.text[] AS path
FROM pgml_tune._type_users($1::pg_catalog.oid[]) AS u
"""
_HINDRANCE = "SELECT pgml_tune._ask_hindrance() AS hindrance"
_HOLD = "SELECT pgml_tune._hold_relations($1::pg_catalog.oid[])"
# Who holds a lock could change what was judged while it is waited for.
_WAIT_FOR_NOBODY = "SELECT pg_catalog.set_config('lock_timeout', '1ms', true)"
_HIDES_TYPE = "SELECT pgml_tune._hides_type($1::pg_catalog.oid[]) AS hides"
_HIDES = "SELECT pgml_tune._hides_one($1::pg_catalog.text[]) AS hides"
_SUPERUSER = "SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
_ROLE = """
SELECT r.oid::pg_catalog.int8 AS role_id FROM pg_catalog.pg_roles AS r
WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name
"""
_TAKE_PATH = "SELECT pg_catalog.set_config('search_path', $1::pg_catalog.text, true)"
_RELATIONS = """
SELECT r.relation_id::pg_catalog.int8 AS relation_id, r.schema_name, r.name, r.kind, r.is_own, r.may_read, r.columns,
       r.readable_columns, r.tree, r.policies, r.function_ids::pg_catalog.int8[] AS function_ids,
       r.has_foreign
FROM pgml_tune._sql_relations($1::pg_catalog.oid[]) AS r
"""


@dataclass(frozen=True, slots=True)
class Function:
    """What a function is, or that of an operator."""

    function_id: int
    operator_id: int | None
    name: str
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
    may_read: bool  # all of it
    columns: dict[int, str]
    readable_columns: list[int] | None  # if not all of it
    tree: str | None
    policies: list[str] | None
    function_ids: list[int] | None  # of users, that the planner may run
    has_foreign: bool  # it or a part of it is on another server

    def is_readable(self, columns: set[int]) -> bool:
        """Whether the caller may read these columns; 0 is the whole row, none of them is any."""
        if self.may_read:
            return True
        readable = set(self.readable_columns or ())
        wanted = (columns | set(self.columns)) - {0} if 0 in columns else columns
        return bool(readable) and wanted <= readable


@dataclass(frozen=True, slots=True)
class TypeCode:
    """What runs when a value of a type is made."""

    type_id: int
    tree: str | None
    function_ids: list[int]


@dataclass(frozen=True, slots=True)
class TypeUsers:
    """Types that hold others, and all that has to do with them."""

    type_ids: frozenset[int]
    names: frozenset[tuple[str, str]]  # schema and name
    path: frozenset[str]  # schemas in which names are found


@dataclass(frozen=True, slots=True)
class Analysis:
    """The view that was made of a query, and its tree; None if that is too long."""

    view_id: int
    view_name: str
    tree: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The first rows of a query, each a JSON array."""

    lines: list[str]
    is_cut: bool


def single_query_error(db: Session, sql: str) -> Failure | None:
    """What is wrong with a text that is not one query, by its grammar alone."""
    failure = db.why_no_cursor(_PROBE + sql)
    if failure is not None and failure.sqlstate == _NOT_FOR_A_CURSOR:
        return None if _COMMAND in failure.message else Failure("42601", "it has several statements")
    return failure


def parse_error(db: Session, sql: str) -> Failure | None:
    """What the analysis says of a query by itself, without a view round it."""
    return db.why_not_prepared(sql)


def analyse(db: Session, bounds: Bounds, sql: str, is_temporary: bool, max_bytes: int) -> Analysis | Failure:
    """Make a view of a query."""
    rows = db.try_fetch(bounds, _ANALYSE, sql, is_temporary, max_bytes)
    return rows if isinstance(rows, Failure) else Analysis(**rows[0])


def wait_for_nobody(db: Database) -> None:
    """End statements that would wait for a lock, until the transaction or its part ends."""
    db.fetch(_WAIT_FOR_NOBODY)


def hold_relations(db: Database, relation_ids: list[int]) -> None:
    """Keep these relations, and all that is read with them, as they are."""
    db.fetch(_HOLD, relation_ids)


def plan_cost(db: Session, bounds: Bounds, view_name: str) -> float | Failure:
    """What the planner thinks the query of a view costs."""
    rows = db.try_fetch(bounds, _PLAN, view_name)
    return rows if isinstance(rows, Failure) else float(rows[0]["cost"])


def run(db: Session, bounds: Bounds, view_name: str, max_rows: int, max_bytes: int) -> Rows | Failure:
    """The first rows of the query of a view."""
    rows = db.try_fetch(bounds, _RUN, view_name, max_rows, max_bytes)
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


def type_code(db: Database) -> list[TypeCode]:
    """What runs when values of types are made that somebody has made."""
    return [TypeCode(**row) for row in db.fetch(_TYPE_CODE)]


def type_users(db: Database, type_ids: list[int]) -> TypeUsers:
    """What holds one of these types, or has to do with them."""
    row = db.fetch(_TYPE_USERS, type_ids)[0]
    names = frozenset((schema, name) for schema, name in json.loads(row["names"] or "[]"))
    return TypeUsers(frozenset(row["type_ids"]), names, frozenset(row["path"]))


def hides_one(db: Database, words: list[str]) -> bool:
    """Whether one of these words is the name of something that the caller may not read."""
    return bool(db.fetch(_HIDES, words)[0]["hides"])


def hides_type(db: Database, type_ids: list[int]) -> bool:
    """Whether one of these types shows the columns of a table that the caller may not read."""
    return bool(db.fetch(_HIDES_TYPE, type_ids)[0]["hides"])


def is_superuser(db: Session) -> bool:
    """Whether the current role is one."""
    return bool(db.fetch(_SUPERUSER, db.role())[0]["rolsuper"])


def role_id(db: Session, role: str) -> int | None:
    """The oid of a role, None if there is none of that name."""
    rows = db.fetch(_ROLE, role)
    return rows[0]["role_id"] if rows else None


def take_search_path(db: Session, search_path: str) -> None:
    """Let names be found along this path until the transaction ends."""
    db.fetch(_TAKE_PATH, search_path)


def ask_hindrance(db: Database) -> str | None:
    """Why SQL of a model is not run for the caller."""
    hindrance: str | None = db.fetch(_HINDRANCE)[0]["hindrance"]
    return hindrance
