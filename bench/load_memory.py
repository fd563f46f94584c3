"""Memory that connections take which embed: proportional set size, over that of one with plain PL/Python."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import mean

from plan import Plan
from report import Figure, at_most
from server import FP32, Connection, backend_pid, connect

_PART = "3. Memory of a backend after 20 texts, over one that has run plain PL/Python"
_TEXTS = 20
_LIMIT_MB = 20
_PLAIN = "DO LANGUAGE plpython3u $$ plpy.execute('SELECT 1') $$"


def measure(plan: Plan) -> list[Figure]:
    figures = []
    for runtime, connections in (("worker", plan.pick(100, 10)), ("in_process", plan.pick(20, 4))):
        with ExitStack() as stack:
            plain = [stack.enter_context(connect()) for _ in range(connections)]
            for connection in plain:
                connection.execute(_PLAIN)
            before = mean(map(_proportional_mb, plain))
        with ExitStack() as stack:
            opened = [
                stack.enter_context(connect(f"-c pgml_tune.cache=off -c pgml_tune.runtime={runtime}"))
                for _ in range(connections)
            ]
            for number, connection in enumerate(opened):
                for place in range(_TEXTS):
                    connection.execute("SELECT embed(%s, %s)", (f"text {place} of {number}", plan.reference(FP32)))
            added = mean(map(_proportional_mb, opened)) - before
        what, note = f"fp32, {runtime}, {connections} connections", f"plain PL/Python {before:.1f} MB"
        if runtime == "worker":
            figures.append(at_most(_PART, what, added, "MB", _LIMIT_MB, note))
        else:
            figures.append(Figure(_PART, what, added, "MB", note=note))
    return figures


def _proportional_mb(connection: Connection) -> float:
    content = Path(f"/proc/{backend_pid(connection)}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1024 for line in content.splitlines() if line.startswith("Pss:"))
