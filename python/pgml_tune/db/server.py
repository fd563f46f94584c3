"""What a backend knows about itself, read from the server's own functions and variables.

None of these can raise an error of the server, which would jump over Python's frames. The names are the same in
PostgreSQL 15 to 18.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from pgml_tune.db import Place

_REPEATABLE_READ, _SERIALIZABLE = 2, 3
_ACCESS_SHARE, _NOT_STRONGER = ctypes.c_int(1), ctypes.c_int(0)  # a lock mode, and not those above it
_DEFAULT_LOCK_METHOD = 1
_OF_ANOTHER_ROLE, _RESTRICTED = 1, 2  # SECURITY_LOCAL_USERID_CHANGE, SECURITY_RESTRICTED_OPERATION
_server = ctypes.PyDLL(None)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_server, name)
    function.restype, function.argtypes = result, arguments
    return function


is_in_parallel_mode = _function("IsInParallelMode", ctypes.c_bool)
is_in_recovery = _function("RecoveryInProgress", ctypes.c_bool)
is_in_block = _function("IsTransactionBlock", ctypes.c_bool)
current_role = _function("GetUserId", ctypes.c_uint32)
_identity = _function("GetUserIdAndSecContext", None, ctypes.POINTER(ctypes.c_uint32), ctypes.POINTER(ctypes.c_int))
_take_identity = _function("SetUserIdAndSecContext", None, ctypes.c_uint32, ctypes.c_int)
_new_settings_level = _function("NewGUCNestLevel", ctypes.c_int)
_end_settings_level = _function("AtEOXact_GUC", None, ctypes.c_bool, ctypes.c_int)
database_encoding = _function("GetDatabaseEncoding", ctypes.c_int)
statement_began = _function("GetCurrentStatementStartTimestamp", ctypes.c_int64)
_subtransaction = _function("GetCurrentSubTransactionId", ctypes.c_uint32)
_transaction_id = _function("GetTopTransactionIdIfAny", ctypes.c_uint32)
_has_active_snapshot = _function("ActiveSnapshotSet", ctypes.c_bool)
_active_snapshot = _function("GetActiveSnapshot", ctypes.c_void_p)
_config_option = _function("GetConfigOption", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool, ctypes.c_bool)
_system_identifier = _function("GetSystemIdentifier", ctypes.c_uint64)
_data_directory = ctypes.c_char_p.in_dll(_server, "DataDir")
_database_id = ctypes.c_uint32.in_dll(_server, "MyDatabaseId")
_start = ctypes.c_int64.in_dll(_server, "MyStartTimestamp")
# Its third argument, in later versions, asks for stronger locks, too.
_holds_lock = _function("LockHeldByMe", ctypes.c_bool)
_holds_lock.argtypes = None  # asked with every call: what needs no conversion takes half the time
_invalidations = ctypes.c_uint64.in_dll(_server, "SharedInvalidMessageCounter")
_query_cancel = ctypes.c_int.in_dll(_server, "QueryCancelPending")
_process_end = ctypes.c_int.in_dll(_server, "ProcDiePending")
_is_read_only = ctypes.c_bool.in_dll(_server, "XactReadOnly")
_isolation_level = ctypes.c_int.in_dll(_server, "XactIsoLevel")


@contextmanager
def acting_as(role: int) -> Iterator[None]:
    """A block in which statements have the rights of the role of this oid, and no way back to those of the session.

    It is how the server itself runs the functions of an index or of a materialized view for their owner: SET ROLE,
    SET SESSION AUTHORIZATION, PREPARE, DEALLOCATE, LISTEN and temporary tables are refused inside. A transaction that
    is aborted takes the identity back that it has begun with.
    """
    user, context = ctypes.c_uint32(), ctypes.c_int()
    _identity(ctypes.byref(user), ctypes.byref(context))
    _take_identity(role, context.value | _OF_ANOTHER_ROLE | _RESTRICTED)
    try:
        yield
    finally:
        _take_identity(user.value, context.value)


def begin_restricted() -> int:
    """Let functions of other owners leave nothing behind for the session's own role, until end_restricted().

    It is how the server itself runs the functions of an index for the owner of its table: deferred triggers, SET ROLE,
    PREPARE, DEALLOCATE, LISTEN, temporary tables and cursors WITH HOLD are refused, and settings are taken back in the
    end. A transaction that is aborted ends it, too. Returns what end_restricted() wants.
    """
    user, context = ctypes.c_uint32(), ctypes.c_int()
    _identity(ctypes.byref(user), ctypes.byref(context))
    _take_identity(user.value, context.value | _RESTRICTED)
    return int(_new_settings_level())


def end_restricted(level: int) -> None:
    """End what begin_restricted() has begun."""
    _end_settings_level(False, level)
    user, context = ctypes.c_uint32(), ctypes.c_int()
    _identity(ctypes.byref(user), ctypes.byref(context))
    _take_identity(user.value, context.value & ~_RESTRICTED)


class _SnapshotData(ctypes.Structure):
    """The beginning of the server's struct of that name, which is the same in 15 to 18."""

    _fields_ = (
        ("snapshot_type", ctypes.c_int),
        ("xmin", ctypes.c_uint32),
        ("xmax", ctypes.c_uint32),
        ("xip", ctypes.c_void_p),
        ("xcnt", ctypes.c_uint32),
        ("subxip", ctypes.c_void_p),
        ("subxcnt", ctypes.c_int32),
        ("suboverflowed", ctypes.c_bool),
        ("takenDuringRecovery", ctypes.c_bool),
        ("copied", ctypes.c_bool),
        ("curcid", ctypes.c_uint32),
    )


class _LockTag(ctypes.Structure):
    """The server's struct of that name, which is the same in 15 to 18; a type of 0 is a table."""

    _fields_ = (
        ("database", ctypes.c_uint32),
        ("table", ctypes.c_uint32),
        ("field3", ctypes.c_uint32),
        ("field4", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("method", ctypes.c_uint8),
    )


def holds_table(table: int) -> bool:
    """Whether the transaction holds the lock of a reader on the table of this oid."""
    is_held: bool = _holds_lock(_lock_on(table), _ACCESS_SHARE, _NOT_STRONGER)
    return is_held


@lru_cache(maxsize=8)
def _lock_on(table: int) -> Any:
    return ctypes.byref(_LockTag(_database_id.value, table, method=_DEFAULT_LOCK_METHOD))


def visible_state() -> tuple[int, ...]:
    """Equal values mean that the same rows are visible, and the same catalog, which is ahead of an older snapshot.

    Below one xmax the transactions that still run can only become fewer, so their number tells which they are; the
    command counter and the (sub)transaction tell what this transaction sees of its own. Of the catalog others tell
    by messages.
    """
    # A procedure that has just committed has none, and asking for it would crash the server.
    if not _has_active_snapshot():
        return ()
    snapshot = _SnapshotData.from_address(_active_snapshot())
    return (
        snapshot.xmax,
        snapshot.xcnt,
        snapshot.subxcnt,
        snapshot.curcid,
        _transaction_id(),
        _subtransaction(),
        _invalidations.value,
    )


def is_interrupted() -> bool:
    """Whether a cancel, a timeout or the end of the session has arrived and not taken effect."""
    return bool(_query_cancel.value or _process_end.value)


def is_read_only() -> bool:
    """Whether the transaction is read-only now."""
    return _is_read_only.value


def is_serializable() -> bool:
    """Whether the transaction is serializable."""
    return _isolation_level.value == _SERIALIZABLE


def place() -> Place:
    """Which backend this is; a copy of the data directory is another node, with the same system identifier."""
    directory = _data_directory.value or b""
    files = [os.stat(path).st_ino for path in (directory, os.path.join(directory, b"global", b"pg_control"))]
    node = f"{_system_identifier()}:{directory!r}:{files}"
    backend = f"{os.getpid()}-{_start.value:x}"
    return Place(hashlib.sha256(node.encode()).hexdigest()[:12], _database_id.value, backend)


def keeps_snapshot() -> bool:
    """Whether all statements of the transaction see the rows of one moment."""
    return _isolation_level.value >= _REPEATABLE_READ


def config_option(name: bytes) -> bytes | None:
    """The value of a parameter, None if there is none of that name."""
    value: bytes | None = _config_option(name, True, False)
    return value
