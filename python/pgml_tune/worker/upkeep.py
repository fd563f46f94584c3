"""What a database needs from time to time, and cron would do where no worker runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import TuneError
from pgml_tune.settings import Limits
from pgml_tune.store import upkeep as store
from pgml_tune.store.setting import read_settings
from pgml_tune.worker.link import Link, Place, Unreachable

_LOOK_SECONDS = 1.0
_INGEST_SECONDS = 60.0
log = logging.getLogger("pgml_tune.worker")


@dataclass(slots=True)
class Upkeep:
    """Takes logged calls in each minute, and calls maintain() every few; one worker of a database does."""

    place: Place
    worker: str  # its name in the database
    stopping: threading.Event
    clock: Callable[[], float] = time.monotonic
    _ingested_at: float = field(init=False)
    _maintained_at: float = field(init=False)

    def __post_init__(self) -> None:
        # Not at once: a worker that is started again and again would do nothing else.
        self._ingested_at = self._maintained_at = self.clock()

    def run(self, link: Link) -> None:
        """Do what is due, until told to stop."""
        while not self.stopping.wait(_LOOK_SECONDS):
            if not self.is_due:
                continue
            try:
                link.use(self.turn)
                link.close()  # sessions are scarce
            except Unreachable:
                pass  # the worker of the database tells
            except (psycopg.Error, TuneError) as error:
                log.warning("[%s] upkeep has failed: %s", self.place.database, error)
        link.close()

    @property
    def is_due(self) -> bool:
        return self.clock() >= self._ingested_at + _INGEST_SECONDS

    def turn(self, db: ConnectionDatabase) -> None:
        """Do what is due; what fails is done again when it is due again."""
        if not self.is_due:
            return
        now = self._ingested_at = self.clock()
        minutes = Limits.from_rows(read_settings(db)[1]).maintain_minutes
        is_due = minutes > 0 and now >= self._maintained_at + 60 * minutes
        if is_due:
            self._maintained_at = now
        if store.is_first(db, self.worker):
            try:
                store.keep_up(db, is_due)
            except psycopg.errors.QueryCanceled as error:
                if not self.stopping.is_set():
                    log.warning("[%s] maintain() has not come to its end: %s", self.place.database, error)
            db.renew()
