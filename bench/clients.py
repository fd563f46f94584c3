"""pgbench: several clients at once, each with the model in its backend."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from plan import Plan
from report import Figure, counted, skipped
from server import DATABASE, FP32, INT8_DYNAMIC

_PART = "7. pgbench, one SELECT embed(...) of a short text per transaction, 1 thread per backend"
_CLIENTS = (1, 2, 8)
_UNCACHED = "\\set n random(1, 1000000000)\nSELECT embed('order ' || :n || ' has not arrived yet', '{reference}');\n"
_CACHED = "\\set n random(1, 100)\nSELECT embed('order ' || :n || ' has not arrived yet', '{reference}');\n"
_PROGRESS = re.compile(r"progress: [0-9.]+ s, ([0-9.]+) tps, lat ([0-9.]+) ms")
_WARM_SECONDS = 2  # in which the clients load the model


def measure(plan: Plan) -> list[Figure]:
    pgbench = shutil.which("pgbench", path=os.path.dirname(os.environ.get("PG_CONFIG", ""))) or shutil.which("pgbench")
    if pgbench is None:
        return [skipped(_PART, "pgbench", "pgbench is not on the PATH")]
    runs = [
        ("uncached, int8_dynamic", _UNCACHED, INT8_DYNAMIC, "off"),
        ("uncached, fp32", _UNCACHED, FP32, "off"),
        ("cached, fp32", _CACHED, FP32, "on"),
    ]
    figures = []
    for name, script, storage, cache in runs:
        for clients in _CLIENTS:
            text = script.format(reference=plan.reference(storage))
            tps, latency_ms = _run(pgbench, text, cache, clients, plan.pick(6, 4))
            note = f"mean latency {latency_ms:.2f} ms"
            figures.append(Figure(_PART, f"{name}, {counted(clients, 'client')}", tps, "tps", note=note))
    return figures


def _run(pgbench: str, script: str, cache: str, clients: int, run_seconds: int) -> tuple[float, float]:
    """Transactions per second and their latency, the median of the seconds after the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        command = [pgbench, "--no-vacuum", "--protocol=prepared", "--progress=1", f"--client={clients}", "--jobs=1"]
        command += [f"--time={run_seconds + _WARM_SECONDS}", f"--file={file}", DATABASE]
        environment = {**os.environ, "PGOPTIONS": f"-c pgml_tune.cache={cache}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: pgbench failed\n{done.stderr}")
    lines = [(float(tps), float(latency)) for tps, latency in _PROGRESS.findall(done.stderr)][_WARM_SECONDS:]
    return median(tps for tps, _ in lines), median(latency for _, latency in lines)
