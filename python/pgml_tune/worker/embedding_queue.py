"""The queue of one database: rows that wait are embedded, collections that are whole get their indexes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psycopg

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import ObjectNotFound, SystemFault, TuneError
from pgml_tune.settings import Limits
from pgml_tune.store import queue as store
from pgml_tune.store import setting
from pgml_tune.store.queue import Queue
from pgml_tune.store.upkeep import is_first
from pgml_tune.worker.caution import Caution
from pgml_tune.worker.feeding import Feeding, Passages
from pgml_tune.worker.link import Link, Place, Unreachable

_POLL_SECONDS = 0.5
_SWEEP_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # of a collection that cannot be fed now
_TOLD_PAUSE = {SystemFault.sqlstate: 4.0}  # that a warning is worth: models may just have begun to be served
_BUILD_LOCK = "2s"  # whoever waits for a table holds up all who come after
_PASSING = ("42704", "55P03", "40P01", "40001")  # dropped, or in somebody else's hands: nothing to tell
# Of ours, or of what somebody has made of his collection: it must not end the thread, which feeds the others, too.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
           ValueError)  # fmt: skip
_FAILURES = (TuneError, psycopg.Error, *_FAULTS)
log = logging.getLogger("pgml_tune.worker")


@dataclass(slots=True)
class Pauses:
    """Which collections are left alone for a while, since something was wrong with them, and which not."""

    clock: Callable[[], float] = time.monotonic
    _until: dict[int, tuple[float, float]] = field(default_factory=dict)

    def is_paused(self, collection_id: int) -> bool:
        return self.clock() < self._until.get(collection_id, (0.0, 0.0))[0]

    def pause(self, collection_id: int) -> float:
        """Leave it alone, twice as long each time; for how many seconds now."""
        _, before = self._until.get(collection_id, (0.0, 0.0))
        wait = min(2 * before or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._until[collection_id] = self.clock() + wait, wait
        return wait

    def end(self, collection_id: int) -> None:
        """It works again."""
        self._until.pop(collection_id, None)


@dataclass(slots=True)
class EmbeddingQueue:
    """Loops over the collections in mode queue, each in a thread, and while there are any in a session of its own."""

    place: Place
    worker: str  # its name in the database
    stopping: threading.Event
    caution: Caution = field(default_factory=Caution)
    _pauses: Pauses = field(default_factory=Pauses)
    _is_needed: threading.Event = field(default_factory=threading.Event)
    _has_many: threading.Event = field(default_factory=threading.Event)  # more rows wait than a batch takes
    _next_sweep: float = 0.0

    def tell(self, is_needed: bool) -> None:
        """Whether there is anything to do in the database: sessions are scarce."""
        (self._is_needed.set if is_needed else self._is_needed.clear)()

    def feed(self, passages: Passages) -> None:
        """Embed rows as they come, until told to stop."""
        self._whenever(self._is_needed, partial(self._feed_all, passages), Link(self.place))

    def feed_beside(self, passages: Passages) -> None:
        """Embed rows while there are many: what is read and stored here does not keep the model waiting."""
        self._whenever(self._has_many, partial(self._feed_all, passages), Link(self.place))

    def build(self, link: Link) -> None:
        """Queue what a collection begins with, and open it when all of that is done, until told to stop."""
        self._whenever(self._is_needed, Builder(self).turn, link)

    def _whenever(self, wanted: threading.Event, turn: Callable[[ConnectionDatabase], bool], link: Link) -> None:
        while not self.stopping.is_set():
            if wanted.wait(_POLL_SECONDS):
                self._loop(wanted, turn, link)

    def _loop(self, wanted: threading.Event, turn: Callable[[ConnectionDatabase], bool], link: Link) -> None:
        while wanted.is_set() and not self.stopping.is_set():
            is_busy = False
            try:
                is_busy = link.use(turn)
            except Unreachable:
                pass  # the worker of the database tells
            except _FAILURES as error:
                log.warning("[%s] the queue cannot be asked: %s", self.place.database, error, exc_info=_fault(error))
                self.stopping.wait(_LONGEST_PAUSE)
            if not is_busy:
                self.stopping.wait(_POLL_SECONDS)
        link.close()

    def _feed_all(self, passages: Passages, db: ConnectionDatabase) -> bool:
        if time.monotonic() >= self._next_sweep:
            store.sweep(db)
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        if not store.is_fed(db):
            self._has_many.clear()
            return False
        done, has_many = 0, False
        limits = Limits.from_rows(setting.read_settings(db)[1])
        for queue in store.queues(db):
            if self.stopping.is_set():
                return False
            if queue.is_waiting and not self._pauses.is_paused(queue.collection_id):
                feeding = Feeding(db, queue, passages, limits, self.caution)
                fed = self.guarded(db, self._pauses, queue, feeding.feed)
                done, has_many = done + fed, has_many or fed >= queue.batch_size
        if has_many:
            self._has_many.set()
        elif not done:
            self._has_many.clear()
        return done > 0

    def guarded(self, db: ConnectionDatabase, pauses: Pauses, queue: Queue, work: Callable[[], int]) -> int:
        """What the work on one collection gives; what is wrong with it keeps no other waiting."""
        try:
            done = work()
        except _FAILURES as error:
            if db.is_lost:
                raise
            wait, sqlstate = pauses.pause(queue.collection_id), getattr(error, "sqlstate", None)
            if sqlstate == ObjectNotFound.sqlstate:
                self._next_sweep = 0.0  # dropped meanwhile, but for the rows that were held here
            is_news = wait == _TOLD_PAUSE.get(sqlstate or "", _FIRST_PAUSE)
            if is_news and sqlstate not in _PASSING and not self.stopping.is_set():
                log.warning(
                    "[%s] %s: left for a while, %s", self.place.database, queue, error, exc_info=_fault(error)
                )  # fmt: skip
            return 0
        pauses.end(queue.collection_id)
        return done


@dataclass(slots=True)
class Builder:
    """Makes collections whole: one worker of a database does, whatever their number."""

    queue_worker: EmbeddingQueue
    _pauses: Pauses = field(default_factory=Pauses)
    _marks: dict[int, int] = field(default_factory=dict)  # the last row that a collection waits for

    def turn(self, db: ConnectionDatabase) -> bool:
        """Look at all collections once; whether there may be more to do at once."""
        if not store.is_fed(db):
            return False
        if not is_first(db, self.queue_worker.worker):
            self._marks.clear()
            return False
        for queue in store.queues(db):
            if not queue.is_filled and not self._pauses.is_paused(queue.collection_id):
                self.queue_worker.guarded(db, self._pauses, queue, partial(self._build, db, queue))
        return False

    def _build(self, db: ConnectionDatabase, queue: Queue) -> int:
        mark = self._marks.get(queue.collection_id)
        if mark is None:
            with db.transaction():
                store.set_timeouts(db, "0", _BUILD_LOCK)
                queued, mark = store.fill(db, queue.collection_id)
                db.renew()
            self._marks[queue.collection_id] = mark
            log.info("%s: %d rows are queued", queue, queued)
        if store.is_due(db, queue.collection_id, mark):
            return 0
        started = time.monotonic()
        with db.transaction():
            # Those that feed it wait for the index, nobody else does.
            store.set_timeouts(db, "0", _BUILD_LOCK)
            store.finish(db, queue.collection_id)
            db.renew()
        del self._marks[queue.collection_id]
        log.info("%s: whole, its indexes took %.1f s", queue, time.monotonic() - started)
        return 1


def _fault(error: BaseException) -> BaseException | None:
    """An error that nobody expects, to be logged with where it was raised."""
    return error if isinstance(error, _FAULTS) else None
