"""The job of `tune_engine()`: measures the ways of running a version on this machine, and tells the best."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import onnxruntime

from pgml_tune.engine.choice import Machine, Measured, candidates, choose, keeps, present_way
from pgml_tune.engine.machine import fingerprint, has_bf16, has_gpu
from pgml_tune.engine.onnx import ENGINE, PROVIDERS
from pgml_tune.engine.way import CPU, ENGINES, Way
from pgml_tune.errors import InvalidArgument, NotSupported, OutOfMemory, TuneError
from pgml_tune.jobs.job import Job, available_threads
from pgml_tune.jobs.racing import Race, Served
from pgml_tune.jobs.reports import Reporter

_TAKEN = "Taken: "


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Measure what `tune_engine()` asks for, and say which way the worker is to take; the worker writes it down."""
    artifact, reference = job.artifact("model"), job.models["model"].reference
    config, parameters = artifact.config(), job.parameters
    if config.engine != ENGINE:
        raise NotSupported(
            f'version "{reference}" is made for {config.engine} alone',
            detail=f"Versions that {ENGINE} runs can be run in other ways.",
            hint="SELECT model, version, storage FROM pgml_tune.model_versions",
        )
    machine = this_machine(parameters["serve_threads"])
    wanted, batch_size = parameters["engines"], parameters["batch_size"]
    _check_wanted(wanted, machine)
    present = present_way(machine, batch_size)
    # Texts of a version that is not invariant are never put together by the worker, so there is no size to choose.
    ways = [present] + [
        way
        for way in candidates(machine, wanted, batch_size)
        if way != present and (config.is_batch_invariant or way.batch_size == batch_size)
    ]
    report.progress("computing what the version stands for")
    served = Served(parameters["texts"], parameters["batch_tokens"])
    race = Race(artifact, present, served, parameters["seconds"] / len(ways))
    measured = _measure(race, ways, report)
    report.progress("measuring the best again")
    chosen = _confirmed(race, measured, parameters["min_cosine"], is_invariant=config.is_batch_invariant)
    taken = chosen or measured[0]
    report.log(_TAKEN + _told(taken) if chosen else f"{_TAKEN}the version's own engine, as before")
    return {
        "summary": f"{reference}: {_told(taken)}" + ("" if chosen else ", its own engine as before"),
        "choice": None if chosen is None else {"machine": fingerprint(), **chosen.to_json()},
        "machine": fingerprint(),
        "min_cosine": parameters["min_cosine"],
        "texts": race.text_count,
        "present": measured[0].to_json(),
        "candidates": [
            each.to_json() | {
                "is_fit": keeps(each, parameters["min_cosine"], is_invariant=config.is_batch_invariant)
            }
            for each in measured[1:]
        ],
    }  # fmt: skip


def this_machine(serve_threads: int) -> Machine:
    """What the worker has here: cores, and engines that are installed and can run."""
    cores = min(number for number in (serve_threads, available_threads()) if number)
    providers = onnxruntime.get_available_providers()
    on_gpu = {name for name, full in PROVIDERS.items() if name != CPU and full in providers} if has_gpu() else set()
    engines = {"onnxruntime"} | on_gpu
    if importlib.util.find_spec("openvino") is not None:
        engines |= {"openvino", "openvino_bf16"} if has_bf16() else {"openvino"}
    return Machine(cores, engines)


def _check_wanted(wanted: Sequence[str] | None, machine: Machine) -> None:
    missing = [name for name in wanted or () if name not in machine.engines]
    if not missing:
        return
    hints = {"openvino": "make install-openvino", "openvino_bf16": "make install-openvino"}
    is_there = "openvino" in machine.engines
    raise NotSupported(
        f'engine "{missing[0]}" is not one of this machine',
        detail=f"It has {', '.join(name for name in ENGINES if name in machine.engines)}.",
        hint="" if is_there else hints.get(missing[0], "Install onnxruntime-gpu in place of onnxruntime."),
    )


def _measure(race: Race, ways: Sequence[Way], report: Reporter) -> list[Measured]:
    """The figures of each way; those that differ in the size of batches alone share a loaded network."""
    measured: list[Measured] = []
    for _, group in groupby(ways, key=lambda way: (way.name, way.threads, way.lanes)):
        sizes = list(group)
        report.progress("measuring", step=len(measured), steps=len(ways))
        try:
            found = race.run(sizes)
        except (ArithmeticError, MemoryError, RuntimeError, InvalidArgument, NotSupported, OutOfMemory) as error:
            found = [Measured(way, problem=_reason(error)) for way in sizes]
        for each in found:
            report.log(_told(each))
        measured += found
        gc.collect()  # the network that was loaded
    if measured[0].problem:
        raise NotSupported("the version's own engine cannot run it", detail=f"{measured[0].problem}.")
    return measured


def _confirmed(race: Race, measured: list[Measured], min_cosine: float, *, is_invariant: bool) -> Measured | None:
    """The best that is so when it is measured twice: of many ways one seems best by chance."""
    confirmed: set[Way] = set()
    while (best := choose(measured[1:], min_cosine, is_invariant=is_invariant)) is not None:
        if best.way in confirmed:
            return best
        (again,) = race.run([best.way])
        measured[measured.index(best)] = min(best, again, key=lambda each: each.gain)
        confirmed.add(best.way)
    return None


def _reason(error: BaseException) -> str:
    text = f"{error.message}: {error.detail}" if isinstance(error, TuneError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:500]


def _told(measured: Measured) -> str:
    way = f"{measured.way}, batches of {measured.way.batch_size}"
    if measured.problem:
        return f"{way}: {measured.problem}"
    return (
        f"{way}: {measured.texts_per_second:.0f} texts/s ({100 * (measured.gain - 1):+.0f} %),"
        f" {measured.latency_ms:.1f} ms alone, agreement {measured.agreement:.6f}"
    )

