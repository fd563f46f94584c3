"""Serves models to the sessions of the server; started and watched by `pgml-tune worker`, which it hears on stdin."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import onnxruntime

from pgml_tune.engine.choice import lane_count
from pgml_tune.engine.machine_memory import machine_bytes
from pgml_tune.engine.onnx import CPU, choose_providers
from pgml_tune.errors import TuneError
from pgml_tune.ipc.note import Note
from pgml_tune.ipc.peers import trusted_users
from pgml_tune.ipc.place import note_path
from pgml_tune.serving.choices import read_choices
from pgml_tune.serving.hosted import Models
from pgml_tune.serving.limits import Limits
from pgml_tune.serving.listener import Listener, accept, open_port, own_secret
from pgml_tune.serving.newcomers import MOST_NEWCOMERS, Newcomers
from pgml_tune.serving.scheduler import FIRST_LANE, Scheduler
from pgml_tune.serving.server import BEAT_SECONDS, Server, parse_order
from pgml_tune.settings import SETTINGS, Loopback, Paths, read_paths

_DRAIN_SECONDS = 10.0
_SWITCH_SECONDS = 0.0005  # a lane that has computed waits no longer for the interpreter
_FEW_FILES = 64 + MOST_NEWCOMERS  # kept for models and the like when connections are counted
_PORT_SECONDS = 5.0  # between two tries where the port is somebody else's
_MEMORY_SHARE = 2
_LONGEST_ORDER = 1 << 26
_OOM_SCORE = 500  # when memory runs out, the system ends this process and not the server
_BOUNDED = ("max_wait_ms", "batch_size", "batch_tokens", "queue_requests")
log = logging.getLogger("pgml_tune.serving")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve models; see pgml-tune worker --help."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s UTC %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )  # fmt: skip
    sys.setswitchinterval(_SWITCH_SECONDS)
    _be_the_first_to_go()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    try:
        asyncio.run(Serving(most_files - _FEW_FILES).run())
    except TuneError as error:
        raise click.ClickException(" ".join(filter(None, (f"{error.message}.", error.hint)))) from None


class Serving:
    """The process."""

    def __init__(self, most_connections: int) -> None:
        self._most_connections = most_connections
        self._started = time.time()
        self._listens_at: Loopback | None = None
        self._accepting: list[asyncio.Server] = []

    async def run(self) -> None:
        """Serve until told to stop, or until the parent is gone."""
        paths = read_paths()
        loop = asyncio.get_running_loop()
        orders = await _standard_input(loop)
        first = parse_order(await orders.readline() or b"{}")
        self._on_gpu = is_on_gpu(onnxruntime.get_available_providers())
        lanes = self._chosen_lanes(first)
        budget = _budget(first)
        listener = Listener(paths.serve_socket, paths.socket_group)
        self._models = Models(paths.model_root, budget)
        self._scheduler = Scheduler(
            loop=loop,
            models=self._models,
            limits=Limits(**{name: _number(first, name) for name in _BOUNDED}),
            note=Note(note_path(paths.serve_socket), FIRST_LANE + self._chosen_lanes({})),
            shares_hardware=self._on_gpu,
        )
        self._scheduler.resize(lanes)
        self._server = Server(self._scheduler, trusted_users(paths.socket_group), self._most_connections, self._status)
        self._obey(first)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        self._accepting.append(await accept(loop, self._server.connection, listener.socket))
        log.info("serving models at %s with %d threads and %d MB", paths.serve_socket, lanes, budget >> 20)
        tasks = [loop.create_task(self._listen(orders, stopping)), loop.create_task(self._beat())]
        if paths.listen is not None:
            tasks.append(loop.create_task(self._open_port(loop, paths, paths.listen)))
        await stopping.wait()
        for accepting in self._accepting:
            accepting.close()
        listener.close()
        await self._drain()
        for task in tasks:
            task.cancel()
        self._scheduler.close()
        log.info("served %d requests", self._scheduler.totals.requests)
        # The libraries' threads have nothing left to do, and waiting for them may take long.
        sys.stderr.flush()
        os._exit(0)

    async def _drain(self) -> None:
        self._server.drain()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (self._scheduler.queued or self._server.connections) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def _listen(self, orders: asyncio.StreamReader, stopping: asyncio.Event) -> None:
        while line := await orders.readline():
            try:
                self._obey(parse_order(line))
            except (ValueError, RecursionError, LookupError, TypeError) as error:
                log.error("an order that is none: %s", error)
        stopping.set()

    async def _open_port(self, loop: asyncio.AbstractEventLoop, paths: Paths, loopback: Loopback) -> None:
        """Listen at a port, too; whoever has taken it keeps nobody from the socket."""
        told = ""
        while self._listens_at is None:
            try:
                newcomers = Newcomers(self._server, own_secret(paths.secret_file, paths.socket_group))
                self._accepting.append(await accept(loop, newcomers.newcomer, open_port(loopback)))
                self._listens_at = loopback
                log.info("serving models at %s, too, to whoever knows the secret in %s", loopback, paths.secret_file)
            except (OSError, TuneError) as error:
                if told != str(error):
                    log.error("cannot listen at %s, sessions reach the socket only: %s", loopback, error)
                told = str(error)
                await asyncio.sleep(_PORT_SECONDS)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._server.beat()

    def _obey(self, order: dict[str, Any]) -> None:
        """Take what the parent has found in the databases, and in the last words of a predecessor."""
        for name in _BOUNDED:
            if name in order:
                setattr(self._scheduler.limits, name, _number(order, name))
        if "serve_threads" in order and (lanes := self._chosen_lanes(order)) != self._scheduler.computing.lane_count:
            self._scheduler.resize(lanes)
            log.info("computing with %d threads from now on", lanes)
        if "serve_memory_bytes" in order:
            self._models.budget_bytes = _budget(order)
        if "quarantined" in order:
            self._scheduler.quarantined = frozenset(order["quarantined"])
        if "suspects" in order:
            self._scheduler.order.suspects = frozenset(order["suspects"])
        if "ways" in order:  # before what is loaded because of the order
            self._models.choices = read_choices(order["ways"], self._scheduler.order.suspects)
            self._scheduler.load(self._models.outdated())
        if "pins" in order:
            self._scheduler.load(self._models.pin(order["pins"]))

    def _chosen_lanes(self, order: dict[str, Any]) -> int:
        return chosen_lanes(len(os.sched_getaffinity(0)), _number(order, "serve_threads"), on_gpu=self._on_gpu)

    def _status(self) -> dict[str, Any]:
        totals = self._scheduler.totals
        return {
            "process": os.getpid(),
            "started_at": self._started,
            "listens_at": "" if self._listens_at is None else str(self._listens_at),
            "connections": len(self._server.connections),
            "refused_connections": self._server.refused,
            "waiting_requests": self._scheduler.queued,
            "requests": totals.requests,
            "errors": totals.errors,
            "shed": totals.shed,
            "texts": totals.texts,
            "batches": totals.batches,
            "busy_seconds": round(totals.busy_seconds, 3),
            **self._scheduler.figures.told(),
            "threads": self._scheduler.computing.lane_count,
            "budget_bytes": self._models.budget_bytes,
            "quarantined": sorted(self._scheduler.quarantined),
            "models": [
                {
                    "digest": model.digest,
                    "bytes": model.bytes,
                    "is_pinned": model.digest in self._models.pins,
                    "calls": model.calls,
                    "last_used_at": model.used_at,
                    "engine": model.engine,
                    "way": None if model.way is None else model.way.to_json(),
                }
                for model in self._models.loaded.values()
            ],
        }


def _be_the_first_to_go() -> None:
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # where the system does not allow it
        if int(score.read_text()) < _OOM_SCORE:
            score.write_text(str(_OOM_SCORE))


async def _standard_input(loop: asyncio.AbstractEventLoop) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LONGEST_ORDER)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _number(values: dict[str, Any], name: str) -> int:
    return int(SETTINGS[name].parse(str(values.get(name, SETTINGS[name].default))))


def chosen_lanes(cores: int, allowed: int, *, on_gpu: bool) -> int:
    """How many batches are computed at once, on no more cores than are allowed; 0 allows all."""
    return lane_count(min(allowed or cores, cores), on_gpu=on_gpu)


def is_on_gpu(providers: Sequence[str]) -> bool:
    """Whether ONNX Runtime computes on a GPU, having these providers."""
    return choose_providers(providers, Path())[0][0] != CPU


def _budget(values: dict[str, Any]) -> int:
    return _number(values, "serve_memory_bytes") or machine_bytes() // _MEMORY_SHARE


if __name__ == "__main__":
    main(prog_name="pgml-tune serving")
