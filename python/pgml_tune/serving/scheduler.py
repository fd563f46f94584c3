"""What becomes of requests: models are loaded for them, their texts read and computed, and the answers sent.

All runs in the thread of the event loop but for what is handed to the readers, and to the threads of the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pgml_tune.engine.generator import Generator
from pgml_tune.errors import QuotaExceeded, SystemFault
from pgml_tune.ipc.note import Note
from pgml_tune.serving.beside import Beside
from pgml_tune.serving.computing import Computing
from pgml_tune.serving.faults import FAULTS, as_told
from pgml_tune.serving.figures import Figures
from pgml_tune.serving.hosted import Model, Models
from pgml_tune.serving.limits import Limits, Totals
from pgml_tune.serving.loading import LOADING, Loading
from pgml_tune.serving.order import Order
from pgml_tune.serving.task import Task

_READ_AT_ONCE = 4096  # bytes of texts that the event loop reads by itself
_READERS = 2
_WRITING = LOADING + 1  # place in the note
FIRST_LANE = _WRITING + 1


class Scheduler:
    """Takes requests and sees to their answers."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, models: Models, limits: Limits, note: Note, *, shares_hardware: bool
    ) -> None:
        self.loop, self.models, self.limits = loop, models, limits
        self.totals, self.figures, self.order = Totals(), Figures(), Order()
        self.quarantined: frozenset[str] = frozenset()
        self._note = note
        self._open: set[Task] = set()
        self._readers = ThreadPoolExecutor(_READERS, "reader")
        self._beside = Beside(self.order)
        self.computing = Computing(
            loop, note, FIRST_LANE, limits, self.order, shares_hardware, self._finish, self._pump, self.totals,
            self.figures,
        )  # fmt: skip
        self._loading = Loading(loop, models, note, self._beside, 1, self._begin, self._refuse, self._pump)

    def resize(self, lane_count: int) -> None:
        """Compute in so many lanes from now on."""
        self._loading.threads = lane_count
        self.computing.resize(lane_count)

    def close(self) -> None:
        self.computing.close()
        self._beside.close()
        self._readers.shutdown(wait=False)

    @property
    def queued(self) -> int:
        """Requests that are not answered yet."""
        return len(self._open)

    def submit(self, task: Task) -> None:
        """Take a request, or refuse it at once."""
        self.totals.requests += 1
        if len(self._open) >= self.limits.queue_requests:
            self.totals.shed += 1
            task.peer.refuse(task, QuotaExceeded(
                f"{len(self._open)} requests wait at the worker, as many as may",
                detail="Setting queue_requests bounds them.",
                hint="Ask again later, or let more wait: SELECT configure('queue_requests', ...)",
            ))  # fmt: skip
            return
        self._open.add(task)
        if task.digest in self.quarantined:
            self._refuse(task, SystemFault(
                f'artifact "{task.digest[:12]}" has crashed the worker several times and is not run any more',
                detail="Other models are served as before.",
                hint="Move to another version: SELECT rollback_model('name'). To try again restart pgml-tune worker.",
            ))  # fmt: skip
            return
        model = self.models.get(task.digest)
        if model is None:
            self._loading.wait(task)
        else:
            self._begin(task, model)

    def load(self, digests: Iterable[str]) -> None:
        """Load models that nobody has asked for yet."""
        self._loading.load(digest for digest in digests if digest not in self.quarantined)

    def forget(self, session: int) -> None:
        """Drop what waits for a session that is gone."""
        self.computing.forget(session)
        for task in [task for task in self._open if task.peer.session == session]:
            self._end(task)

    def _pump(self) -> None:
        """Begin what may, since something has ended."""
        self._beside.pump()
        self.computing.pump()

    def _begin(self, task: Task, model: Model) -> None:
        model.calls += 1
        model.users += 1
        task.is_begun = True
        try:
            task.check(model)
        except FAULTS as error:
            self._refuse(task, as_told(error))
            return
        if model.writer is not None:
            self._beside.write(task.digest, partial(self._write, task, model.writer))
            self._pump()
        elif task.is_computed and sum(map(len, task.texts)) <= _READ_AT_ONCE:
            self._read(task, model)
            self._after_reading(task, model)
        else:
            self._readers.submit(self._read_apart, task, model)

    def _read_apart(self, task: Task, model: Model) -> None:
        self._read(task, model)
        self.loop.call_soon_threadsafe(self._after_reading, task, model)

    def _read(self, task: Task, model: Model) -> None:
        try:
            if task.is_computed:
                task.read(model)
            else:
                task.answer = task.measure(model)
        except FAULTS as error:
            task.error = as_told(error)

    def _after_reading(self, task: Task, model: Model) -> None:
        if task.is_over:
            return
        if task.left and task.error is None:
            self.computing.add(task, model)
            return
        if task.is_computed:  # of no text at all
            task.form(model)
        self._finish(task)

    def _write(self, task: Task, writer: Generator) -> None:
        """Let a model write, in the writer's thread."""
        if not task.is_over:
            try:
                with self._note.running(_WRITING, task.digest):
                    task.answer = task.write(writer)
            except FAULTS as error:
                task.error = as_told(error)
        self.loop.call_soon_threadsafe(self._written, task)

    def _written(self, task: Task) -> None:
        self.order.end(task.digest)
        self._finish(task)
        self._pump()

    def _finish(self, task: Task) -> None:
        if task.is_over:
            return
        if task.error is not None:
            self._refuse(task, task.error)
            return
        assert task.answer is not None
        self.totals.texts += len(task.texts)
        task.peer.answer(task, task.answer)
        self._end(task)

    def _refuse(self, task: Task, error: BaseException) -> None:
        if not task.is_over:
            self.totals.errors += 1
            task.peer.refuse(task, error)
            self._end(task)

    def _end(self, task: Task) -> None:
        task.is_over = True
        self._open.discard(task)
        if task.left:  # dropped before all of it was computed
            self.computing.drop(task)
        model = self.models.loaded.get(task.digest)
        if model is not None and task.is_begun:
            model.users -= 1
