"""The worker of a cluster: one worker for each of its databases that has the extension."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from pgml_tune import __version__
from pgml_tune.settings import Paths
from pgml_tune.store import job_run
from pgml_tune.worker.database import DatabaseWorker, Slots
from pgml_tune.worker.hold import Timing
from pgml_tune.worker.link import Place, Unreachable, ask_once
from pgml_tune.worker.suspicion import Suspicion
from pgml_tune.worker.wishes import Wishes

_SCAN_SECONDS = 60.0
_RETRY_SECONDS = 2.0
log = logging.getLogger("pgml_tune.worker")


@dataclass(slots=True)
class ClusterWorker:
    """Serves the databases of a cluster, all or some, until it is told to stop."""

    dsn: str
    only: Collection[str]  # empty: all
    paths: Paths
    timing: Timing
    stopping: threading.Event
    wishes: Wishes | None = None  # whom the databases tell what they want of the process that serves models
    suspicion: Suspicion = field(default_factory=Suspicion)  # what that process crashed of
    _slots: Slots = field(default_factory=Slots)
    _served: dict[str, tuple[DatabaseWorker, threading.Thread]] = field(default_factory=dict)
    _reported: dict[str, str | None] = field(default_factory=dict)
    _has_scanned: bool = False

    def run(self) -> None:
        """Look for databases each minute and serve them."""
        try:
            while not self.stopping.is_set():
                try:
                    self._scan()
                    wait = _SCAN_SECONDS
                except Unreachable as error:
                    log.warning("the server cannot be asked: %s", error)
                    wait = _RETRY_SECONDS
                self.stopping.wait(wait)
        finally:
            for worker, _ in self._served.values():
                worker.stopping.set()
            for _, thread in self._served.values():
                thread.join()

    def _scan(self) -> None:
        names = ask_once(Place(self.dsn), job_run.databases)
        for name, (worker, thread) in list(self._served.items()):
            if name not in names:
                worker.stopping.set()
            if not thread.is_alive():
                del self._served[name]
        names = [name for name in names if not self.only or name in self.only]
        if self.wishes is not None and not self._has_scanned:
            self.wishes.expect(names)
        self._has_scanned = True
        for name in names:
            if name not in self._served and not self._serve(Place(self.dsn, name)) and self.wishes is not None:
                self.wishes.forget(name)

    def _serve(self, place: Place) -> bool:
        """Begin to serve a database; whether there is anything to serve."""
        assert place.database is not None
        try:
            version = ask_once(place, job_run.extension_version)
        except Unreachable as error:
            log.warning("[%s] cannot be asked: %s", place.database, error)
            return False
        if version != __version__:
            if version is not None and self._reported.get(place.database) != version:
                log.warning(
                    '[%s] has extension "pgml_tune" %s, this is %s: ALTER EXTENSION pgml_tune UPDATE',
                    place.database, version, __version__,
                )  # fmt: skip
            self._reported[place.database] = version
            return False
        worker = DatabaseWorker(
            place, self.paths, self.timing, is_one_shot=False, slots=self._slots, wishes=self.wishes,
            suspicion=self.suspicion,
        )
        thread = threading.Thread(target=worker.run, name=place.database)
        self._served[place.database] = worker, thread
        thread.start()
        return True
