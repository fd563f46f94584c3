"""How far a long run has come, told to the client."""

from __future__ import annotations

import time
from collections.abc import Callable

from pgml_tune.db import Session

NOTICE_SECONDS = 1.0


class Progress:
    """Counts rows and tells the client at most once a second; `total` is what was to be done when it began."""

    def __init__(self, db: Session, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._what = what
        self._total = total
        self._clock = clock
        self._started = self._told = clock()
        self._done = 0

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        self._done += rows
        now = self._clock()
        if now - self._told >= NOTICE_SECONDS:
            self._told = now
            self.tell(now - self._started)

    def tell(self, seconds: float) -> None:
        """Tell how far it has come after so many seconds."""
        self._db.notice(f"{self._what}: {progress_line(self._done, self._total, seconds)}")

    def finish(self) -> None:
        """Tell what was done in all."""
        self._db.notice(f"{self._what}: {final_line(self._done, self._clock() - self._started)}")


def progress_line(done: int, total: int, seconds: float) -> str:
    """Rows of all rows, their rate, and the time left at that rate."""
    line = f"{done:,} of {max(done, total):,} rows, {_rate(done, seconds)}"
    return line if done == 0 or done >= total else f"{line}, {duration((total - done) * seconds / done)} left"


def final_line(done: int, seconds: float) -> str:
    """Rows, the time they took, and their rate."""
    return f"{done:,} rows in {duration(seconds)}" + (f", {_rate(done, seconds)}" if done else "")


def _rate(done: int, seconds: float) -> str:
    rate = done / max(seconds, 0.001)
    return f"{rate:,.0f} rows/s" if rate >= 10 or done == 0 else f"{rate:.1f} rows/s"


def duration(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
