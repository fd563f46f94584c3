"""The first embed() of a new connection, and what the model then occupies in the backend."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from plan import STORAGES, Plan, in_turns
from report import Figure, at_most, spread
from server import backend_pid, connect

_START = "1. First call of a new connection"
_MEMORY = "6. Memory that the first call adds to a backend"
_RIVAL = "sentence-transformers in PL/Python"
_LIMIT_SECONDS = 0.3


def measure(plan: Plan) -> list[Figure]:
    connected: dict[str, list[float]] = defaultdict(list)
    rss: dict[str, list[float]] = defaultdict(list)
    pss: dict[str, list[float]] = defaultdict(list)

    def first_call(contestant: str, number: int) -> float:
        text = f"the first text of connection {number}"
        begun = time.perf_counter()
        with connect() as connection:
            before = _memory(backend_pid(connection))
            started = time.perf_counter()
            if contestant == _RIVAL:
                connection.execute("SELECT rival_embed(%s)", (text,)).fetchall()
            else:
                connection.execute("SELECT embed(%s, %s)", (text, plan.reference(contestant))).fetchall()
            ended = time.perf_counter()
            after = _memory(backend_pid(connection))
        connected[contestant].append(ended - begun)
        rss[contestant].append(after["Rss"] - before["Rss"])
        pss[contestant].append(after["Pss"] - before["Pss"])
        return ended - started

    calls = in_turns(STORAGES, plan.pick(9, 3), first_call) | in_turns([_RIVAL], plan.pick(3, 1), first_call)
    figures = []
    for name, values in calls.items():
        note = f"{spread(values)}; with connecting {median(connected[name]):.3f} s"
        if name == _RIVAL:
            figures.append(Figure(_START, name, median(values), "s", note=note))
        else:
            figures.append(at_most(_START, f"embed() {name}", median(values), "s", _LIMIT_SECONDS, note))
    for name in calls:
        what = name if name == _RIVAL else f"embed() {name}"
        figures.append(Figure(_MEMORY, f"{what}, RSS", median(rss[name]), "MB", note=f"PSS {median(pss[name]):.0f} MB"))
    return figures


def _memory(pid: int) -> dict[str, float]:
    """Resident and proportional megabytes of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines}
