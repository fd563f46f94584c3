"""The end of a backend in whose libraries threads still compute."""

from __future__ import annotations

import ctypes


def leave_at_once() -> None:
    """Let this process, if it is a backend of PostgreSQL, end without what libraries want to do then.

    A terminated backend calls exit() wherever it is. Libraries then destroy what their threads work with. Threads that
    are still at work, for a statement that was cancelled or is being terminated, crash, and a backend that crashes
    takes all sessions of the server with it. PostgreSQL itself has let go by then of all that it shared.
    Only what is registered so far is left out, so call it after libraries have begun to work.
    """
    process = ctypes.CDLL(None)
    if not (hasattr(process, "proc_exit") and hasattr(process, "on_exit")):
        return
    process.on_exit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    # What is registered last is called first, with the status; it is no function of Python, which cannot run any more.
    process.on_exit(ctypes.cast(process._exit, ctypes.c_void_p), None)
