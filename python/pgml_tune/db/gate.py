"""What may cross between Python and PostgreSQL.

PL/Python turns every other object into text with `str()`; where that raises, the whole server restarts, and a NUL
is silently cut. So only exact types pass: None, bool, str, int64, finite float, bytes and lists of these.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

_INT64 = 1 << 63


def check_value(value: Any) -> Any:
    """`value` itself, if PL/Python converts it faithfully; else a TypeError, which is a bug of ours."""
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise TypeError("a text holds a NUL")
        if not value.isascii():
            value.encode()  # a lone surrogate raises UnicodeEncodeError
    elif kind is list:
        for item in value:
            check_value(item)
    elif kind is float:
        if not isfinite(value):
            raise TypeError("a number is not finite")
    elif kind is int:
        if not -_INT64 <= value < _INT64:
            raise TypeError("an integer is beyond 64 bits")
    elif kind not in (type(None), bool, bytes):
        raise TypeError(f"a value of type {kind.__name__} cannot be passed to PostgreSQL")
    return value


def check_row(row: Any) -> Any:
    """`row` itself, if it is a value, or a dict of values for a function that returns columns."""
    if type(row) is dict:
        for item in row.values():
            check_value(item)
        return row
    return check_value(row)


def check_result(result: Any) -> Any:
    """`result` itself, if it is a value, or a list of values or rows."""
    if type(result) is list:
        for row in result:
            check_row(row)
        return result
    return check_value(result)
