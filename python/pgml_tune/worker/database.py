"""The worker of one database: claims its jobs and runs each in a thread of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psycopg

from pgml_tune import __version__
from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import TuneError
from pgml_tune.settings import Limits, Paths
from pgml_tune.store import engine_choice, job_run, registry, rollout
from pgml_tune.store import queue as queue_store
from pgml_tune.store.setting import read_settings
from pgml_tune.worker.attempt import Attempt
from pgml_tune.worker.caution import Caution
from pgml_tune.worker.embedding_queue import EmbeddingQueue
from pgml_tune.worker.folder import sweep
from pgml_tune.worker.hold import Hold, Timing
from pgml_tune.worker.link import Link, Place, Unreachable
from pgml_tune.worker.passages import Passages, open_passages
from pgml_tune.worker.suspicion import Suspicion
from pgml_tune.worker.upkeep import Upkeep
from pgml_tune.worker.wishes import SERVED_TASKS, Wish, Wishes

_POLL_SECONDS = 1.0
_SWEEP_SECONDS = 60.0
_TICK_SECONDS = 60.0
_WISH_SECONDS = 5.0
_ASKED_AGAIN = 3
_LEAVE_SECONDS, _CANCEL_SECONDS = 10.0, 0.5
_IDLE_SECONDS = 5.0  # a worker that was started for a job ends when none has waited for so long
_PATIENCE_SECONDS = 60.0  # and when the database could not be asked for so long
log = logging.getLogger("pgml_tune.worker")


def worker_name() -> str:
    """How this worker is known in its databases."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Slots:
    """How many jobs this worker runs, whatever database they are of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def take(self, most: int) -> bool:
        """Whether one more may run."""
        with self._lock:
            if self._taken >= most:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1


@dataclass(slots=True)
class DatabaseWorker:
    """Serves one database until it is told to stop, or has nothing left to do."""

    place: Place
    paths: Paths
    timing: Timing
    is_one_shot: bool
    slots: Slots = field(default_factory=Slots)
    stopping: threading.Event = field(default_factory=threading.Event)
    wishes: Wishes | None = None  # whom to tell what is wanted of the process that serves models; None: nobody
    suspicion: Suspicion = field(default_factory=Suspicion)  # what that process crashed of
    after_transaction: int | None = None  # whose end to wait for: before it there is nothing to see
    _attempts: list[threading.Thread] = field(default_factory=list)
    _helpers: list[tuple[threading.Thread, Link | None]] = field(default_factory=list)  # None: is not interrupted
    _queue: EmbeddingQueue | None = None
    _next_seen: float = 0.0
    _next_sweep: float = 0.0
    _next_tick: float = 0.0
    _next_wish: float = 0.0
    _last_work: float = field(default_factory=time.monotonic)
    _last_answer: float = field(default_factory=time.monotonic)
    _is_silent: bool = False

    def run(self) -> None:
        """Claim and run jobs."""
        link = Link(self.place)
        try:
            if self.is_one_shot and not self._is_wanted(link):
                log.info("[%s] is served by another worker", self.place.database)
                return
            log.info("[%s] worker %s serves this database", self.place.database, worker_name())
            self._start_helpers()
            while not self.stopping.is_set() and self._turn(link):
                self.stopping.wait(_POLL_SECONDS)
        finally:
            self.stopping.set()
            for thread in self._attempts:
                thread.join()
            self._end_helpers()
            self._leave(link)

    def _start_helpers(self) -> None:
        """What a worker that stays does beside jobs, each in a thread of its own: none waits for another."""
        if self.is_one_shot:
            return
        queue = self._queue = EmbeddingQueue(self.place, worker_name(), self.stopping, Caution(self.suspicion))
        self._help("feed", partial(queue.feed, self._passages()))
        if self.wishes is not None:  # else it would load a model of its own
            self._help("feed beside", partial(queue.feed_beside, self._passages()))
        for name, run in (("build", queue.build), ("upkeep", Upkeep(self.place, worker_name(), self.stopping).run)):
            link = Link(self.place)
            self._help(name, partial(run, link), link)

    def _help(self, name: str, run: Callable[[], None], link: Link | None = None) -> None:
        # A daemon: what cannot be ended keeps nobody from leaving.
        thread = threading.Thread(target=run, name=f"{self.place.database} {name}", daemon=True)
        self._helpers.append((thread, link))
        thread.start()

    def _end_helpers(self) -> None:
        """Wait for them, but not for indexes that they make, or for what may take for ever."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        for thread, link in self._helpers:
            while thread.is_alive() and time.monotonic() < deadline:
                if link is not None:
                    link.cancel()
                thread.join(_CANCEL_SECONDS)

    def _passages(self) -> Passages:
        return open_passages(self.paths, self.stopping, is_served=self.wishes is not None)

    def _is_wanted(self, link: Link) -> bool:
        """Whether no other worker of this kind serves the database; one that shows no life does not count."""
        for _ in range(_ASKED_AGAIN):
            outcome = link.use(job_run.take_post)
            if outcome != "unclear":
                return outcome == "taken"
            self.stopping.wait(_POLL_SECONDS)
        return True

    def _turn(self, link: Link) -> bool:
        """Do what is due; whether to go on."""
        self._attempts = [attempt for attempt in self._attempts if attempt.is_alive()]
        if self._attempts:
            self._last_work = time.monotonic()
        try:
            goes_on = link.use(self._work)
            self._last_answer, self._is_silent = time.monotonic(), False
        except Unreachable as error:
            silence = time.monotonic() - self._last_answer
            if not self._is_silent:
                log.warning("[%s] cannot be asked: %s", self.place.database, error)
            self._is_silent = True
            goes_on = bool(self._attempts) or not self.is_one_shot or silence < _PATIENCE_SECONDS
        except (psycopg.Error, TuneError) as error:
            log.error("[%s] is served no more: %s", self.place.database, error)
            goes_on = False
        return goes_on

    def _work(self, db: ConnectionDatabase) -> bool:
        now = time.monotonic()
        version = job_run.extension_version(db)
        if version != __version__:
            found = "no extension" if version is None else f"extension {version}, not {__version__}, of"
            log.info('[%s] has %s "pgml_tune"', self.place.database, found)
            return False
        if now >= self._next_seen:
            job_run.see_worker(db, worker_name(), self.is_one_shot)
            self._next_seen = now + self.timing.heartbeat_seconds
        if self._is_early(db):
            self._last_work = now
        if now >= self._next_sweep:
            for folder in sweep(db, self.paths):
                log.info('[%s] removed "%s", left by a job that was killed', self.place.database, folder)
            self._next_sweep = now + _SWEEP_SECONDS
        if not self.is_one_shot and now >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            self._tick(db)
        if self._queue is not None:
            self._queue.tell(queue_store.is_needed(db))
        limits = Limits.from_rows(read_settings(db)[1])
        if self.wishes is not None and now >= self._next_wish:
            self._next_wish = now + _WISH_SECONDS
            digests = registry.served_digests(db, SERVED_TASKS)
            known = [digest for _, digest in registry.all_versions(db)]
            self.wishes.tell(db.name, Wish.of(limits, digests, engine_choice.choices(db), known))
        while self._claim(db, limits):
            self._last_work = now
        if not self.is_one_shot or now - self._last_work < _IDLE_SECONDS:
            return True
        # First, so that nobody counts on this worker any more; whoever has before keeps it from leaving.
        job_run.forget_workers(db, worker_name())
        if job_run.may_leave(db):
            return False
        self._next_seen, self._last_work = now, now
        return True

    def _tick(self, db: ConnectionDatabase) -> None:
        """Let rollouts go on; what is wrong with one keeps no job from running."""
        try:
            rollout.tick_if_wanted(db)
        except psycopg.Error as error:
            if db.is_lost:
                raise
            log.warning("[%s] rollout_tick() has failed: %s", self.place.database, error)

    def _is_early(self, db: ConnectionDatabase) -> bool:
        if self.after_transaction is not None:
            if job_run.transaction_status(db, self.after_transaction) == "in progress":
                return True
            self.after_transaction = None
        return False

    def _claim(self, db: ConnectionDatabase, limits: Limits) -> bool:
        if not self.slots.take(limits.jobs_running):
            return False
        thread = None
        try:
            claim = job_run.claim(db, worker_name(), self.timing.lease_seconds, limits.jobs_running)
            if claim is not None:
                attempt = Attempt(Hold(claim, Link(self.place), self.timing, self.stopping), self.paths, limits)
                thread = threading.Thread(target=self._run, args=(attempt,), name=claim.label)
        finally:
            if thread is None:
                self.slots.give_back()
        if thread is None:
            return False
        self._attempts.append(thread)
        thread.start()
        return True

    def _run(self, attempt: Attempt) -> None:
        try:
            attempt.run()
        finally:
            self.slots.give_back()

    def _leave(self, link: Link) -> None:
        if self.wishes is not None and self.place.database is not None:
            self.wishes.forget(self.place.database)
        try:
            link.use(lambda db: job_run.forget_workers(db, worker_name()))
        except (Unreachable, psycopg.Error):
            pass
        link.close()
        log.info("[%s] worker %s has ended", self.place.database, worker_name())
