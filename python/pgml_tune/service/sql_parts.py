"""What a query tree names: functions, operators, types, relations; and whether it does more than read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pgml_tune.service.query_tree import Node, TreeError, nodes, parse

# Kinds of nodes that only compute. XML is not among them, nor are sequences, cursors, or what only writing needs.
_TAGS = frozenset(
    """
    ALIAS AGGREF ARRAY ARRAYCOERCEEXPR ARRAYEXPR BOOLEANTEST BOOLEXPR CASE CASEEXPR CASETESTEXPR CASEWHEN COALESCE
    COALESCEEXPR COERCETODOMAIN COERCETODOMAINVALUE COERCEVIAIO COLLATEEXPR COMMONTABLEEXPR CONST CONVERTROWTYPEEXPR
    CTECYCLECLAUSE CTESEARCHCLAUSE DISTINCTEXPR FIELDSELECT FROMEXPR FUNCEXPR GROUPINGFUNC GROUPINGSET JOINEXPR MINMAX
    MINMAXEXPR NAMEDARGEXPR NULLIFEXPR NULLTEST OPEXPR PARAM QUERY RANGETBLENTRY RANGETBLFUNCTION RANGETBLREF
    RELABELTYPE ROW ROWCOMPAREEXPR ROWEXPR RTEPERMISSIONINFO SCALARARRAYOPEXPR SETOPERATIONSTMT SORTGROUPCLAUSE
    SQLVALUEFUNCTION SUBLINK SUBSCRIPTINGREF TABLESAMPLECLAUSE TARGETENTRY VAR WHEN WINDOWCLAUSE WINDOWFUNC
    """.split()
)
_FUNCTION_FIELDS = (
    "funcid", "opfuncid", "aggfnoid", "winfnoid", "hashfuncid", "negfuncid", "startInRangeFunc", "endInRangeFunc",
    "tsmhandler",
)  # fmt: skip
_OPERATOR_FIELDS = ("opno", "opnos", "eqop", "sortop", "cycle_mark_neop")
_TYPE_ENDINGS = ("type", "types", "typeid")
_RELATION = 0  # kind of an entry of a range table
_COLUMN_OFFSET = 7  # of attribute numbers in a printed set
_MOST_RELATIONS = 100
_LONGEST_CHECK = 50_000  # characters of its tree
_MOST_EQUAL_NAMES = 300  # EXPLAIN tells them apart, in a time that grows with their third power and that nothing ends


@dataclass(slots=True)
class Parts:
    """What was found in a tree."""

    function_ids: set[int] = field(default_factory=set)
    operator_ids: set[int] = field(default_factory=set)
    type_ids: set[int] = field(default_factory=set)
    reads: dict[int, set[int]] = field(default_factory=dict)  # the columns of relations; 0 is the whole row
    fault: str | None = None  # why a query of this form is refused
    tree: Any = None


def find_parts(tree: Any, own_view: int = 0) -> Parts:
    """The parts of a tree; `own_view` is the relation that it is the rule of, which it names without reading it."""
    parts = Parts(tree=tree)
    entries = equal_names = 0
    for node in nodes(tree):
        if node.tag not in _TAGS:
            parts.fault = parts.fault or f"it has a part of a kind that is not allowed: {node.tag.lower()[:40]}"
        for name in node.fields:
            if name in _FUNCTION_FIELDS:
                parts.function_ids.update(node.numbers(name))
            elif name in _OPERATOR_FIELDS:
                parts.operator_ids.update(node.numbers(name))
            elif name.lower().endswith(_TYPE_ENDINGS):
                parts.type_ids.update(node.numbers(name))
        if node.tag == "QUERY":
            if not _only_reads(node):
                parts.fault = parts.fault or "it does more than read"
            entries += len(node.items("rtable"))
            equal_names += sum(_count_equal(entry) for entry in node.items("rtable"))
            _find_reads(node, own_view, parts)
    if entries > 5 * _MOST_RELATIONS or len(parts.reads) > _MOST_RELATIONS:
        parts.fault = parts.fault or f"it reads more than {_MOST_RELATIONS} tables"
    if equal_names > _MOST_EQUAL_NAMES:
        parts.fault = parts.fault or "it has too many columns of one name"
    parts.function_ids.discard(0)
    parts.operator_ids.discard(0)
    return parts


@lru_cache(maxsize=64)
def parts_of(text: str, own_view: int = 0) -> Parts:
    """The parts of what is evaluated beside a query: views and policies, which seldom change."""
    return find_parts(parse(text), own_view)


@lru_cache(maxsize=1024)
def parts_of_check(text: str) -> Parts:
    """The parts of a check of a domain; those of all domains are looked at for every query."""
    if len(text) > _LONGEST_CHECK:
        return Parts(fault="it is too long")
    return find_parts(parse(text))


def written_query(tree: list[Any]) -> Node:
    """The query that was given to the view that a tree is the rule of."""
    for entry in tree[0][0].items("rtable"):
        query = entry["subquery"]
        if type(query) is Node and query.tag == "QUERY":
            return query
    raise TreeError


def _count_equal(entry: Node) -> int:
    names = entry["eref"].items("colnames") if type(entry["eref"]) is Node else []
    return len(names) - len(set(names))


def _only_reads(query: Node) -> bool:
    return (
        bool(query["commandType"] == "1" and query["resultRelation"] == "0")
        and bool(query["hasModifyingCTE"] == "false" and query["hasForUpdate"] == "false")
        and query.is_empty("utilityStmt")
        and query.is_empty("rowMarks")
    )


def _find_reads(query: Node, own_view: int, parts: Parts) -> None:
    rights = query.items("rteperminfos")  # since 16 in a list of their own
    for entry in query.items("rtable"):
        relation = entry.numbers("relid")
        if entry.numbers("rtekind") != [_RELATION] or relation == [own_view]:
            continue
        place = entry.numbers("perminfoindex")
        columns = (rights[place[0] - 1] if place and place[0] else entry).numbers("selectedCols")
        parts.reads.setdefault(relation[0], set()).update(number - _COLUMN_OFFSET for number in columns)
