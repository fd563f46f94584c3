"""How a preparation leaves room for those who use the tables, and how they see it."""

from __future__ import annotations

import time
from collections.abc import Callable

from pgml_tune.db import Session
from pgml_tune.errors import NotReady
from pgml_tune.service.progress import Progress
from pgml_tune.store import preparation as store
from pgml_tune.store.preparation import Goal

_LONGEST_SLEEP_SECONDS = 1.0  # in one transaction
_MAX_TRIES = 60  # of a lock; each holds up others for a moment
_LONGEST_PAUSE_SECONDS = 5.0  # between two of them


class Pace(Progress):
    """Progress that stands in stat_progress, too, and is held to a rate."""

    def __init__(
        self,
        db: Session,
        goal: Goal,
        thing: str,
        total: int,
        rows_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(db, thing, total, clock)
        self._goal = goal
        self._rate = rows_per_second
        self.enter("filling")

    def enter(self, phase: str) -> None:
        """Show that a phase begins."""
        store.show_progress(self._db, self._goal, self._what, phase, self._total, self._done)
        self._db.commit()

    def add(self, rows: int) -> None:
        super().add(rows)
        if self._rate is None:
            return
        due = self._started + self._done / self._rate
        while (wait := due - self._clock()) > 0:
            self._db.sleep(min(wait, _LONGEST_SLEEP_SECONDS))
            self._db.commit()

    def tell(self, seconds: float) -> None:
        super().tell(seconds)
        self.enter("filling")


def insist(db: Session, thing: str, work: Callable[[], bool]) -> None:
    """Do what needs a lock on a table that is used, without holding up its users for long, and commit it."""
    for turn in range(_MAX_TRIES):
        if work():
            db.commit()
            return
        if turn == 0:
            db.notice(f"{thing}: its table is in use, waiting for a moment between its writers")
        db.commit()
        db.sleep(min(0.05 * 2**turn, _LONGEST_PAUSE_SECONDS))
    raise NotReady(f"{thing}: its table was in use all the time", hint="SELECT * FROM pg_stat_activity")
