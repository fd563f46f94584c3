"""pgbench: throughput and latency of single texts that nobody has embedded, with 1, 4, 16 and 64 clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from plan import Plan, in_turns
from report import Figure, at_least, at_most, counted, failed, skipped
from server import DATABASE, FP32, INT8_BLOCK

_PART = "2. pgbench, one SELECT embed(...) of a short text per transaction, caches off"
_CLIENTS = (1, 4, 16, 64)
_RUNTIMES = ("in_process", "worker")
_CROWDS = (16, 64)  # clients from which on the worker has to win
_MOST_RIVALS = 16  # each holds half a gigabyte
_EMBED = "\\set n random(1, 1000000000)\nSELECT embed('order ' || :n || ' has not arrived yet', '{}');\n"
_RIVAL = "\\set n random(1, 1000000000)\nSELECT rival_embed('order ' || :n || ' has not arrived yet');\n"
_WARM_SECONDS, _LOAD_SECONDS = 4, 0.5  # in which clients connect; more for each that loads a model of its own
_RIVAL_WARM_SECONDS = 30
_LATENCY_MARGIN = 1.3
_QUEUE_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What clients have met."""

    tps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def measure(plan: Plan) -> list[Figure]:
    pgbench = shutil.which("pgbench", path=os.path.dirname(os.environ.get("PG_CONFIG", ""))) or shutil.which("pgbench")
    if pgbench is None:
        return [skipped(_PART, "pgbench", "pgbench is not on the PATH")]
    figures = []
    for storage in (FP32, INT8_BLOCK):
        found: dict[tuple[str, int], Outcome] = {}
        script = _EMBED.format(plan.reference(storage))
        for clients in _CLIENTS:
            # What one client waits for is compared, so it is measured in turns.
            rounds = plan.pick(5, 1) if clients == 1 else 1
            outcomes = in_turns(_RUNTIMES, rounds, partial(_embed, pgbench, script, clients, plan.pick(10, 3)))
            for runtime, each in outcomes.items():
                found[runtime, clients] = sorted(each, key=lambda outcome: outcome.p50_ms)[len(each) // 2]
        figures += _figures(storage, found)
    for clients in _CLIENTS:
        what = f"sentence-transformers in PL/Python, {counted(clients, 'client')}"
        if clients > _MOST_RIVALS:
            figures.append(skipped(_PART, what, "each would hold half a gigabyte"))
        else:
            outcome = _run(pgbench, _RIVAL, "in_process", clients, plan.pick(10, 3), _RIVAL_WARM_SECONDS)
            figures.append(_shown(what, outcome))
    return figures


def _embed(pgbench: str, script: str, clients: int, run_seconds: int, runtime: str, _round: int) -> Outcome:
    warm_seconds = _WARM_SECONDS + (round(clients * _LOAD_SECONDS) if runtime == "in_process" else 0)
    return _run(pgbench, script, runtime, clients, run_seconds, warm_seconds)


def _figures(storage: str, found: dict[tuple[str, int], Outcome]) -> list[Figure]:
    figures = [
        _shown(f"{storage}, {runtime}, {counted(clients, 'client')}", outcome)
        for (runtime, clients), outcome in found.items()
    ]
    best = max(outcome.tps for (runtime, _), outcome in found.items() if runtime == "in_process")
    for clients in _CROWDS:
        outcome = found["worker", clients]
        name = f"{storage}, worker, {clients} clients"
        note = f"best in process {best:.0f} tps"
        figures.append(
            at_least(_PART, f"{name}: throughput over the best in process", outcome.tps / best, "x", 1.0, note)
        )
        wait_ms = _QUEUE_MARGIN * clients / outcome.tps * 1000
        figures.append(at_most(_PART, f"{name}: p95", outcome.p95_ms, "ms", round(wait_ms, 1)))
    slower = found["worker", 1].p50_ms / found["in_process", 1].p50_ms
    figures.append(at_most(_PART, f"{storage}, 1 client: latency over that in process", slower, "x", _LATENCY_MARGIN))
    return figures


def _shown(what: str, outcome: Outcome | None) -> Figure:
    if outcome is None:
        return failed(_PART, what, "no transaction ended")
    note = f"p50 {outcome.p50_ms:.1f}, p95 {outcome.p95_ms:.1f}, p99 {outcome.p99_ms:.1f} ms"
    return Figure(_PART, what, outcome.tps, "tps", note=note)


def _run(pgbench: str, script: str, runtime: str, clients: int, run_seconds: int, warm_seconds: int) -> Outcome:
    """What is measured after the first seconds; a transaction counts when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        command = [
            pgbench, "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=1", "--log",
            f"--log-prefix={folder}/log", f"--time={run_seconds + warm_seconds}", f"--file={file}", DATABASE,
        ]  # fmt: skip
        options = f"-c pgml_tune.cache=off -c pgml_tune.runtime={runtime}"
        done = subprocess.run(command, env={**os.environ, "PGOPTIONS": options}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"bench: pgbench failed\n{done.stderr}")
        rows = [line.split() for path in Path(folder).glob("log*") for line in path.read_text().splitlines()]
    ends = [(int(row[4]) + int(row[5]) / 1e6, int(row[2]) / 1000) for row in rows]
    last = max(end for end, _ in ends)
    latencies = sorted(latency for end, latency in ends if end > last - run_seconds)
    place = len(latencies) - 1
    return Outcome(len(latencies) / run_seconds, *(latencies[place * share // 100] for share in (50, 95, 99)))
