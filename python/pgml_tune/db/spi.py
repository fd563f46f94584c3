"""The database seen from inside a backend."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import plpy

from pgml_tune.db import Row
from pgml_tune.db.gate import check_value
from pgml_tune.errors import ParallelMode

_PARAMETER = re.compile(r"\$(\d+)::([a-z0-9]+(?:\[\])?)")
_server = ctypes.PyDLL(None)
_is_in_parallel_mode = _server.IsInParallelMode
_is_in_parallel_mode.restype = ctypes.c_bool
_is_in_parallel_mode.argtypes = ()
_current_role = _server.GetUserId
_current_role.restype = ctypes.c_uint32
_current_role.argtypes = ()


def current_role() -> int:
    """The oid of the role the current function runs as, found without SQL."""
    return int(_current_role())


class SpiDatabase:
    """Prepared statements of this session."""

    def __init__(self) -> None:
        self._plans: dict[str, Any] = {}

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        # Running SQL in a parallel plan corrupts the interpreter and then crashes the server.
        if _is_in_parallel_mode():
            raise ParallelMode(
                "this function cannot run in a parallel plan",
                detail="It was called through a function that is labelled PARALLEL SAFE or RESTRICTED and must not be.",
                hint="SET max_parallel_workers_per_gather = 0, and label the calling function PARALLEL UNSAFE.",
            )
        plan = self._plans.get(sql)
        if plan is None:
            plan = self._plans[sql] = plpy.prepare(sql, _parameter_types(sql))
        for value in args:
            check_value(value)
        return list(plpy.execute(plan, args))

    def notice(self, message: str) -> None:
        """Show a line to the client at once."""
        plpy.notice(check_value(message))


def _parameter_types(sql: str) -> list[str]:
    types = {int(number): name for number, name in _PARAMETER.findall(sql)}
    return [types[number] for number in sorted(types)]
