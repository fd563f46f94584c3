"""Keeps the process alive that serves models, and tells it what the databases want."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgml_tune.ipc.addresses import socket_file
from pgml_tune.ipc.client import Client, WorkerLost, WorkerSilent
from pgml_tune.ipc.frames import NO_DIGEST
from pgml_tune.ipc.note import read_note
from pgml_tune.ipc.operations import STATUS
from pgml_tune.ipc.place import is_served, note_path
from pgml_tune.records import is_digest
from pgml_tune.settings import Paths
from pgml_tune.worker.suspicion import Suspicion
from pgml_tune.worker.wishes import Wishes

_LOOK_SECONDS = 0.25
_ASK_SECONDS = 2.0
_FROZEN_SECONDS = 8.0  # without an answer, after which the process is replaced
_START_SECONDS = 60.0  # that it may take to begin on a machine that is busy
_WISH_SECONDS = 3.0  # that the databases have to say what they want before the process is started
_STEADY_SECONDS = 30.0  # of life, after which the next start is at once again
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 4.0
_TAKE_OVER_SECONDS = 0.5  # between two looks whether the place is free
_LEAVE_SECONDS = 15.0
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "PGML_TUNE_CONFIG", "HOME")
log = logging.getLogger("pgml_tune.worker")


@dataclass(slots=True)
class ServingProcess:
    """The process, started again whenever it ends."""

    paths: Paths
    wishes: Wishes
    stopping: threading.Event
    suspicion: Suspicion = field(default_factory=Suspicion)
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _begun_at: float = 0.0  # by time.time()
    _answered: float = 0.0
    _patience: float = _START_SECONDS
    _silent_since: float | None = None  # it listens, and does not answer
    _next_ask: float = 0.0
    _wait: float = _FIRST_WAIT
    _told: str = ""

    def run(self) -> None:
        """Serve until told to stop."""
        client = Client(socket_file(self.paths))
        try:
            while not self.stopping.is_set():
                if self._process is None:
                    self._start()
                elif self._process.poll() is not None:
                    self._take_leave(self._process)
                else:
                    self._tell()
                    self._look_after(self._process, client)
                self.stopping.wait(_LOOK_SECONDS)
        finally:
            client.close()
            self._stop()

    def _start(self) -> None:
        if is_served(self.paths.serve_socket):  # by another worker, whose place is taken when it leaves
            if self._told != "other":
                log.info('another worker serves models at "%s"', self.paths.serve_socket)
            self._told = "other"
            self.stopping.wait(_TAKE_OVER_SECONDS)
            return
        deadline = time.monotonic() + _WISH_SECONDS
        while not self.wishes.is_told and time.monotonic() < deadline and not self.stopping.is_set():
            self.stopping.wait(_LOOK_SECONDS)  # how many threads it has is decided at its start
        begun_at = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pgml_tune.serving"],
            stdin=subprocess.PIPE,
            env=_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
        self._started = self._answered = time.monotonic()
        self._begun_at = begun_at
        self._patience = _START_SECONDS
        self._silent_since = None
        self._told = ""
        self._tell()

    def _tell(self) -> None:
        """Pass on what is new."""
        order = self.wishes.order() | {
            "suspects": self.suspicion.suspects, "quarantined": self.suspicion.quarantined
        }  # fmt: skip
        line = json.dumps(order)
        if line != self._told and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has just ended
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            self._told = line

    def _look_after(self, process: subprocess.Popen[bytes], client: Client) -> None:
        """Replace a process that lives and does not answer."""
        now = time.monotonic()
        if now < self._next_ask:
            return
        try:
            client.ask(NO_DIGEST, {"op": STATUS})
            if not self.paths.serve_socket.is_socket():  # this connection lives on, but nobody finds it any more
                raise WorkerLost(f'there is no socket "{self.paths.serve_socket}"')
            self._answered, self._silent_since, self._patience = time.monotonic(), None, _FROZEN_SECONDS
            self._next_ask = now + _ASK_SECONDS
            return
        except WorkerSilent as silent:
            self._silent_since = self._silent_since or now
            is_over, lost = time.monotonic() - self._silent_since > _FROZEN_SECONDS, str(silent)
        except WorkerLost as error:  # it does not listen yet, has just ended, or its socket was removed
            is_over, lost = now - self._answered > self._patience, str(error)
        if is_over:
            log.error("the process that serves models does not answer and is replaced: %s", lost)
            process.kill()
            process.wait()

    def _take_leave(self, process: subprocess.Popen[bytes]) -> None:
        """Find out what the process died of, and wait before the next one where it did so soon."""
        noted = read_note(note_path(self.paths.serve_socket), self._begun_at)
        running = {digest for digest in noted if is_digest(digest)}
        status = process.returncode
        if self.suspicion.ended(status, running):
            log.error(
                "the process that serves models has crashed (signal %d) while it ran %s",
                -status, ", ".join(digest[:12] for digest in sorted(running)) or "no model",
            )  # fmt: skip
        else:
            log.warning("the process that serves models has ended with status %d", status)
        if process.stdin is not None:
            process.stdin.close()
        self._process = None
        if time.monotonic() - self._started > _STEADY_SECONDS:
            self._wait = _FIRST_WAIT
        self.stopping.wait(self._wait)
        self._wait = min(2 * self._wait, _LONGEST_WAIT)

    def _stop(self) -> None:
        """Let the process answer what it has begun, and end."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    values = {name: own[name] for name in _KEPT if name in own}
    package = str(Path(__file__).parents[2])
    return values | {
        "PYTHONPATH": os.pathsep.join(filter(None, (package, own.get("PYTHONPATH")))),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
