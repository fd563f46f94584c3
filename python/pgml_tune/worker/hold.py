"""A claim that is kept up: its lease is renewed, and whoever works under it learns when to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.store import job_run
from pgml_tune.store.job_run import Claim
from pgml_tune.worker.judgement import Stop
from pgml_tune.worker.link import Link, Unreachable

_LOOK_SECONDS = 1.0  # how soon a cancel is seen
_AGAIN_SECONDS = 0.25
_STOPS = {"ok": None, "cancel": Stop.CANCEL, "lost": Stop.LOST}
Result = TypeVar("Result")


class Stopped(Exception):
    """The work on a job has to end."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.value)
        self.stop = stop


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a claim lasts, and how often it is renewed."""

    lease_seconds: float
    heartbeat_seconds: float


@dataclass(slots=True)
class Hold:
    """A claim with what it takes to keep it; used by one thread."""

    claim: Claim
    link: Link
    timing: Timing
    draining: threading.Event  # set when the worker is to end
    memory_bytes: int = 0  # the most that the job has held
    _claimed_at: float = field(default_factory=time.monotonic)
    _next_look: float = 0.0

    def stop(self) -> Stop | None:
        """Why to end the work, if so: asks the database once a second."""
        if self.draining.is_set():
            return Stop.DRAIN
        now = time.monotonic()
        if now < self._next_look:
            return None
        try:
            stop = self.link.use(self._ask)
        except Unreachable:
            return Stop.LOST if self._is_over() else None
        self._next_look = now + _LOOK_SECONDS
        return stop

    def keep_up(self, db: ConnectionDatabase) -> None:
        """Renew the lease in the middle of other statements, or stop those."""
        stop = Stop.DRAIN if self.draining.is_set() else self._ask(db)
        if stop is not None:
            raise Stopped(stop)

    def insist(self, work: Callable[[ConnectionDatabase], Result]) -> Result:
        """What `work` gives, tried until the database can be asked, while the lease lasts."""

        def held_work(db: ConnectionDatabase) -> Result:
            if self._ask(db) is Stop.LOST:
                raise Stopped(Stop.LOST)
            return work(db)

        while True:
            try:
                return self.link.use(held_work)
            except Unreachable:
                if self._is_over():
                    raise Stopped(Stop.LOST) from None
                time.sleep(_AGAIN_SECONDS)

    def _is_over(self) -> bool:
        return time.monotonic() > self._claimed_at + self.timing.lease_seconds

    def _ask(self, db: ConnectionDatabase) -> Stop | None:
        # The lease begins no later than the server has it.
        now = time.monotonic()
        if now < self._claimed_at + self.timing.heartbeat_seconds:
            return _STOPS[job_run.look(db, self.claim)]
        state = job_run.beat(db, self.claim, self.timing.lease_seconds, self.memory_bytes or None)
        if state != "lost":
            self._claimed_at = now
        return _STOPS[state]
