"""What goes wrong in a thread of the worker, and what a caller is told of it."""

from __future__ import annotations

import logging

from pgml_tune.errors import SystemFault, TuneError

# Whatever is raised in a thread: the request ends and the thread goes on, else all who ask it would wait for ever. What
# a library in Rust raises where it is given what it cannot handle is no Exception.
FAULTS = (BaseException,)
log = logging.getLogger("pgml_tune.serving")


def as_told(error: BaseException) -> TuneError | MemoryError:
    """The error that a caller is told."""
    if isinstance(error, (TuneError, MemoryError)):
        return error
    log.error("a fault of the worker", exc_info=error)
    return SystemFault("the worker has failed on the request", detail=f"{error!r}.")
