"""Texts that wait to be computed, and the lanes that compute them in batches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from pgml_tune.engine.batching import SERVED_SECONDS, batch_size, token_budget
from pgml_tune.engine.dynamic_batching import BatchLimits, Part, Wait, form_batch
from pgml_tune.ipc.note import Note
from pgml_tune.serving.faults import FAULTS, as_told
from pgml_tune.serving.figures import Figures
from pgml_tune.serving.hosted import Model
from pgml_tune.serving.lanes import Job, Lane
from pgml_tune.serving.limits import Limits, Totals
from pgml_tune.serving.order import Order
from pgml_tune.serving.task import Task

_BULK_WAITS = 10  # times max_wait_ms that bulk work may wait behind interactive calls


@dataclass(slots=True, eq=False)
class Waiting:
    """Texts of a task that wait for a lane."""

    part: Part
    task: Task
    model: Model
    places: Sequence[int]


@dataclass(slots=True)
class Computing:
    """All runs in the thread of the event loop but for `_compute` and what it calls."""

    loop: asyncio.AbstractEventLoop
    note: Note
    first_place: int  # of a lane in the note
    limits: Limits
    order: Order
    shares_hardware: bool  # lanes compute on one GPU, not each on a core of its own
    finish: Callable[[Task], None]
    pump_all: Callable[[], None]  # here and beside
    totals: Totals
    figures: Figures
    lane_count: int = 0
    lanes: list[Lane] = field(default_factory=list)
    free: deque[Lane] = field(default_factory=deque)
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _turn: int = 0
    _served: dict[int, int] = field(default_factory=dict)  # the turn that each session had last
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.order.waiting.append(self._models_waiting)

    def resize(self, lane_count: int) -> None:
        """Compute in so many lanes from now on; one that is too many ends with its batch."""
        self.lane_count = lane_count
        taken = {lane.number for lane in self.lanes}
        numbers = (number for number in itertools.count(self.first_place) if number not in taken)
        while len(self.lanes) < lane_count:
            lane = Lane(next(numbers), self.note, self._lane_is_done)
            self.lanes.append(lane)
            self.free.append(lane)
        while len(self.lanes) > lane_count and self.free:
            self._end_lane(self.free.pop())
        self.pump()

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()

    def add(self, task: Task, model: Model) -> None:
        """Take a request whose texts are read, in parts of about one length."""
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
        self.pump()

    def drop(self, task: Task) -> None:
        """Compute nothing more of a request."""
        for number in [number for number, waiting in self._waiting.items() if waiting.task is task]:
            del self._waiting[number]

    def forget(self, session: int) -> None:
        """Keep no turn for a session that is gone."""
        self._served.pop(session, None)

    def pump(self) -> None:
        """Give free lanes what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.free:
            parts = self._runnable()
            if not parts:
                return
            is_idle = not self.shares_hardware or len(self.free) == len(self.lanes)
            wait_seconds = self.limits.max_wait_ms / 1000
            limits = BatchLimits(self.limits.batch_size, wait_seconds, wait_seconds * _BULK_WAITS)
            batch = form_batch(parts, time.monotonic(), is_idle, limits, self._served)
            if isinstance(batch, Wait):
                self._timer = self.loop.call_later(batch.seconds, self.pump)
                return
            self._start(batch)

    def _start(self, batch: Sequence[Part]) -> None:
        self.figures.begun(batch, time.monotonic())
        chosen = [self._waiting.pop(part.number) for part in batch]
        self._turn += 1
        self._served.update((part.session, self._turn) for part in batch)
        digest = chosen[0].model.digest
        self.order.begin(digest)
        self.free.popleft().start(Job(digest, partial(self._compute, chosen)))

    def _runnable(self) -> list[Part]:
        parts = [waiting.part for waiting in self._waiting.values()]
        if not self.order.suspects:
            return parts
        may_run = {digest: self.order.may_run(digest) for digest in {part.digest for part in parts}}
        return [part for part in parts if may_run[part.digest]]

    def _models_waiting(self) -> Iterator[tuple[str, float]]:
        return ((waiting.part.digest, waiting.part.arrived) for waiting in self._waiting.values())

    def _compute(self, batch: list[Waiting]) -> list[Task]:
        """Compute a batch, in a lane; the requests that are done with it."""
        started = time.perf_counter()
        model = batch[0].model
        try:
            if batch[0].part.is_mixable:
                ended = _compute_together(batch, model)
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
            task.form(model)
        return ended

    def _lane_is_done(self, lane: Lane, ended: list[Task], seconds: float) -> None:
        self.loop.call_soon_threadsafe(self._take_back, lane, ended, seconds)

    def _take_back(self, lane: Lane, ended: list[Task], seconds: float) -> None:
        self.totals.batches += 1
        self.totals.busy_seconds += seconds
        self.order.end(lane.digest or "")
        lane.digest = None
        if len(self.lanes) > self.lane_count:
            self._end_lane(lane)
        else:
            self.free.append(lane)
        self.pump_all()  # first of all: the answers are formed, and a core is idle
        for task in ended:
            self.finish(task)

    def _end_lane(self, lane: Lane) -> None:
        self.lanes.remove(lane)
        lane.close()


def _compute_together(batch: list[Waiting], model: Model) -> list[Task]:
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
