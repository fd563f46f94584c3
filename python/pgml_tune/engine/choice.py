"""Decides which ways of running a network are tried on a machine, and which of them is taken; measures nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgml_tune.engine.way import CPU, ENGINES, ONNXRUNTIME, Way

LEAST_GAIN = 1.05  # a smaller one is within what a measurement errs
INVARIANT = 0.99999  # how well a text alone and among others must agree, where a version promises that
_GPU_LANES = 2  # the second has the next batch ready
_BATCHES = {True: (8, 32), False: (32, 128)}  # by whether it is the CPU


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to run networks with."""

    cores: int
    engines: Collection[str]  # by name, of way.ENGINES


@dataclass(frozen=True, slots=True)
class Measured:
    """A way, and what it is worth; `problem` says why it could not be tried."""

    way: Way
    texts_per_second: float = 0.0
    gain: float = 0.0  # times the throughput of the present way, measured in turns with it
    latency_ms: float = 0.0  # of one short text alone, the median
    agreement: float = -1.0  # least cosine to what a session computes; of a classifier 1 - the greatest difference
    invariance: float = -1.0  # the same of a text alone to itself among others
    problem: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        if self.problem:
            return {**self.way.to_json(), "problem": self.problem}
        return {
            **self.way.to_json(),
            "texts_per_second": round(self.texts_per_second, 1),
            "gain_percent": round(100 * (self.gain - 1), 1),
            "latency_ms": round(self.latency_ms, 3),
            "agreement": round(self.agreement, 7),
            "invariance": round(self.invariance, 7),
        }


def lane_count(cores: int, *, on_gpu: bool) -> int:
    """How many batches the worker computes at once: one for each core, or on a GPU one more than it computes."""
    return min(_GPU_LANES, cores) if on_gpu else cores


def present_way(machine: Machine, batch_size: int) -> Way:
    """As the worker runs a version that nothing was chosen for."""
    name = next((name for name in ("tensorrt", "cuda") if name in machine.engines), ONNXRUNTIME)
    return Way.of(name, 1, lane_count(machine.cores, on_gpu=name != ONNXRUNTIME), batch_size)


def candidates(machine: Machine, wanted: Collection[str] | None, batch_size: int) -> list[Way]:
    """The ways to try, those that share a loaded network beside each other; None means all that the machine has."""
    ways = []
    for name in ENGINES:
        if name in machine.engines and (wanted is None or name in wanted):
            is_cpu = Way.of(name, 1, 1, 1).provider == CPU
            sizes = sorted({min(size, batch_size) for size in (*_BATCHES[is_cpu], batch_size)})
            shapes = _shapes(machine.cores) if is_cpu else [(1, lane_count(machine.cores, on_gpu=True))]
            ways += [Way.of(name, threads, lanes, size) for threads, lanes in shapes for size in sizes]
    return ways


def _shapes(cores: int) -> list[tuple[int, int]]:
    """Threads of a batch, and batches at once: 1, 2, 4, ... threads, and all."""
    counts = sorted({*(1 << power for power in range(cores.bit_length()) if 1 << power <= cores), cores})
    return [(threads, cores // threads) for threads in counts]


def choose(measured: Sequence[Measured], min_agreement: float, *, is_invariant: bool) -> Measured | None:
    """The fastest of those that compute the same; None: none of them is worth it."""
    fit = [each for each in measured if keeps(each, min_agreement, is_invariant=is_invariant)]
    best = max(fit, key=lambda each: each.gain, default=None)
    return best if best is not None and best.gain >= LEAST_GAIN else None


def keeps(measured: Measured, min_agreement: float, *, is_invariant: bool) -> bool:
    """Whether a way computes what the version stands for."""
    if measured.problem or not measured.agreement >= min_agreement:
        return False
    return not is_invariant or measured.invariance >= min(INVARIANT, min_agreement)
