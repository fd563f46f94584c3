"""The threads that compute: each takes one batch at a time, and a core."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pgml_tune.ipc.note import Note
from pgml_tune.serving.task import Task


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
