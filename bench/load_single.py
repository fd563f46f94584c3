"""One client with a hundred texts: a call for each, and one call for all."""

from __future__ import annotations

from functools import partial
from statistics import median

from plan import Plan, in_turns
from report import Figure, spread
from server import FP32, connect, seconds

_PART = "1. One client, 100 short texts that nobody has embedded, caches off"
_TEXTS = 100
_SINGLE = "SELECT embed(%s, %s)"
_ARRAY = "SELECT embed(%s, %s)"
_CASES = [(runtime, how) for runtime in ("in_process", "worker") for how in ("a call for each", "one call for all")]


def measure(plan: Plan) -> list[Figure]:
    found = in_turns(_CASES, plan.pick(7, 2), partial(_time, plan))
    figures = []
    for (runtime, how), values in found.items():
        figures.append(Figure(_PART, f"fp32, {runtime}, {how}", median(values) * 1000, "ms", note=spread(values)))
    alone, together = (median(found["worker", how]) for how in ("a call for each", "one call for all"))
    note = "the mark of 88 % is that of a GPU"
    figures.append(Figure(_PART, "worker: less time for one call", 100 * (1 - together / alone), "%", note=note))
    return figures


def _time(plan: Plan, case: tuple[str, str], number: int) -> float:
    runtime, how = case
    texts = [f"order {place} of round {number} by {runtime} has not arrived yet" for place in range(_TEXTS)]
    reference = plan.reference(FP32)
    with connect(f"-c pgml_tune.cache=off -c pgml_tune.runtime={runtime}") as connection:
        connection.execute(_SINGLE, ("the first text", reference))
        if how == "one call for all":
            return seconds(connection, _ARRAY, texts, reference)
        return sum(seconds(connection, _SINGLE, text, reference) for text in texts)
