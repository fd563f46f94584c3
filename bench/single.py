"""One text per call, model loaded: embed() against the same file called directly in a plain Python process."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from contenders import Contender, onnx_one_by_one
from plan import STORAGES, Plan, in_turns
from report import Figure, Seconds, at_least, at_most, cores, ratio, spread, walls
from server import FP32, INT8_BLOCK, INT8_DYNAMIC, Connection, add_samples, connect, seconds, set_cache, timed

_PART = "2. Warm single text, 1 thread, distinct short texts (whole statement, by texts)"
_STATEMENT = "SELECT count(embed(s.content, %s)) FROM sample AS s WHERE s.purpose = 'single' AND s.round = %s"
_EMPTY = "SELECT count(empty_call(s.content, %s)) FROM sample AS s WHERE s.purpose = 'single' AND s.round = %s"
Times = dict[tuple[str, str], list[Seconds]]
_DIRECT, _OFF, _ON, _NOTHING = "direct", "embed", "embed, caches on", "empty call"


def measure(plan: Plan) -> list[Figure]:
    rounds, size = plan.pick(11, 5), plan.pick(150, 80)
    texts = plan.texts.short(rounds * size)
    groups = [texts[number * size : (number + 1) * size] for number in range(rounds)]
    times: Times = {}
    with connect() as off, connect() as on:
        set_cache(off, "off")
        for number, group in enumerate(groups):
            add_samples(off, "single", number, group)
        direct = {}
        for storage in STORAGES:
            direct[storage] = Contender(onnx_one_by_one, plan.package_folder, plan.artifact(storage), 1)
            for connection in (off, on):
                seconds(connection, "SELECT embed('a first text', %s)", plan.reference(storage))

        def statement(connection: Connection, query: str, storage: str) -> Callable[[int], Seconds]:
            return lambda number: timed(connection, query, plan.reference(storage), number)

        runs: dict[tuple[str, str], Callable[[int], Seconds]] = {}
        for storage in STORAGES:
            contender = direct[storage]
            runs[storage, _DIRECT] = lambda number, contender=contender: contender.run(groups[number])[0]  # type: ignore[misc]
            runs[storage, _OFF] = statement(off, _STATEMENT, storage)
            runs[storage, _ON] = statement(on, _STATEMENT, storage)
        runs[FP32, _NOTHING] = statement(off, _EMPTY, FP32)
        times = in_turns(list(runs), rounds, lambda run, number: runs[run](number).per(size))
        for contender in direct.values():
            contender.close()
    figures = [figure for storage in STORAGES for figure in _of_storage(times, storage)]
    return figures + _between(times)


def _of_storage(times: Times, storage: str) -> list[Figure]:
    direct, off, on = (times[storage, name] for name in (_DIRECT, _OFF, _ON))
    return [
        _latency(f"{storage} session called directly", direct),
        _latency(f"{storage} embed(), caches off", off),
        at_most(_PART, f"{storage} embed() / direct", _over(off, direct), "x", 1.10, _other_ways(off, direct)),
        at_most(
            _PART,
            f"{storage} caches on, all misses / caches off",
            _over(on, off),
            "x",
            1.05,
            f"{_other_ways(on, off)}; lookup, counting, table writes",
        ),
    ]


def _between(times: Times) -> list[Figure]:
    fp32, dynamic, block = (times[storage, _OFF] for storage in (FP32, INT8_DYNAMIC, INT8_BLOCK))
    faster, lower = _over(dynamic, block), (1 - _over(dynamic, fp32)) * 100
    return [
        _latency("empty PL/Python call (part of each embed())", times[FP32, _NOTHING]),
        at_least(_PART, "int8_block speed / int8_dynamic", faster, "x", 1.0, _other_ways(dynamic, block)),
        at_least(_PART, "int8_dynamic latency below fp32", lower, "%", 40, f"ratio {_other_ways(dynamic, fp32)}"),
    ]


def _latency(what: str, values: list[Seconds]) -> Figure:
    milliseconds = walls(values, 1000)
    note = f"{spread(milliseconds)}; on a core {min(cores(values, 1000)):.4g}"
    return Figure(_PART, what, median(milliseconds), "ms", note=note)


def _over(upper: list[Seconds], lower: list[Seconds]) -> float:
    return ratio(walls(upper), walls(lower))


def _other_ways(upper: list[Seconds], lower: list[Seconds]) -> str:
    """The same ratio by the best rounds, and by time on a core."""
    return f"minima {min(walls(upper)) / min(walls(lower)):.3f}, on a core {ratio(cores(upper), cores(lower)):.3f}"
