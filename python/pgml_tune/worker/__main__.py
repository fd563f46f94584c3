"""`pgml-tune worker`: runs the jobs that procedures such as finetune_sbert() have queued."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import click

from pgml_tune.errors import TuneError
from pgml_tune.settings import read_paths
from pgml_tune.worker.cluster import ClusterWorker
from pgml_tune.worker.database import DatabaseWorker
from pgml_tune.worker.hold import Timing
from pgml_tune.worker.link import Place, Unreachable, ask_once
from pgml_tune.worker.serving import ServingProcess
from pgml_tune.worker.wishes import Wishes

_INHERITED = (signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG, signal.SIGPIPE)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--dsn", default="", metavar="CONNINFO", help="Where to connect; by default as psql does (PGHOST, ...).")
@click.option("--database", "only", multiple=True, help="Serve this database only. May be repeated.")
@click.option("--once", is_flag=True, help="Serve the one database of CONNINFO, and end when no job is left.")
@click.option("--after-xid", type=click.IntRange(min=1), metavar="XID", help="With --once: wait for the end of XID.")
@click.option("--serve/--no-serve", default=True, show_default=True,
              help="Also hold models for all sessions of the server and compute for them.")  # fmt: skip
@click.option("--lease-seconds", type=click.FloatRange(1), default=60, show_default=True,
              help="After so long without a sign of life a job may be given to another worker.")  # fmt: skip
@click.option("--heartbeat-seconds", type=click.FloatRange(0.2), default=10, show_default=True,
              help="How often a sign of life is given.")  # fmt: skip
def main(
    dsn: str,
    only: tuple[str, ...],
    once: bool,
    after_xid: int | None,
    serve: bool,
    lease_seconds: float,
    heartbeat_seconds: float,
) -> None:
    """Run queued jobs, those of all databases of the cluster that have the extension, and serve models.

    Each job runs in a process of its own, and so do the models. SIGTERM gives the jobs that run back to the queue,
    lets calls that are on their way be answered, and ends the worker.

    \b
    pgml-tune worker
    pgml-tune worker --once --dsn "dbname=app"
    """
    if 2 * heartbeat_seconds > lease_seconds:
        raise click.UsageError("--lease-seconds must be at least twice --heartbeat-seconds.")
    if (after_xid is not None and not once) or (only and once):
        raise click.UsageError("--after-xid needs --once, and --database does not go with that.")
    _tell_to_standard_error()
    stopping = _stop_on_signals()
    timing = Timing(lease_seconds, heartbeat_seconds)
    try:
        paths = read_paths()
        _check_user(paths.spool_dir)
        if once:
            name = ask_once(Place(dsn), lambda db: db.name)
            DatabaseWorker(
                Place(dsn, name), paths, timing, is_one_shot=True, stopping=stopping, after_transaction=after_xid
            ).run()
        else:
            _run_all(ClusterWorker(dsn, only, paths, timing, stopping, Wishes() if serve else None))
    except TuneError as error:
        raise click.ClickException(f"{error.message}: {error.detail}" if error.detail else error.message) from None
    except Unreachable as error:
        raise click.ClickException(str(error)) from None


def _check_user(spool_dir: Path) -> None:
    """Refuse to run as root or as another user than the server's: sessions would not reach its socket."""
    try:
        number = spool_dir.stat().st_uid
    except OSError:
        return  # not there yet, or out of reach: told where it is used
    if number == os.geteuid():
        return
    owner = str(number)
    with suppress(KeyError):
        owner = pwd.getpwuid(number).pw_name
    raise click.ClickException(f'"{spool_dir}" is of user {owner}: run the worker as that user, who is the server\'s')


def _run_all(worker: ClusterWorker) -> None:
    """Run the jobs, and beside them the process that serves models."""
    if worker.wishes is None:
        worker.run()
        return
    serving = ServingProcess(worker.paths, worker.wishes, worker.stopping, worker.suspicion)
    thread = threading.Thread(target=serving.run, name="serving")
    thread.start()
    try:
        worker.run()
    finally:
        worker.stopping.set()
        thread.join()


def _tell_to_standard_error() -> None:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s UTC %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )  # fmt: skip


def _stop_on_signals() -> threading.Event:
    """What SIGTERM and SIGINT set."""
    # Whoever was started by a backend has its signals blocked and ignored, and so would all that it starts.
    for number in _INHERITED:
        signal.signal(number, signal.SIG_DFL)
    stopping = threading.Event()
    # The system may hand a signal to any thread, and Python handles it when the main one wakes up, which may be in a
    # minute; only the byte in this socket comes at once.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())

    def wait_for_signal(_writer: socket.socket) -> None:  # which lives as long as this thread
        while reader.recv(1):
            stopping.set()

    threading.Thread(target=wait_for_signal, args=(writer,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return stopping


if __name__ == "__main__":
    main(prog_name="pgml-tune worker")
