"""Where a value stands on an axis, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

_STEPS = [timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 180, 360, 720)]
_STEPS += [timedelta(days=days) for days in (1, 2, 7, 14, 30, 91, 365)]


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """The place of a value in percent of the axis; what is beyond its ends stands at the end."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def ticks(self, wanted: int = 4) -> list[float]:
        """About so many round numbers between the ends."""
        rough = (self.high - self.low) / wanted or 1.0
        unit: float = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * digit for digit in (1, 2, 5, 10) if unit * digit >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def from_zero(values: list[float]) -> Scale:
    """An axis from 0 that ends a little above the greatest value."""
    return Scale(0.0, 1.08 * max(values, default=0.0) or 1.0)


def around(values: list[float]) -> Scale:
    """An axis that all values lie on, with some room at both ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - room, high + room)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time."""

    since: datetime
    until: datetime

    def percent(self, at: datetime) -> float:
        return Scale(self.since.timestamp(), self.until.timestamp()).percent(at.timestamp())

    def ticks(self, wanted: int = 6) -> Iterator[tuple[datetime, str]]:
        """Round moments, not too near to the ends, and how they are written."""
        length = self.until - self.since
        step = next((step for step in _STEPS if length / step <= wanted), _STEPS[-1])
        midnight = self.since.replace(hour=0, minute=0, second=0, microsecond=0)
        at = midnight + math.ceil((self.since - midnight) / step) * step
        while at <= self.until:
            if 3 <= self.percent(at) <= 97:
                is_day = step >= timedelta(days=1) or (at.hour, at.minute) == (0, 0)
                yield at, f"{at.day} {at:%b}" if is_day else f"{at:%H:%M}"
            at += step
