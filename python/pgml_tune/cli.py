"""`pgml-tune`: what an operator does from a shell.

Importing needs files and training libraries, so it runs here, as the operating system user that owns the model
root, in a process of its own; the last step is SQL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import psycopg
from psycopg import sql

from pgml_tune import __version__
from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.errors import NotReady, TuneError
from pgml_tune.ipc.addresses import worker_address
from pgml_tune.ipc.client import Client
from pgml_tune.records import TASKS, Check, check_name
from pgml_tune.report import page
from pgml_tune.service import health as service_health
from pgml_tune.service import loaded
from pgml_tune.settings import read_paths
from pgml_tune.store.report import read as read_facts

QUANTIZATIONS = ("int8_dynamic", "int8_block")
_LAST_WORDS = 20  # lines shown of a process that died without a report


class ReportedError(click.ClickException):
    """An error printed the way psql prints it."""

    def __init__(self, sqlstate: str | None, message: str, detail: str | None, hint: str | None) -> None:
        super().__init__(message)
        self.lines = [f"ERROR:  {message}" + (f" ({sqlstate})" if sqlstate else "")]
        self.lines += [f"{label}:  {text}" for label, text in (("DETAIL", detail), ("HINT", hint)) if text]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo("\n".join(self.lines), err=True)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except TuneError as error:
        raise ReportedError(error.sqlstate, error.message, error.detail, error.hint) from None
    except psycopg.Error as error:
        message = error.diag.message_primary or str(error).strip()
        raise ReportedError(error.sqlstate, message, error.diag.message_detail, error.diag.message_hint) from None


@dataclass(frozen=True, slots=True)
class Database:
    """A connection, and the schema that the extension's functions are in."""

    connection: psycopg.Connection[Any]
    schema: str

    @classmethod
    def connect(cls, dsn: str) -> Database:
        connection = psycopg.connect(dsn, autocommit=True, application_name="pgml-tune")
        row = connection.execute(
            "SELECT n.nspname FROM pg_catalog.pg_extension AS e"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pgml_tune'"
        ).fetchone()
        if row is None:
            database = connection.info.dbname
            connection.close()
            raise NotReady(
                f'extension "pgml_tune" is not installed in database "{database}"',
                hint="CREATE EXTENSION pgml_tune CASCADE",
            )
        return cls(connection, row[0])

    def function(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    def registered(self, model: str, digest: str) -> str | None:
        """The version of a model that already is this artifact."""
        row = self.connection.execute(
            "SELECT version FROM pgml_tune.model_versions WHERE model = %s AND artifact_sha256 = %s LIMIT 1",
            (model, digest),
        ).fetchone()
        return None if row is None else str(row[0])

    def register(self, model: str, digest: str, task: str, version: str | None, options: dict[str, str]) -> str:
        row = self.connection.execute(
            sql.SQL("SELECT {}(%s, %s, %s, %s, %s::jsonb)").format(self.function("register_model")),
            (model, digest, task, version, json.dumps(options)),
        ).fetchone()
        assert row is not None
        return str(row[0])

    def checks(self) -> list[Check]:
        rows = self.connection.execute(sql.SQL("SELECT * FROM {}()").format(self.function("doctor"))).fetchall()
        return [Check(*(value or "" for value in row)) for row in rows]


def run_job(arguments: list[str], verbose: bool) -> Iterator[dict[str, Any]]:
    """The events of a job process; raises the error it reports."""
    package = str(Path(__file__).parents[1])
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as chatter:
        command = [sys.executable, "-P", "-m", "pgml_tune.jobs", *arguments]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=None if verbose else chatter,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))},
            encoding="utf-8",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    raise ReportedError(event["sqlstate"], event["message"], event["detail"], event["hint"])
                yield event
        if process.returncode != 0:
            chatter.seek(0)
            click.echo("".join(chatter.readlines()[-_LAST_WORDS:]), err=True, nl=False)
            reason = "It was killed, perhaps for want of memory." if process.returncode < 0 else ""
            raise ReportedError(None, f"the job ended with status {process.returncode}", reason, None)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pgml-tune")
def main() -> None:
    """Local models in PostgreSQL: bring a model in, check an installation, write a report.

    Runs on the database server, as the operating system user that owns the model root (usually postgres).
    Everything else is SQL: SELECT embed('some text').
    """


_dsn = click.option(
    "--dsn", default="", metavar="CONNINFO", help="Where to connect; by default as psql does (PGHOST, PGDATABASE, ...)."
)


@main.command("import", short_help="Import a model and register it.")
@click.argument("source")
@click.option("--name", required=True, help="The name the model gets in SQL.")
@click.option("--task", type=click.Choice(TASKS), default=TASKS[0], show_default=True, help="What the model does.")
@click.option("--version", "version", help="Name of the new version; by default the next of v1, v2, ...")
@click.option(
    "--quantize",
    multiple=True,
    type=click.Choice(QUANTIZATIONS),
    help="Also add an 8-bit version, VERSION-int8 or VERSION-int8-block, if it keeps the vectors. May be repeated.",
)
@click.option("--verbose", is_flag=True, help="Show what the libraries print.")
@_dsn
def import_command(
    source: str, name: str, task: str, version: str | None, quantize: tuple[str, ...], verbose: bool, dsn: str
) -> None:
    """Import a model: export it to ONNX or CTranslate2, compare it with the original, register it.

    SOURCE is a folder of sentence-transformers or transformers with weights in safetensors, or a name org/model where
    a model hub can be reached. The same files imported twice make no second copy. With --task text_to_sql it may be
    endpoint:NAME, a model of the server that the setting sql_endpoint names.

    \b
    pgml-tune import ./all-MiniLM-L6-v2 --name minilm
    pgml-tune import ./all-MiniLM-L6-v2 --name minilm --quantize int8_dynamic --dsn "dbname=app"
    """
    with _reported():
        check_name(name, "model")
        if version is not None:
            check_name(version, "version")
        database = Database.connect(dsn)
        with database.connection:
            arguments = ["import", f"--task={task}", *(f"--quantize={method}" for method in quantize), "--", source]
            base = version
            for event in run_job(arguments, verbose):
                if event["event"] == "progress":
                    click.echo(f"  {event['phase']}")
                elif event["event"] == "artifact" and not event["suffix"]:
                    base = _register(database, name, task, version, {}, event)
                elif event["event"] == "artifact":
                    derived = f"{base}{event['suffix']}"
                    _register(database, name, task, derived, {"base": str(base)}, event)


def _register(
    database: Database, name: str, task: str, version: str | None, options: dict[str, str], event: dict[str, Any]
) -> str:
    digest, storage = event["digest"], event["config"]["storage"]
    existing = database.registered(name, digest)
    if existing is not None and version in (None, existing):
        click.echo(f"{name}@{existing} is already there: the same files, artifact {digest[:12]} ({storage})")
        return existing
    registered = database.register(name, digest, task, version, options)
    made = "from an earlier import" if event["existed"] else "new"
    click.echo(f"{name}@{registered} registered: artifact {digest[:12]} ({storage}, {made})")
    return registered


@main.command(short_help="Check an installation.")
@_dsn
def doctor(dsn: str) -> None:
    """Check an installation; the exit status is 1 when a check fails."""
    with _reported():
        database = Database.connect(dsn)
        with database.connection:
            checks = database.checks()
    width = max((len(check.check_name) for check in checks), default=0)
    for check in checks:
        click.echo(f"{check.status:<4}  {check.check_name:<{width}}  {check.detail}")
        if check.fix and check.status != "ok":
            click.echo(f"      {'':<{width}}  fix: {check.fix}")
    if any(check.status == "fail" for check in checks):
        sys.exit(1)


@main.command(short_help="Write a page on rollouts, latency, quality, cache, jobs and drift.")
@click.option(
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    help="The file to write; - for the standard output.",
)
@click.option("--since", default="7 days", show_default=True, metavar="INTERVAL", help="The time that it is about.")
@_dsn
def report(output: str, since: str, dsn: str) -> None:
    """Write one HTML page that stands for itself: no script, and nothing is loaded from elsewhere.

    It shows what a role with grant_operate() may see. Unlike the other commands it can run on any machine.
    """
    with _reported(), closing(ConnectionDatabase.connect(dsn, "pgml-tune")) as database:
        written = page.render(read_facts(database, since))
    try:
        with click.open_file(output, "w", encoding="utf-8", atomic=True) as file:
            file.write(written)
    except OSError as error:
        raise click.FileError(output, error.strerror) from None


@main.command(short_help="Ask the process that serves models how it is.")
@click.option("--metrics", is_flag=True, help="Print figures for Prometheus instead of a line.")
def health(metrics: bool) -> None:
    """Ask the process that serves models, which pgml-tune worker runs, how it is; exit status 1 if it does not answer.

    \b
    pgml-tune health
    pgml-tune health --metrics > /var/lib/prometheus/node-exporter/pgml_tune.prom
    """
    with _reported():
        client = Client(worker_address(read_paths()))
    told = loaded.status(client)
    if metrics:
        click.echo(service_health.metrics(told), nl=False)
    elif told is None:
        reason = loaded.why_silent(client)
        start = "start one as the server's user: pgml-tune worker"
        click.echo(f'failed: no worker answers at "{client.address}": {reason}; {start}')
    else:
        click.echo(service_health.one_line(told))
    if told is None:
        sys.exit(1)


@main.command(
    short_help="Run queued jobs.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run queued jobs; see pgml-tune worker --help."""
    # In this process's place: a service manager then knows the worker by its number.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pgml_tune.worker", *arguments])


if __name__ == "__main__":
    main(prog_name="pgml-tune")
