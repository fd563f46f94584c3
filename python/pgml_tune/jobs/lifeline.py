"""Ties a job process to the worker that started it: when the worker is gone, so is the job."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "800"  # when memory runs out, the system ends a job and not the server


def tie_to_parent() -> None:
    """End with the parent, be it killed, and be the first to go when memory runs out.

    The signal of the system reaches this process alone; the end of standard input, which the parent holds open, makes
    it take its own children along.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):  # where the system does not allow it
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    threading.Thread(target=_end_with_standard_input, name="lifeline", daemon=True).start()


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
