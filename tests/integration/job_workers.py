"""Workers that tests start, stop and kill, and the small models that their jobs work on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from commands import run, server_environment, server_user
from conditions import fetch_value, wait_until

CHECKOUT = Path(__file__).parents[2]
LEASE_SECONDS = 3.0
FLAGS = ("--no-serve", f"--lease-seconds={LEASE_SECONDS}", "--heartbeat-seconds=0.5")
ENDED = ("succeeded", "failed", "cancelled")

# Artifacts with the same graph and other digests: each is a model that no job has worked on yet.
_VARIANTS = """
import json, shutil, sys
from pathlib import Path
from pgml_tune.engine.artifact import Artifact, new_artifact, publish
original = Artifact(Path(sys.argv[1]), sys.argv[2])
for number in range(int(sys.argv[4])):
    with new_artifact(Path(sys.argv[1])) as folder:
        for name in original.files:
            shutil.copyfile(original.path(name), folder / name)
        config = original.config().to_json()
        config["source"]["files_sha256"] = f"{sys.argv[3]} {number}"
        (folder / "config.json").write_text(json.dumps(config))
        print(publish(Path(sys.argv[1]), folder).digest)
"""


@dataclass(frozen=True)
class Installation:
    """The private cluster as its own user sees it."""

    home: Path

    @property
    def user(self) -> str:
        return server_user(self.home / "data").pw_name

    @property
    def environment(self) -> dict[str, str]:
        return server_environment(self.home / "data") | {"OMP_NUM_THREADS": "1"}

    @property
    def import_dir(self) -> Path:
        """The folder that models may be imported from."""
        return self.home / "import"

    def python(self, *arguments: str) -> str:
        return run(sys.executable, *arguments, user=self.user, environment=self.environment, folder=self.home)

    def build_tiny(self) -> str:
        """The digest of a model of two layers; made once for all tests."""
        return self._build("tiny", "build", "embedding")

    def build_small(self) -> str:
        """The digest of a model like build_tiny(), of another space and half the dimensions."""
        return self._build("small", "build_small", "embedding")

    def build_other(self) -> str:
        """The digest of a model like build_tiny(), of another space and the same dimensions."""
        return self._build("other", "build_other", "embedding")

    def build_classifier(self) -> str:
        """The digest of a classifier of two layers and three labels."""
        return self._build("classifier", "build_classifier", "classification")

    def _build(self, name: str, function: str, task: str) -> str:
        folder = self.import_dir / name
        if not folder.exists():
            # In a process of its own: torch would stay in this one.
            script = "import sys; sys.path[:0] = sys.argv[1:2]; from pathlib import Path; import tiny_model"
            script += f"; tiny_model.{function}(Path(sys.argv[2]))"
            run(sys.executable, "-c", script, str(CHECKOUT / "tests" / "fixtures"), str(folder), folder=self.home)
            for path in self.import_dir.rglob("*"):
                shutil.chown(path, self.user)
        for line in self.python("-P", "-m", "pgml_tune.jobs", "import", str(folder), "--task", task).splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "artifact":
                    return str(event["digest"])
        raise AssertionError("the import told of no artifact")

    def variants(self, digest: str, label: str, count: int) -> list[str]:
        """Digests of models that differ from one in name only."""
        return self.python("-P", "-c", _VARIANTS, str(self.home / "models"), digest, label, str(count)).split()


@dataclass
class Worker:
    """A worker process."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 30.0) -> int:
        """Ask it to end and wait for that; one that has just been started is not yet ready to be asked."""
        self.signal(signal.SIGCONT)
        wait_until(lambda: not is_alive(self.pid) or catches(self.pid, signal.SIGTERM), seconds)
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def jobs(self) -> list[int]:
        """The job processes that it has started."""
        return [pid for pid in processes() if _parent(pid) == self.pid and b"pgml_tune.jobs" in _command(pid)]

    def one_job(self) -> int:
        """The job process, as soon as there is one."""
        return int(wait_until(self.jobs, 60)[0])


@dataclass
class Workers:
    """Starts workers for one database and ends them."""

    installation: Installation
    place: str
    database: str
    started: list[Worker] = field(default_factory=list)

    def start(self, *flags: str) -> Worker:
        log = self.installation.home / "log" / f"{self.database}-worker-{len(self.started)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pgml_tune.worker", "--dsn", self.place, *FLAGS, *flags],
                cwd=self.installation.home,
                env=self.installation.environment,
                user=self.installation.user if os.getuid() == 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.started.append(Worker(process, log))
        return self.started[-1]

    def serve(self) -> Worker:
        """A worker that stays, for this database alone."""
        return self.start("--database", self.database)

    def run_once(self) -> None:
        """A worker that ends when there is nothing left to do."""
        assert self.start("--once").process.wait(240) == 0


@contextmanager
def workers_of(installation: Installation, connection: psycopg.Connection[Any]) -> Iterator[Workers]:
    info = connection.info
    place = f"host={info.host} port={info.port} user={info.user} dbname={info.dbname}"
    workers = Workers(installation, place, info.dbname)
    yield workers
    for worker in workers.started:
        if worker.process.poll() is None:
            for pid in (worker.pid, *worker.jobs()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            worker.process.wait()


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _command(pid: int) -> bytes:
    return _read(pid, "cmdline")


def _parent(pid: int) -> int:
    return int((_read(pid, "stat").rpartition(b")")[2].split() or [b"", b"-1"])[1])


def is_alive(pid: int) -> bool:
    return (_read(pid, "stat").rpartition(b")")[2].split() or [b"X"])[0] not in (b"Z", b"X")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    caught = re.search(rb"^SigCgt:\s*([0-9a-f]+)$", _read(pid, "status"), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def session_of(pid: int) -> list[int]:
    """All processes of the session of a job process."""
    return [other for other in processes() if is_alive(other) and _session(other) == pid]


def _session(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return -1


def job_processes(installation_id: int) -> list[int]:
    """The processes that work on jobs of a database, whoever has started them."""
    folder = f"/jobs/{installation_id}-".encode()
    return [pid for pid in processes() if is_alive(pid) and folder in _read(pid, "environ")]


def queue(db: psycopg.Connection[Any], call: str, parameters: Any = None) -> int:
    """Calls a procedure without waiting for the job that it adds."""
    return int(fetch_value(db, call, parameters))


def state_of(db: psycopg.Connection[Any], job_id: int) -> str:
    return str(fetch_value(db, "SELECT state FROM pgml_tune.jobs WHERE job_id = %s", (job_id,)))


def error_of(db: psycopg.Connection[Any], job_id: int) -> str | None:
    """The SQLSTATE of a job that has ended."""
    sqlstate = fetch_value(db, "SELECT sqlstate FROM pgml_tune.jobs WHERE job_id = %s", (job_id,))
    return None if sqlstate is None else str(sqlstate)


def wait_for_end(db: psycopg.Connection[Any], job_id: int, seconds: float = 180.0) -> str:
    """How a job has ended."""
    return str(wait_until(lambda: (state := state_of(db, job_id)) in ENDED and state, seconds))


def sleep_until_running(db: psycopg.Connection[Any], job_id: int, token: int = 1) -> None:
    """Waits until a job is held under a claim."""
    statement = "SELECT state = 'running' AND fencing_token >= %s FROM pgml_tune.job WHERE job_id = %s"
    wait_until(lambda: fetch_value(db, statement, (token, job_id)), 60)
