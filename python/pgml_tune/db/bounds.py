"""Limits of time and memory for SQL that a backend runs for somebody it does not trust.

A timeout that is set inside a function does not bound the statement that already runs, and no thread can act while
PL/Python waits for SQL; so a timer of the operating system sends this process the signal of a cancel.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1
_SIGEV_THREAD_ID = 4  # only this thread: those of libraries never handle the server's signals
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DATA_PAGES = 5  # the place in /proc/self/statm of what RLIMIT_DATA limits


class _Event(ctypes.Structure):
    """struct sigevent of Linux, 64 bytes long."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_char * 44),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: when again, and when."""

    _fields_ = (
        ("again_seconds", ctypes.c_long),
        ("again_ns", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a statement may take."""

    seconds: float
    memory_bytes: int  # beside what the process has already


class Watch:
    """Tells whether the time was over."""

    def __init__(self, seconds: float) -> None:
        event = _Event(None, signal.SIGINT, _SIGEV_THREAD_ID, threading.get_native_id())
        self._timer = ctypes.c_void_p()
        self._check(_libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)))
        whole = int(seconds)
        times = _Times(0, 0, whole, int((seconds - whole) * 1e9))
        self._check(_libc.timer_settime(self._timer, 0, ctypes.byref(times), None))
        self.has_fired = False

    def end(self) -> None:
        # Disarmed and asked in one: it must not fire between the two.
        left = _Times()
        _libc.timer_settime(self._timer, 0, ctypes.byref(_Times()), ctypes.byref(left))
        self.has_fired = not (left.seconds or left.ns)
        _libc.timer_delete(self._timer)

    @staticmethod
    def _check(result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def bounded(bounds: Bounds) -> Iterator[Watch]:
    """Cancels what runs inside when its time is over, and gives it no more memory than it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _data_bytes() + bounds.memory_bytes
    for limit in (soft, hard):
        if limit != resource.RLIM_INFINITY:
            allowed = min(allowed, limit)
    watch = Watch(bounds.seconds)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
        yield watch
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        watch.end()


def _data_bytes() -> int:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(200).split()[_DATA_PAGES]) * _PAGE_BYTES
