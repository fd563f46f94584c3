"""How figures are written, for people."""

from __future__ import annotations

from datetime import datetime, timedelta

NONE = "–"
_NOTHING = 1e-6


def count(value: float | None) -> str:
    """12,345"""
    return NONE if value is None else f"{round(value):,}"


def percent(share: float | None, digits: int = 1) -> str:
    """12.3 %"""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def part(share: float) -> str:
    """20 %, or 0.5 %"""
    return f"{100 * share:.3g} %"


def counted(value: float, one: str, many: str) -> str:
    """1 call, or 12 calls"""
    return f"{count(value)} {one if round(value) == 1 else many}"


def number(value: float | None) -> str:
    """Two or three digits that count: 0.012, 1.20, 123."""
    if value is None:
        return NONE
    if abs(value) < _NOTHING:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 0.9995 else f"{value:.2g}"


def tick(value: float) -> str:
    """A round number beside an axis: 0, 0.5, 20."""
    return f"{value:g}"


def milliseconds(value: float | None) -> str:
    """12.3 ms, or 1.23 s"""
    if value is None:
        return NONE
    return f"{number(value)} ms" if value < 999.5 else f"{number(value / 1000)} s"


def tick_milliseconds(value: float) -> str:
    """A round number of milliseconds beside an axis: 20 ms, or 1.5 s."""
    return f"{tick(value)} ms" if value < 1000 else f"{tick(value / 1000)} s"


def size(value: float | None) -> str:
    """23.4 MB"""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{number(value)} {unit}"
        value /= 1000
    return f"{number(value)} TB"


def moment(at: datetime | None) -> str:
    """22 Nov, 14:02"""
    return NONE if at is None else f"{at.day} {at:%b, %H:%M}"


def days(value: float) -> str:
    """2.5 days, or 3 h 12 min"""
    return f"{value:.1f} days" if value >= 2 else duration(timedelta(days=value))


def duration(length: timedelta | None) -> str:
    """3 h 12 min"""
    if length is None:
        return NONE
    seconds = int(length.total_seconds())
    for name, unit, smaller_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= unit:
            rest = seconds % unit // smaller
            return f"{seconds // unit} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{seconds} s"
