"""What becomes of requests: models are loaded for them, their texts read, and batches of them given to lanes.

All runs in the thread of the event loop but for what is handed to the lanes, the readers and the loader.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from pgml_tune.engine.batching import SERVED_SECONDS, batch_size, token_budget
from pgml_tune.engine.dynamic_batching import BatchLimits, Part, Wait, form_batch
from pgml_tune.engine.generator import Generator
from pgml_tune.errors import QuotaExceeded, SystemFault
from pgml_tune.ipc.note import Note
from pgml_tune.serving.figures import Figures
from pgml_tune.serving.hosted import Model, Models
from pgml_tune.serving.lanes import FAULTS, Job, Lane, as_told
from pgml_tune.serving.task import Task

_BULK_WAITS = 10  # times max_wait_ms that bulk work may wait behind interactive calls
_SUSPECT_SECONDS = 0.5  # that a model which has to run alone waits at most until others make way
_READ_AT_ONCE = 4096  # bytes of texts that the event loop reads by itself
_READERS = 2
_LOADING, _WRITING, FIRST_LANE = 0, 1, 2  # places in the note
_ROOM_SECONDS, _ROOM_LOOK_SECONDS = 2.0, 0.02  # that one model waits for another to be used no more
_LINE_SECONDS = 10.0  # at most one line in so long tells of models that cannot be loaded
log = logging.getLogger("pgml_tune.serving")


@dataclass(slots=True)
class Limits:
    """What an administrator allows."""

    max_wait_ms: int
    batch_size: int
    batch_tokens: int
    queue_requests: int


@dataclass(slots=True)
class Totals:
    """What has been done since the start."""

    requests: int = 0
    errors: int = 0
    shed: int = 0
    texts: int = 0
    batches: int = 0
    busy_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Waiting:
    """Texts of a task that wait for a lane."""

    part: Part
    task: Task
    model: Model
    places: Sequence[int]


@dataclass(frozen=True, slots=True)
class Held:
    """What is done beside the lanes, loading or writing, and has not begun."""

    digest: str
    arrived: float
    begin: Callable[[], object]


@dataclass(slots=True)
class Scheduler:
    """Takes requests and sees to their answers."""

    loop: asyncio.AbstractEventLoop
    models: Models
    limits: Limits
    note: Note
    lane_count: int
    shares_hardware: bool = False  # lanes compute on one GPU, not each on a core of its own
    totals: Totals = field(default_factory=Totals)
    figures: Figures = field(default_factory=Figures)
    quarantined: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()  # ran while the process crashed: each runs alone
    when_idle: Callable[[], None] = lambda: None
    _lanes: list[Lane] = field(default_factory=list)
    _free: deque[Lane] = field(default_factory=deque)
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _loading: dict[str, list[Task]] = field(default_factory=lambda: defaultdict(list))
    _open: set[Task] = field(default_factory=set)
    _held: list[Held] = field(default_factory=list)
    _beside: list[str] = field(default_factory=list)  # models that are loaded or write now
    _next_line: float = 0.0  # of models that cannot be loaded
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _turn: int = 0
    _served: dict[int, int] = field(default_factory=dict)  # the turn that each session had last
    _timer: asyncio.TimerHandle | None = None
    _readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, "reader"))
    _writers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "writer"))
    _loader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "loader"))

    def begin(self) -> None:
        """Start the lanes."""
        self.resize(self.lane_count)

    def resize(self, lane_count: int) -> None:
        """Compute in so many lanes from now on; one that is too many ends with its batch."""
        self.lane_count = lane_count
        taken = {lane.number for lane in self._lanes}
        numbers = (number for number in itertools.count(FIRST_LANE) if number not in taken)
        while len(self._lanes) < lane_count:
            lane = Lane(next(numbers), self.note, self._lane_is_done)
            self._lanes.append(lane)
            self._free.append(lane)
        while len(self._lanes) > lane_count and self._free:
            self._end_lane(self._free.pop())
        self._pump()

    def _end_lane(self, lane: Lane) -> None:
        self._lanes.remove(lane)
        lane.close()

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._readers.shutdown(wait=False)
        self._loader.shutdown(wait=False)
        self._writers.shutdown(wait=False)

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
            self._load(task)
        else:
            self._begin(task, model)

    def load(self, digests: Iterable[str]) -> None:
        """Load models that nobody has asked for yet."""
        for digest in digests:
            if digest not in self._loading and digest not in self.quarantined:
                self._start_loading(digest)

    def forget(self, session: int) -> None:
        """Drop what waits for a session that is gone."""
        self._served.pop(session, None)
        for task in [task for task in self._open if task.peer.session == session]:
            self._end(task)

    def _load(self, task: Task) -> None:
        task.loads = 1
        is_begun = task.digest in self._loading
        self._loading[task.digest].append(task)
        if not is_begun:
            self._start_loading(task.digest)

    def _start_loading(self, digest: str, until: float | None = None) -> None:
        self._loading[digest]  # it is being loaded, even if nobody waits
        until = until or time.monotonic() + _ROOM_SECONDS
        try:
            self.models.make_room(digest)
        except QuotaExceeded as error:
            # What is in its way may be in use for the moment only.
            if time.monotonic() < until and self.models.may_have_room(digest):
                self.loop.call_later(_ROOM_LOOK_SECONDS, self._start_loading, digest, until)
            else:
                self._not_loaded(digest, error)
            return
        except FAULTS as error:
            self._not_loaded(digest, error)
            return
        self._do_beside(digest, partial(self._loader.submit, self._open_model, digest))

    def _open_model(self, digest: str) -> None:
        started = time.perf_counter()
        try:
            with self.note.running(_LOADING, digest):
                model = self.models.open(digest, self.lane_count)
        except FAULTS as error:
            self.loop.call_soon_threadsafe(self._not_opened, digest, error)
            return
        log.info("loaded %s, %d MB, in %.0f ms", digest[:12], model.bytes >> 20, (time.perf_counter() - started) * 1000)
        self.loop.call_soon_threadsafe(self._loaded, model)

    def _loaded(self, model: Model) -> None:
        self._beside.remove(model.digest)
        self.models.keep(model)
        for task in self._loading.pop(model.digest, []):
            if not task.is_over:
                self._begin(task, model)
        self.load(self.models.outdated())  # another way may have been chosen meanwhile
        self._pump()

    def _not_opened(self, digest: str, error: BaseException) -> None:
        self._beside.remove(digest)
        self._not_loaded(digest, error)
        self._pump()

    def _not_loaded(self, digest: str, error: BaseException) -> None:
        told = as_told(error)
        self.models.give_up(digest)
        if time.monotonic() >= self._next_line:  # a peer may ask for any number of models that there are not
            self._next_line = time.monotonic() + _LINE_SECONDS
            log.warning("%s is not loaded: %s", digest[:12], told)
        for task in self._loading.pop(digest, []):
            self._refuse(task, told)

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
            self._do_beside(task.digest, partial(self._writers.submit, self._write_apart, task, model, model.writer))
        elif task.is_computed and sum(map(len, task.texts)) <= _READ_AT_ONCE:
            self._read(task, model)
            self._after_reading(task, model)
        else:
            self._readers.submit(self._read_apart, task, model)

    def _read_apart(self, task: Task, model: Model) -> None:
        self._read(task, model)
        self.loop.call_soon_threadsafe(self._after_reading, task, model)

    def _write_apart(self, task: Task, model: Model, writer: Generator) -> None:
        """Let a model write: one text at a time, for its library uses all threads for that."""
        if not task.is_over:
            try:
                with self.note.running(_WRITING, task.digest):
                    task.answer = task.write(writer)
            except FAULTS as error:
                task.error = as_told(error)
        self.loop.call_soon_threadsafe(self._written, task)

    def _written(self, task: Task) -> None:
        self._beside.remove(task.digest)
        self._finish(task)
        self._pump()

    def _do_beside(self, digest: str, begin: Callable[[], object]) -> None:
        """Load, or let write, in a thread that is no lane, as soon as the model may run."""
        self._held.append(Held(digest, time.monotonic(), begin))
        self._pump()

    def _begin_held(self) -> None:
        for held in list(self._held):
            if self._may_run(held.digest):
                self._held.remove(held)
                self._beside.append(held.digest)
                held.begin()

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
        if task.error is not None or not task.is_computed or not task.left:
            if task.is_computed:  # of no text at all
                self._form(task, model)
            self._finish(task)
            return
        is_mixable = model.config.is_batch_invariant and not task.values.get("alone")
        budget = min(token_budget(model.encoder.speed, SERVED_SECONDS), self.limits.batch_tokens)
        most_texts = model.most_texts(self.limits.batch_size)
        lengths = [len(tokens.ids) for tokens in task.tokens]
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        start = 0
        while start < len(order):
            size = min(batch_size(lengths[order[start]], budget), most_texts) if is_mixable else len(order)
            places = order[start : start + size]
            part = Part(
                number=next(self._numbers), digest=task.digest, session=task.peer.session, is_bulk=task.is_bulk,
                arrived=task.arrived, texts=len(places), tokens=sum(lengths[place] for place in places),
                longest=lengths[places[0]], most_tokens=budget, is_mixable=is_mixable, most_texts=most_texts,
            )  # fmt: skip
            self._waiting[part.number] = Waiting(part, task, model, places)
            start += size
        self._pump()

    def _pump(self) -> None:
        """Give free lanes what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            self._begin_held()
        while self._free:
            parts = self._runnable()
            if not parts:
                return
            is_idle = not self.shares_hardware or len(self._free) == len(self._lanes)
            wait_seconds = self.limits.max_wait_ms / 1000
            limits = BatchLimits(self.limits.batch_size, wait_seconds, wait_seconds * _BULK_WAITS)
            batch = form_batch(parts, time.monotonic(), is_idle, limits, self._served)
            if isinstance(batch, Wait):
                self._timer = self.loop.call_later(batch.seconds, self._pump)
                return
            self.figures.begun(batch, time.monotonic())
            chosen = [self._waiting.pop(part.number) for part in batch]
            self._turn += 1
            self._served.update((part.session, self._turn) for part in batch)
            lane = self._free.popleft()
            lane.start(Job(chosen[0].model.digest, partial(self._compute, chosen)))

    def _runnable(self) -> list[Part]:
        parts = [waiting.part for waiting in self._waiting.values()]
        if not self.suspects:
            return parts
        may_run = {digest: self._may_run(digest) for digest in {part.digest for part in parts}}
        return [part for part in parts if may_run[part.digest]]

    def _may_run(self, digest: str) -> bool:
        """Whether a model may run: one that may have crashed the process runs alone, so that the next crash tells."""
        if not self.suspects:
            return True
        running = {lane.digest for lane in self._lanes if lane not in self._free} | set(self._beside)
        if digest in self.suspects:
            return not running
        return not running & self.suspects and not self._is_suspect_late()

    def _is_suspect_late(self) -> bool:
        """Whether one has waited for so long until nothing else runs that nothing else may begin."""
        waiting = [(waiting.part.digest, waiting.part.arrived) for waiting in self._waiting.values()]
        waiting += [(held.digest, held.arrived) for held in self._held]
        latest = time.monotonic() - _SUSPECT_SECONDS
        return any(digest in self.suspects and arrived < latest for digest, arrived in waiting)

    def _compute(self, batch: list[Waiting]) -> list[Task]:
        """Compute a batch, in a lane; the requests that are done with it."""
        started = time.perf_counter()
        model = batch[0].model
        try:
            if batch[0].part.is_mixable:
                ended = self._compute_together(batch, model)
            else:
                task = batch[0].task
                task.compute_apart(model)
                task.work.seconds += time.perf_counter() - started
                ended = [task]
        except FAULTS as error:
            if len(batch) > 1:  # it may be the fault of one
                return [task for waiting in batch for task in self._compute([waiting])]
            batch[0].task.error = as_told(error)
            ended = [batch[0].task]
        for task in ended:
            self._form(task, model)
        return ended

    def _compute_together(self, batch: list[Waiting], model: Model) -> list[Task]:
        started = time.perf_counter()
        token_ids = [waiting.task.tokens[place].ids for waiting in batch for place in waiting.places]
        rows = model.encoder.run(token_ids)
        seconds = (time.perf_counter() - started) / len(token_ids)
        ended, start = [], 0
        for waiting in batch:
            count = len(waiting.places)
            # Another lane may have parts of the same task.
            with waiting.task.lock:
                is_complete = waiting.task.put(waiting.places, rows[start : start + count], seconds * count)
            if is_complete:
                ended.append(waiting.task)
            start += count
        return ended

    def _form(self, task: Task, model: Model) -> None:
        if task.error is None:
            try:
                task.answer = task.payload(model)
            except FAULTS as error:
                task.error = as_told(error)

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
            for number in [number for number, waiting in self._waiting.items() if waiting.task is task]:
                del self._waiting[number]
        model = self.models.loaded.get(task.digest)
        if model is not None and task.is_begun:
            model.users -= 1
        if not self._open:
            self.when_idle()

    def _lane_is_done(self, lane: Lane, ended: list[Task], seconds: float) -> None:
        self.loop.call_soon_threadsafe(self._take_back, lane, ended, seconds)

    def _take_back(self, lane: Lane, ended: list[Task], seconds: float) -> None:
        self.totals.batches += 1
        self.totals.busy_seconds += seconds
        lane.digest = None
        if len(self._lanes) > self.lane_count:
            self._end_lane(lane)
        else:
            self._free.append(lane)
        self._pump()  # first of all: the answers are formed, and a core is idle
        for task in ended:
            self._finish(task)
