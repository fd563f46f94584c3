"""The lines of the spool.

`E` and the fields of a call that has ended; `B` and the fields that a call is to have if nothing more is heard of it;
`D`, a file and how many bytes of lines were lost there. Tabs separate the fields, and `%` is one that is NULL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

BEGIN, END, DROPPED = "B", "E", "D"
NULL = "%"  # no text is: in one it is written %25
_LARGEST_CALL_ID, _LARGEST_ROLE_ID = (1 << 63) - 1, (1 << 32) - 1
_ESCAPES = {ord(character): f"%{ord(character):02X}" for character in "%\t\n"}


def _or_null(pattern: str) -> str:
    return f"(?:{pattern}|%)"


_SMALL, _LARGE = r"\d{1,9}", r"\d{1,18}"
_NUMBER, _NAME = r"\d{1,12}\.\d{4}", r"[a-z0-9_.-]{1,63}"
_TEXT = r"[^\0\t\n%]*(?:%(?:25|09|0A)[^\0\t\n%]*)*"
_FIELDS = {  # as the columns of pgml_tune.call_log, and in their order
    "logged_at": r"\d{16}",  # microseconds since 1970
    "call_id": r"(?P<call_id>\d{1,19})",
    "task": r"[a-z_]{1,20}",
    "model": _NAME,
    "version": _NAME,
    "variant": _or_null(r"[a-z]{1,20}"),
    "rollout_id": _or_null(_LARGE),
    "phase": _or_null(_SMALL),
    "share": _or_null(_SMALL),
    "unit": _or_null(r"\d{1,18}|1[01]\d{17}"),  # 60 bits
    "collection": _or_null(_TEXT),
    "texts": _SMALL,
    "input_bytes": _LARGE,
    "tokens": _or_null(_SMALL),
    "unknown_tokens": _or_null(_SMALL),
    "output_count": _SMALL,
    "cache": r"[a-z]{1,20}",
    "latency_ms": _NUMBER,
    "is_cold": r"[tf]",
    "is_fallback": r"[tf]",
    "sqlstate": _or_null(r"[0-9A-Z]{5}"),
    "memory_bytes": _or_null(_LARGE),
    "gpu_memory_bytes": _or_null(_LARGE),
    "sample_rate": r"(?:0\.(?!0000)\d{4}|1\.0000)",  # its inverse is a weight
    "role_id": r"(?P<role_id>\d{1,10})",
    "sketch": _or_null(r"[A-Za-z0-9+/=]{1,100}"),
    "answer": _or_null(_TEXT),
    "input_text": _or_null(_TEXT),
}
COLUMNS = tuple(_FIELDS)
_CALL = re.compile("([BE])\t(" + "\t".join(f"(?:{pattern})" for pattern in _FIELDS.values()) + r")\Z")
_DROPPED = re.compile(rf"D\t({_TEXT}|%)\t({_LARGE})\Z")

Value = str | int | float | bool | None


class Call(NamedTuple):
    """A line about a call."""

    has_ended: bool
    call_id: int
    fields: str


class Dropped(NamedTuple):
    """A line about lines that were lost."""

    file: str
    bytes: int


def call_line(kind: str, values: Sequence[Value]) -> bytes:
    """The line that tells the fields of a call."""
    return f"{kind}\t{chr(9).join(map(_form, values))}\n".encode(errors="replace")


def dropped_line(dropped: Dropped) -> bytes:
    """The line that tells of lost ones."""
    return f"{DROPPED}\t{dropped.file}\t{dropped.bytes}\n".encode()


def parse(line: str) -> Call | Dropped | None:
    """What a line tells, its fields such that the columns take them; None if it is torn or of somebody else."""
    call = _CALL.match(line)
    if call is not None:
        call_id, role_id = int(call["call_id"]), int(call["role_id"])
        fits = call_id <= _LARGEST_CALL_ID and role_id <= _LARGEST_ROLE_ID
        return Call(call[1] == END, call_id, call[2]) if fits else None
    dropped = _DROPPED.match(line)
    return None if dropped is None else Dropped(dropped[1], int(dropped[2]))


def without_text(fields: str) -> str:
    """The fields of a call without the text of its user, which is the last one."""
    return f"{fields.rpartition(chr(9))[0]}\t{NULL}"


def _form(value: Value) -> str:
    kind = type(value)
    if kind is str:
        # Most are names, and asking costs a tenth of translating.
        return value if value.isalnum() else value.translate(_ESCAPES)  # type: ignore[union-attr, return-value]
    if kind is float:
        return f"{value:.4f}"
    if kind is bool:
        return "t" if value else "f"
    return NULL if value is None else str(value)
