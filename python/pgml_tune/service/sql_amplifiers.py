"""Calls whose work grows as the product of two arguments, which no cancel can stop, and texts that are long by request.

`translate(repeat('a', 1000000), repeat('b', 100000), 'c')` holds a backend for hours. Such a call is allowed where one
of the two is a short constant. Numbers are kept short in the same way, since sums and products of them are one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgml_tune.service.query_tree import Node, nodes
from pgml_tune.store.sql_check import Function

_SHORT_BYTES = 200
_SHORT_SET_BYTES = 64  # of characters that each character of a text is compared with, which is slow
_SHORT_ARRAY_BYTES = 600
_SHORT_ITEMS = 100
_MOST_CALLS = 100  # of functions, each of which may go through a text as long as memory allows
_MOST_OPERATORS = 1000
_LONGEST = 1_000_000
_NUMERIC = 1700
# By function, which of its arguments, counted from 0, must be short; one of them is enough.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "translate": (1,),
    **dict.fromkeys(("btrim", "ltrim", "rtrim"), (1,)),
    **dict.fromkeys(("arrayoverlap", "arraycontains", "arraycontained"), (0, 1)),
    **dict.fromkeys(("jsonb_contains", "jsonb_contained"), (0, 1)),
    **dict.fromkeys(("jsonb_exists_any", "jsonb_exists_all", "jsonb_delete"), (1,)),
    **dict.fromkeys(("position", "strpos", "replace", "split_part", "string_to_array", "string_to_table"), (1,)),
    **dict.fromkeys(("to_timestamp", "to_date", "to_number", "to_char"), (1,)),
    **dict.fromkeys(
        (
            "like", "notlike", "textlike", "textnlike", "texticlike", "texticnlike", "namelike", "namenlike",
            "nameiclike", "nameicnlike", "bpcharlike", "bpcharnlike", "bpchariclike", "bpcharicnlike", "bytealike",
            "byteanlike",
        ),
        (1,),
    ),
    **dict.fromkeys((f"{a}word_similarity{b}" for a in ("", "strict_") for b in ("", "_op", "_commutator_op")), (0, 1)),
    **dict.fromkeys(("ts_match_vq", "ts_match_tq"), (1,)),
    "ts_match_qv": (0,),
}  # fmt: skip
_LENGTHS = {"repeat": 1, "lpad": 1, "rpad": 1}  # by function, which of its arguments is a length
# With numbers of many digits each takes a large part of a second, and a whole expression is one step.
_NUMBERS = frozenset(
    """
    numeric_mul numeric_div numeric_mod mod div numeric_div_trunc numeric_power power pow numeric_sqrt sqrt
    numeric_ln ln numeric_log log numeric_exp exp factorial gcd lcm
    """.split()
)
_LONG_NUMBERS = frozenset("numeric_power power pow factorial numeric_exp exp".split())
_MOST_NUMBERS = 8
_SETS = ("translate", "btrim", "ltrim", "rtrim")
_ARRAYS = ("arrayoverlap", "arraycontains", "arraycontained")
_CASTS = ("RELABELTYPE", "ARRAYCOERCEEXPR", "COLLATEEXPR")
# What these make of short arguments is short.
_KEEP_SHORT = frozenset(
    """
    to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery lower upper initcap textcat text bpchar varchar
    """.split()
)


def find_amplifier(tree: Any, functions: Mapping[int, Function], operators: Mapping[int, Function]) -> str | None:
    """The name of a function whose call is refused for what it is called with."""
    steps = calls = signs = 0
    has_long_numbers = False
    for node in nodes(tree):
        if node.tag == "COERCEVIAIO" and node.numbers("resulttype") == [_NUMERIC]:
            has_long_numbers = has_long_numbers or not _is_short(node["arg"], _SHORT_BYTES, functions, operators)
        if node.tag == "CONST" and node.numbers("consttype") == [_NUMERIC]:
            has_long_numbers = has_long_numbers or not _is_short(node, _SHORT_BYTES, functions, operators)
        function = _called(node, functions, operators)
        if function is None:
            continue
        arguments, name = node.items("args"), function.name
        calls, signs = calls + (node.tag == "FUNCEXPR"), signs + (node.tag != "FUNCEXPR")
        if calls > _MOST_CALLS or signs > _MOST_OPERATORS:
            return name
        short = _PRODUCTS.get(name)
        most = _SHORT_SET_BYTES if name in _SETS else _SHORT_ARRAY_BYTES if name in _ARRAYS else _SHORT_BYTES
        # With one argument they trim blanks, or count seconds.
        if short and len(arguments) > 1:
            places = [place for place in short if place < len(arguments)]
            if not any(_is_short(arguments[place], most, functions, operators) for place in places):
                return name
        elif name in _LENGTHS and _is_long(arguments[_LENGTHS[name]]):
            return name
        if name in _NUMBERS and "numeric" in function.argument_types:
            steps += 1
            has_long_numbers = has_long_numbers or name in _LONG_NUMBERS
    return "numeric" if has_long_numbers and steps > _MOST_NUMBERS else None


def _called(node: Node, functions: Mapping[int, Function], operators: Mapping[int, Function]) -> Function | None:
    if node.tag == "FUNCEXPR":
        return functions.get(node.numbers("funcid")[0])
    if node.tag in ("OPEXPR", "SCALARARRAYOPEXPR", "DISTINCTEXPR", "NULLIFEXPR"):
        return operators.get(node.numbers("opno")[0])
    return None


def _is_short(
    node: Any, most_bytes: int, functions: Mapping[int, Function], operators: Mapping[int, Function]
) -> bool:
    """Whether all that a value is made of are constants, together no longer than that."""
    length, waiting = 0, [node]
    while waiting:
        part = waiting.pop()
        while type(part) is Node and part.tag in _CASTS:
            part = part["arg"]
        if type(part) is not Node:
            return False
        if part.tag == "CONST":
            length += 0 if part.is_empty("constvalue") else part.numbers("constvalue")[0]
        elif part.tag in ("ARRAYEXPR", "ARRAY"):
            items = part.items("elements")
            return len(items) <= _SHORT_ITEMS and all(_is_scalar(item) for item in items)
        else:
            function = _called(part, functions, operators)
            if function is None or function.name not in _KEEP_SHORT:
                return False
            waiting.extend(part.items("args"))
        if length > most_bytes:
            return False
    return True


def _is_scalar(node: Any) -> bool:
    """Not an array itself, as the items of an array of arrays are."""
    return type(node) is Node and node.tag not in ("ARRAYEXPR", "ARRAY")


def _is_long(node: Any) -> bool:
    """Whether a length is a constant beyond what anybody reads; the server's memory bounds the others."""
    if type(node) is not Node or node.tag != "CONST" or node["constbytes"] is None:
        return False
    return int.from_bytes(bytes(node["constbytes"]), "little", signed=True) > _LONGEST
