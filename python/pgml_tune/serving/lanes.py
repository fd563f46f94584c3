"""The threads that compute: each takes one batch at a time, and a core."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pgml_tune.errors import SystemFault, TuneError
from pgml_tune.ipc.note import Note
from pgml_tune.serving.task import Task

# Whatever is raised in a thread: the request ends and the thread goes on, else all who ask it would wait for ever. What
# a library in Rust raises where it is given what it cannot handle is no Exception.
FAULTS = (BaseException,)
log = logging.getLogger("pgml_tune.serving")


@dataclass(frozen=True, slots=True)
class Job:
    """What a lane is to do with a model, and who hears of it there."""

    digest: str
    work: Callable[[], list[Task]]  # the requests that are done with it


class Lane:
    """A thread."""

    def __init__(self, number: int, note: Note, done: Callable[[Lane, list[Task], float], None]) -> None:
        self.number = number
        self.digest: str | None = None  # of the model that runs
        self._note = note
        self._done = done
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"lane {number}", daemon=True)
        self._thread.start()

    def start(self, job: Job) -> None:
        self.digest = job.digest
        self._jobs.put(job)

    def close(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = time.perf_counter()
            with self._note.running(self.number, job.digest):
                ended = job.work()
            self._done(self, ended, time.perf_counter() - started)
            del job, ended  # they hold a model


def as_told(error: BaseException) -> TuneError | MemoryError:
    """The error that a caller is told."""
    if isinstance(error, (TuneError, MemoryError)):
        return error
    log.error("a fault of the worker", exc_info=error)
    return SystemFault("the worker has failed on the request", detail=f"{error!r}.")
