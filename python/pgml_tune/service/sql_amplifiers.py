"""Calls whose work grows as the product of two arguments, which no cancel can stop, and texts that are long by request.

`translate(repeat('a', 1000000), repeat('b', 100000), 'c')` holds a backend for hours. Such a call is allowed where one
of the two is short: a constant, or a column of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgml_tune.service.query_tree import Node, Scope, scoped_nodes

_SHORT_BYTES = 2048
_SHORT_ITEMS = 100
_LONGEST = 1_000_000
# By function, which of its arguments, counted from 0, must be short; one of them is enough.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "translate": (1,),
    "btrim": (0, 1),
    "ltrim": (0, 1),
    "rtrim": (0, 1),
    "arrayoverlap": (0, 1),
    "arraycontains": (0, 1),
    "arraycontained": (0, 1),
    "jsonb_contains": (0, 1),
    "jsonb_contained": (0, 1),
    "jsonb_exists_any": (1,),
    "jsonb_exists_all": (1,),
    "jsonb_delete": (1,),
}
_LENGTHS = {"repeat": 1, "lpad": 1, "rpad": 1}  # by function, which of its arguments is a length
_CASTS = ("RELABELTYPE", "ARRAYCOERCEEXPR", "COLLATEEXPR")


def find_amplifier(tree: Any, functions: Mapping[int, str], operators: Mapping[int, str]) -> str | None:
    """The name of a function whose call is refused for what it is called with."""
    for node, scope in scoped_nodes(tree):
        if node.tag not in ("FUNCEXPR", "OPEXPR", "SCALARARRAYOPEXPR"):
            continue
        is_call = node.tag == "FUNCEXPR"
        known, ids = (functions, node.numbers("funcid")) if is_call else (operators, node.numbers("opno"))
        name = known.get(ids[0], "") if ids else ""
        arguments = node.items("args")
        short = _PRODUCTS.get(name)
        # With one argument they trim blanks.
        if short and len(arguments) > 1:
            if not any(_is_short(arguments[place], scope) for place in short if place < len(arguments)):
                return name
        elif name in _LENGTHS and _is_long(arguments[_LENGTHS[name]]):
            return name
    return None


def _is_short(node: Any, scope: Scope) -> bool:
    while type(node) is Node and node.tag in _CASTS:
        node = node["arg"]
    if type(node) is not Node:
        return False
    if node.tag == "CONST":
        return node.is_empty("constvalue") or node.numbers("constvalue")[0] <= _SHORT_BYTES
    if node.tag in ("ARRAYEXPR", "ARRAY"):
        items = node.items("elements")
        return len(items) <= _SHORT_ITEMS and all(_is_scalar(item) for item in items)
    return node.tag == "VAR" and _is_stored(node, scope)


def _is_scalar(node: Any) -> bool:
    """Not an array itself, as the items of an array of arrays are."""
    return type(node) is Node and node.tag not in ("ARRAYEXPR", "ARRAY")


def _is_stored(variable: Node, scope: Scope) -> bool:
    """Whether it is a column of a table, not of a subquery, which may have made it long."""
    for _ in range(variable.numbers("varlevelsup")[0]):
        scope = scope[1] if scope else None
    entries = scope[0].items("rtable") if scope else []
    place = variable.numbers("varno")[0] - 1
    return 0 <= place < len(entries) and entries[place].numbers("rtekind") == [0]


def _is_long(node: Any) -> bool:
    """Whether a length is a constant beyond what anybody reads; the server's memory bounds the others."""
    if type(node) is not Node or node.tag != "CONST" or node["constbytes"] is None:
        return False
    return int.from_bytes(bytes(node["constbytes"]), "little", signed=True) > _LONGEST
