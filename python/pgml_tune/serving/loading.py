"""Brings models into memory, for requests that wait for them and for those that will."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from pgml_tune.errors import QuotaExceeded
from pgml_tune.ipc.note import Note
from pgml_tune.serving.beside import Beside
from pgml_tune.serving.faults import FAULTS, as_told
from pgml_tune.serving.hosted import Model, Models
from pgml_tune.serving.task import Task

LOADING = 0  # place in the note
_ROOM_SECONDS, _ROOM_LOOK_SECONDS = 2.0, 0.02  # that one model waits for another to be used no more
_LINE_SECONDS = 10.0  # at most one line in so long tells of models that cannot be loaded
log = logging.getLogger("pgml_tune.serving")


@dataclass(slots=True)
class Loading:
    """The models that are on their way, and the requests that wait for them."""

    loop: asyncio.AbstractEventLoop
    models: Models
    note: Note
    beside: Beside
    threads: int  # that a model may have which writes
    begin: Callable[[Task, Model], None]
    refuse: Callable[[Task, BaseException], None]
    pump: Callable[[], None]
    _tasks: dict[str, list[Task]] = field(default_factory=lambda: defaultdict(list))
    _next_line: float = 0.0

    def wait(self, task: Task) -> None:
        """Let a request begin as soon as its model is there."""
        task.loads = 1
        is_begun = task.digest in self._tasks
        self._tasks[task.digest].append(task)
        if not is_begun:
            self._start(task.digest)

    def load(self, digests: Iterable[str]) -> None:
        """Load models, whether or not anybody waits for them."""
        for digest in digests:
            if digest not in self._tasks:
                self._start(digest)

    def _start(self, digest: str, until: float | None = None) -> None:
        self._tasks[digest]  # it is being loaded, even if nobody waits
        until = until or time.monotonic() + _ROOM_SECONDS
        try:
            self.models.make_room(digest)
        except QuotaExceeded as error:
            # What is in its way may be in use for the moment only.
            if time.monotonic() < until and self.models.may_have_room(digest):
                self.loop.call_later(_ROOM_LOOK_SECONDS, self._start, digest, until)
            else:
                self._give_up(digest, error)
            return
        except FAULTS as error:
            self._give_up(digest, error)
            return
        self.beside.load(digest, partial(self._open, digest))
        self.pump()

    def _open(self, digest: str) -> None:
        """Load a model, in the loader's thread."""
        started = time.perf_counter()
        try:
            with self.note.running(LOADING, digest):
                model = self.models.open(digest, self.threads)
        except FAULTS as error:
            self.loop.call_soon_threadsafe(self._fail, digest, error)
            return
        log.info("loaded %s, %d MB, in %.0f ms", digest[:12], model.bytes >> 20, (time.perf_counter() - started) * 1000)
        self.loop.call_soon_threadsafe(self._keep, model)

    def _keep(self, model: Model) -> None:
        self.beside.order.end(model.digest)
        self.models.keep(model)
        for task in self._tasks.pop(model.digest, []):
            if not task.is_over:
                self.begin(task, model)
        self.load(self.models.outdated())  # another way may have been chosen meanwhile
        self.pump()

    def _fail(self, digest: str, error: BaseException) -> None:
        self.beside.order.end(digest)
        self._give_up(digest, error)
        self.pump()

    def _give_up(self, digest: str, error: BaseException) -> None:
        told = as_told(error)
        self.models.give_up(digest)
        if time.monotonic() >= self._next_line:  # a peer may ask for any number of models that there are not
            self._next_line = time.monotonic() + _LINE_SECONDS
            log.warning("%s is not loaded: %s", digest[:12], told)
        for task in self._tasks.pop(digest, []):
            self.refuse(task, told)
