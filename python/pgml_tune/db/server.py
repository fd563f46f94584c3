"""What a backend knows about itself, read from the server's own functions and variables.

None of these can raise an error of the server, which would jump over Python's frames. The names are the same in
PostgreSQL 15 to 18.
"""

from __future__ import annotations

import ctypes
from typing import Any

_SERIALIZABLE = 3
_server = ctypes.PyDLL(None)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_server, name)
    function.restype, function.argtypes = result, arguments
    return function


is_in_parallel_mode = _function("IsInParallelMode", ctypes.c_bool)
is_in_recovery = _function("RecoveryInProgress", ctypes.c_bool)
current_role = _function("GetUserId", ctypes.c_uint32)
transaction_start = _function("GetCurrentTransactionStartTimestamp", ctypes.c_int64)
subtransaction = _function("GetCurrentSubTransactionId", ctypes.c_uint32)
statement_start = _function("GetCurrentStatementStartTimestamp", ctypes.c_int64)
_config_option = _function("GetConfigOption", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool, ctypes.c_bool)
_is_read_only = ctypes.c_bool.in_dll(_server, "XactReadOnly")
_isolation_level = ctypes.c_int.in_dll(_server, "XactIsoLevel")


def is_read_only() -> bool:
    """Whether the transaction is read-only now."""
    return _is_read_only.value


def is_serializable() -> bool:
    """Whether the transaction is serializable."""
    return _isolation_level.value == _SERIALIZABLE


def config_option(name: bytes) -> bytes | None:
    """The value of a parameter, None if there is none of that name."""
    value: bytes | None = _config_option(name, True, False)
    return value
