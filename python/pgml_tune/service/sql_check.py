"""Whether SQL that a model has written does nothing but read what its caller may read.

The server itself analyses the text, and what it has understood is compared with what is allowed: kinds of nodes,
functions and operators wherever they stand, relations. Then it is planned where nothing can be written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.db import Failure, Session
from pgml_tune.db.bounds import Bounds
from pgml_tune.errors import NotReady, ReadOnlyTransaction
from pgml_tune.service.query_tree import Node, TreeError, nodes, parse
from pgml_tune.service.sql_functions import is_allowed
from pgml_tune.settings import Limits
from pgml_tune.store import sql_check as store
from pgml_tune.store.sql_check import Relation

MAX_SQL_BYTES = 65536
HIDDEN = "it names a table or column that does not exist for you"
_HIDDEN_STATES = frozenset(("42P01", "42703", "42501", "3F000"))
_REFUSED = "42501"
_BLANKS = " \t\r\n;"
_TAGS = frozenset(
    """
    ALIAS AGGREF ARRAY ARRAYCOERCEEXPR ARRAYEXPR BOOLEANTEST BOOLEXPR CASE CASEEXPR CASETESTEXPR CASEWHEN COALESCE
    COALESCEEXPR COERCETODOMAIN COERCEVIAIO COLLATEEXPR COMMONTABLEEXPR CONST CONVERTROWTYPEEXPR CTECYCLECLAUSE
    CTESEARCHCLAUSE DISTINCTEXPR FIELDSELECT FROMEXPR FUNCEXPR GROUPINGFUNC GROUPINGSET JOINEXPR MINMAX MINMAXEXPR
    NAMEDARGEXPR NULLIFEXPR NULLTEST OPEXPR PARAM QUERY RANGETBLENTRY RANGETBLFUNCTION RANGETBLREF RELABELTYPE ROW
    ROWCOMPAREEXPR ROWEXPR RTEPERMISSIONINFO SCALARARRAYOPEXPR SETOPERATIONSTMT SORTGROUPCLAUSE SQLVALUEFUNCTION
    SUBLINK SUBSCRIPTINGREF TABLESAMPLECLAUSE TARGETENTRY VAR WHEN WINDOWCLAUSE WINDOWFUNC
    """.split()
)
_FUNCTION_FIELDS = (
    "funcid", "opfuncid", "aggfnoid", "winfnoid", "hashfuncid", "negfuncid", "startInRangeFunc", "endInRangeFunc",
    "tsmhandler",
)  # fmt: skip
_OPERATOR_FIELDS = ("opno", "opnos", "eqop", "sortop", "cycle_mark_neop")
_READABLE_KINDS = ("r", "p", "v", "m", "f")
_COLUMN_OFFSET = 7  # of attribute numbers in a printed set, in which 0 stands for the whole row


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
    column_types: tuple[int, ...] = field(default=(), repr=False)
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
    """A verdict, and the first rows of a query that passes."""

    verdict: Verdict
    rows: list[Any]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        return self.verdict.to_json() | {"rows": self.rows, "is_cut": self.is_cut}


def check(db: Session, sql: str, limits: Limits) -> Verdict:
    """The verdict on a text, under the search path of the caller; raises only what is not the text's fault."""
    _require_writable(db)
    text = sql.strip(_BLANKS)
    if len(text.encode()) > MAX_SQL_BYTES:
        return Verdict("", f"it has more than {MAX_SQL_BYTES} bytes", "54000")
    if not text:
        return Verdict("", "it is empty", "42601")
    failure = store.single_query_error(db, text)
    if failure is not None:
        return _refuse(text, failure)
    bounds = _bounds(limits)
    analysed = store.analyse(db, bounds, text)
    if isinstance(analysed, Failure):
        return _refuse(text, analysed)
    try:
        verdict = _examine(db, text, *analysed)
    except TreeError:
        return Verdict(text, "it is of a form that is not known", _REFUSED)
    if not verdict.is_valid:
        return verdict
    cost = store.plan_cost(db, bounds, text)
    if isinstance(cost, Failure):
        return _refuse(text, cost)
    return Verdict(
        text, cost=cost, is_ordered=verdict.is_ordered, columns=verdict.columns, column_types=verdict.column_types,
        relations=verdict.relations,
    )  # fmt: skip


def try_sql(db: Session, sql: str, max_rows: int | None, limits: Limits) -> Outcome:
    """The verdict on a text and, if it passes, its first rows."""
    verdict = check(db, sql, limits)
    if not verdict.is_valid:
        return Outcome(verdict, [], False)
    most = limits.sql_max_rows if max_rows is None else max(0, min(max_rows, limits.sql_max_rows))
    rows = store.run(db, _bounds(limits), _as_lines(verdict), most, limits.sql_max_bytes)
    if isinstance(rows, Failure):
        return Outcome(_refuse(verdict.sql, rows), [], False)
    return Outcome(verdict, [json.loads(line) for line in rows.lines], rows.is_cut)


def _as_lines(verdict: Verdict) -> str:
    """A query for the rows of a query, each a JSON array in a text; columns of equal names are told apart."""
    if not verdict.columns:
        return f"SELECT '[]'::pg_catalog.text FROM (\n{verdict.sql}\n) AS r"
    names = [f"c{number}" for number in range(len(verdict.columns))]
    parts = [names[begin : begin + 50] for begin in range(0, len(names), 50)]
    values = " OPERATOR(pg_catalog.||) ".join(
        f"pg_catalog.jsonb_build_array({', '.join(f'r.{name}' for name in part)})" for part in parts
    )
    return f"SELECT ({values})::pg_catalog.text FROM (\n{verdict.sql}\n) AS r ({', '.join(names)})"


def _bounds(limits: Limits) -> Bounds:
    return Bounds(limits.sql_seconds, limits.sql_memory_bytes)


def _require_writable(db: Session) -> None:
    transaction = db.transaction()
    if transaction.is_standby or transaction.is_read_only:
        raise ReadOnlyTransaction(
            "SQL cannot be checked in a read-only transaction",
            detail="The server analyses it as the query of a view, which is rolled back.",
        )


def _refuse(sql: str, failure: Failure) -> Verdict:
    if failure.sqlstate == "P0001":
        raise NotReady("SQL cannot be checked here", detail=failure.message)
    hidden = failure.sqlstate in _HIDDEN_STATES
    return Verdict(sql, HIDDEN if hidden else failure.message, failure.sqlstate)


def _examine(db: Session, sql: str, view_id: int, tree: str) -> Verdict:
    outer = parse(tree)
    found = list(nodes(outer))
    tags = {node.tag for node in found} - _TAGS
    if tags:
        return Verdict(sql, f"it has a part of a kind that is not allowed: {min(tags).lower()}", _REFUSED)
    reads: dict[int, set[int]] = {}
    for node in found:
        if node.tag == "QUERY" and not _only_reads(node):
            return Verdict(sql, "it does more than read", _REFUSED)
        if node.tag == "RANGETBLENTRY" and node["rtekind"] == "0" and int(node["relid"]) != view_id:
            reads.setdefault(int(node["relid"]), set()).update(int(n) for n in node["selectedCols"][1:])
    error = _examine_functions(db, found)
    if error is not None:
        return Verdict(sql, error, _REFUSED)
    relations = {relation.relation_id: relation for relation in store.relations(db, list(reads))}
    for relation in relations.values():
        if relation.is_own or relation.kind not in _READABLE_KINDS or relation.kind == "v" or relation.policies:
            return Verdict(sql, "it reads something that is no table of users", _REFUSED)
    query = _innermost(outer)
    targets = [target for target in query["targetList"] if target["resjunk"] == "false"]
    return Verdict(
        sql,
        is_ordered=query["sortClause"] != "<>",
        columns=tuple(_unescaped(target["resname"]) for target in targets),
        relations=tuple(sorted((_read(relations[oid], columns) for oid, columns in reads.items()), key=str)),
    )


def _innermost(outer: list[Any]) -> Node:
    query: Node = outer[0][0]
    for entry in query["rtable"]:
        if entry["rtekind"] == "1":
            inner: Node = entry["subquery"]
            return inner
    raise TreeError


def _only_reads(query: Node) -> bool:
    return bool(
        query["commandType"] == "1"
        and query["utilityStmt"] == "<>"
        and query["resultRelation"] == "0"
        and query["hasModifyingCTE"] == "false"
        and query["hasForUpdate"] == "false"
        and query["rowMarks"] == "<>"
    )


def _examine_functions(db: Session, found: list[Node]) -> str | None:
    function_ids: set[int] = set()
    operator_ids: set[int] = set()
    for node in found:
        for names, ids in ((_FUNCTION_FIELDS, function_ids), (_OPERATOR_FIELDS, operator_ids)):
            for name in names:
                value = node[name]
                if value is not None:
                    ids.update(int(word) for word in (value[1:] if type(value) is list else (value,)))
    function_ids.discard(0)
    operator_ids.discard(0)
    for function in store.functions(db, sorted(function_ids), sorted(operator_ids)):
        if not is_allowed(function, frozenset()):
            return f'function "{function.name}" is not allowed'
    return None


def _read(relation: Relation, columns: set[int]) -> Read:
    numbers = {number - _COLUMN_OFFSET for number in columns}
    names = relation.columns.items()
    read = (name for number, name in names if number in numbers or (0 in numbers and number > 0))
    return Read(relation.schema_name, relation.name, tuple(sorted(read)))


def _unescaped(word: str) -> str:
    if word == '""':
        return ""
    return "".join(part[-1:] if part.startswith("\\") else part for part in _split(word))


def _split(word: str) -> list[str]:
    parts, place = [], 0
    while place < len(word):
        width = 2 if word[place] == "\\" else 1
        parts.append(word[place : place + width])
        place += width
    return parts
