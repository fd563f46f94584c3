"""The process of a job: started alone and clean, listened to, measured, and ended with all that it has started."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from pgml_tune.worker.processes import living, members, memory_bytes, signal_all

_LONGEST_LINE = 1 << 20
_WAITING_LINES = 1000  # then the process waits until somebody listens
_LEAVE_SECONDS = 10.0
_LAST_LINES_SECONDS = 2.0  # whoever left the session may hold the streams for ever
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
# An import may ask a model hub, and may need a proxy for that.
_KEPT_TO_IMPORT = ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE")


def environment(own: Mapping[str, str], kind: str, folder: Path, threads: int) -> dict[str, str]:
    """All that the process of a job finds in its environment; nothing secret is in it."""
    package = str(Path(__file__).parents[2])
    kept = _KEPT + (_KEPT_TO_IMPORT if kind == "import_model" else ())
    values = {name: own[name] for name in kept if name in own}
    values |= {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, (package, own.get("PYTHONPATH")))),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return values if kind == "import_model" else values | {"HF_HUB_OFFLINE": "1"}


def command(job_id: int) -> list[str]:
    """What runs a job in its folder."""
    return [sys.executable, "-P", "-m", "pgml_tune.jobs", "run", str(job_id)]


class Child:
    """A process in a session of its own; it ends itself when the standard input that we hold is closed.

    It has to be started by a thread that lives as long as it: the system may end it with that thread.
    """

    def __init__(self, arguments: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
        )
        # Whether a line is of standard output; None: that stream has ended.
        self._lines: queue.Queue[tuple[bool, str | None]] = queue.Queue(_WAITING_LINES)
        self._open = 2
        for stream, is_report in ((self._process.stdout, True), (self._process.stderr, False)):
            threading.Thread(target=self._read, args=(stream, is_report), daemon=True).start()

    def _read(self, stream: IO[bytes], is_report: bool) -> None:
        with stream:
            while line := stream.readline(_LONGEST_LINE):
                self._lines.put((is_report, line.decode(errors="replace")))
        self._lines.put((is_report, None))

    def read(self, seconds: float) -> Iterator[tuple[bool, str]]:
        """The lines that come within this time, whether each is a report or belongs in the log.

        It is over sooner when both streams have ended.
        """
        deadline = time.monotonic() + seconds
        while self._open and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                is_report, line = self._lines.get(timeout=left)
                if line is None:
                    self._open -= 1
                else:
                    yield is_report, line

    def has_ended(self) -> bool:
        """Whether the process itself has ended; others that it started may live."""
        # It is not waited for: until then nobody else can get its number, which is that of the session too.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None

    def memory_bytes(self, enough: int) -> int:
        """Memory that all its processes hold; exactly, where it seems to be more than enough."""
        held = members(self._process.pid)
        at_most = memory_bytes(held)
        return at_most if at_most <= enough else memory_bytes(held, exactly=True)

    def terminate(self) -> None:
        """Ask all its processes to end."""
        signal_all(members(self._process.pid), signal.SIGTERM)

    def kill(self) -> None:
        """End all its processes, those too that one of them is just starting."""
        deadline = time.monotonic() + _LEAVE_SECONDS  # what hangs in a driver cannot be ended by anybody
        while (alive := living(self._process.pid)) and time.monotonic() < deadline:
            signal_all(alive, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> tuple[int, list[tuple[bool, str]]]:
        """End whatever is left of it; its status, as subprocess has it, and the lines that were not read yet."""
        self.kill()
        status = self._process.wait()
        rest = list(self.read(_LAST_LINES_SECONDS))
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status, rest
