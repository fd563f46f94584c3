"""What the process that serves models says of itself, in a line for people and in lines for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

_COUNTERS = {
    "requests": "Requests that sessions have sent.",
    "errors": "Requests that ended in an error, those that were refused because too many waited not counted.",
    "shed": "Requests that were refused because too many waited.",
    "texts": "Texts that were computed.",
    "tokens": "Tokens of texts that were computed together with others.",
    "padding_tokens": "Tokens that were computed beside them because texts of a batch differ in length.",
    "batches": "Batches that were computed.",
    "busy_seconds": "Time that threads have computed.",
    "refused_connections": "Connections that were refused or broken off.",
}
_HISTOGRAMS = {
    "request_seconds": "Time from a request to its answer, of those that had one.",
    "wait_seconds": "Time from a request to the begin of its computing, for each piece of it.",
    "batch_texts": "Texts that a thread was given at once.",
}
_GAUGES = {
    "connections": "Sessions that are connected.",
    "waiting_requests": "Requests that are not answered yet.",
    "threads": "Threads that compute.",
    "budget_bytes": "Memory that models may take.",
}


def one_line(told: Mapping[str, Any]) -> str:
    """The state of the process, in words."""
    models = told["models"]
    line = (
        f"ok: process {told['process']}, {len(models)} models with {sum(model['bytes'] for model in models) >> 20} MB,"
        f" {told['connections']} sessions, {told['requests']} requests, {told['waiting_requests']} of them waiting,"
        f" {told['errors']} errors, {told['shed']} refused"
    )
    if told["recent_seconds"]:
        half, most, _ = (1000 * seconds for seconds in told["recent_seconds"])
        line += f", p50 {half:.1f} ms, p95 {most:.1f} ms of the last {told['recent_requests']}"
    if told["listens_at"]:
        line += f", also at {told['listens_at']}"
    stopped = told["quarantined"]
    return line + (f"; not run after crashes: {', '.join(digest[:12] for digest in stopped)}" if stopped else "")


def metrics(told: Mapping[str, Any] | None) -> str:
    """The figures as Prometheus reads them; None: the process does not answer."""
    return "".join(f"{line}\n" for line in _metrics(told))


def _metrics(told: Mapping[str, Any] | None) -> Iterator[str]:
    yield from _metric("up", "gauge", "Whether the process that serves models answers.", 0 if told is None else 1)
    if told is None:
        return
    for name, meaning in _COUNTERS.items():
        yield from _metric(f"{name}_total", "counter", meaning, told[name])
    for name, meaning in _HISTOGRAMS.items():
        yield from _histogram(name, meaning, told["histograms"][name])
    for name, meaning in _GAUGES.items():
        yield from _metric(name, "gauge", meaning, told[name])
    yield from _metric("start_time_seconds", "gauge", "When the process was started.", told["started_at"])
    yield from _metric("quarantined_models", "gauge", "Models not run after crashes.", len(told["quarantined"]))
    for name, kind, meaning in (
        ("bytes", "gauge", "Memory of a model."),
        ("calls", "counter", "Requests for a model."),
    ):
        full = f"pgml_tune_serve_model_{name}{'_total' if kind == 'counter' else ''}"
        yield f"# HELP {full} {meaning}"
        yield f"# TYPE {full} {kind}"
        for model in told["models"]:
            yield f'{full}{{artifact="{model["digest"][:12]}"}} {model[name]}'


def _histogram(name: str, meaning: str, by_class: Mapping[str, Any]) -> Iterator[str]:
    full = f"pgml_tune_serve_{name}"
    yield f"# HELP {full} {meaning}"
    yield f"# TYPE {full} histogram"
    for label, told in by_class.items():
        own = f'class="{label}",' if label else ""
        count = 0
        for bound, more in zip([*told["bounds"], math.inf], told["counts"], strict=True):
            count += more
            le = "+Inf" if bound == math.inf else f"{bound:g}"
            yield f'{full}_bucket{{{own}le="{le}"}} {count}'
        braced = f"{{{own[:-1]}}}" if label else ""
        yield f"{full}_sum{braced} {told['sum']}"
        yield f"{full}_count{braced} {count}"


def _metric(name: str, kind: str, meaning: str, value: float) -> Iterator[str]:
    yield f"# HELP pgml_tune_serve_{name} {meaning}"
    yield f"# TYPE pgml_tune_serve_{name} {kind}"
    yield f"pgml_tune_serve_{name} {value}"
