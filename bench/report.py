"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

_VERDICTS = ("met", "missed", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a measurement took: by the clock, and of a core, which others on the machine disturb less."""

    wall: float
    core: float

    def per(self, count: int) -> Seconds:
        return Seconds(self.wall / count, self.core / count)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; verdict is met, missed, failed or skipped, and empty where there is no target."""

    part: str
    what: str
    value: float | None
    unit: str
    target: str = ""
    verdict: str = ""
    note: str = ""


def at_most(part: str, what: str, value: float, unit: str, limit: float, note: str = "") -> Figure:
    """A value that should not exceed a limit."""
    return Figure(part, what, value, unit, f"<= {limit:g}", "met" if value <= limit else "missed", note)


def at_least(part: str, what: str, value: float, unit: str, limit: float, note: str = "") -> Figure:
    """A value that should reach a limit."""
    return Figure(part, what, value, unit, f">= {limit:g}", "met" if value >= limit else "missed", note)


def skipped(part: str, what: str, why: str) -> Figure:
    """A value that could not be measured here."""
    return Figure(part, what, None, "", verdict="skipped", note=why)


def failed(part: str, what: str, why: str) -> Figure:
    """A value that an error kept from being measured."""
    return Figure(part, what, None, "", verdict="failed", note=why)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the rounds' own ratios: both sides of a round have met the same machine."""
    return median(over / under for over, under in zip(numerators, denominators, strict=True))


def walls(values: Sequence[Seconds], scale: float = 1.0) -> list[float]:
    """The times by the clock."""
    return [value.wall * scale for value in values]


def cores(values: Sequence[Seconds], scale: float = 1.0) -> list[float]:
    """The times on a core."""
    return [value.core * scale for value in values]


def spread(values: Sequence[float]) -> str:
    """The range of the rounds in a few characters."""
    return f"{min(values):.4g} .. {max(values):.4g} in {counted(len(values), 'round')}"


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 round, 2 rounds."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns, a headline for each part."""
    lines: list[str] = []
    part = ""
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        if figure.part != part:
            part = figure.part
            lines += ["", part]
        cells = f"{_number(figure.value):>9} {figure.unit:<9}  {figure.target:>9}  {figure.verdict:<7}"
        lines.append(f"  {figure.what:<{width}}  {cells}  {figure.note}".rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def summary(conditions: dict[str, Any]) -> str:
    """The conditions in a few lines."""
    hardware = conditions["hardware"]
    versions = [f"{name} {version}" for name, version in conditions["versions"].items() if version]
    machine = [hardware["processor"], *hardware["instructions"], counted(hardware["cores"], "core")]
    machine += hardware.get("gpus", [])
    loads = [" ".join(f"{load:.2f}" for load in conditions[f"load_average_{when}"]) for when in ("before", "after")]
    texts = conditions["texts"] + (", fewer of them and fewer rounds (BENCH_QUICK)" if conditions["is_quick"] else "")
    lines = {
        "taken at": f"{conditions['taken_at']}, in {conditions['seconds']} s",
        "versions": ", ".join(versions),
        "machine": ", ".join([*machine, f"{hardware['memory_gib']} GiB", hardware["system"]]),
        "load": f"{loads[0]} before, {loads[1]} after",
        "texts": texts,
    }
    return "\n".join(
        fill(line, 120, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12, break_on_hyphens=False)
        for name, line in lines.items()
    )


def publish(path: Path, conditions: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Write everything to a file, and show it."""
    _write_json(path, conditions, figures)
    print(table(figures))
    counts = Counter(figure.verdict for figure in figures)
    told = ", ".join(f"{verdict} {counts[verdict]}" for verdict in _VERDICTS if counts[verdict])
    print(f"\n{summary(conditions)}\n\n{told}; in JSON: {path}")


def _write_json(path: Path, conditions: dict[str, Any], figures: Sequence[Figure]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": conditions, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
