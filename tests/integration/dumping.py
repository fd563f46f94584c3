"""A database dumped, and restored into an empty one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from commands import program, run
from conftest import Connect


@contextmanager
def restored_copy(
    source: psycopg.Connection[Any], connect: Connect, folder: Path, dump_format: str, *options: str
) -> Iterator[psycopg.Connection[Any]]:
    """A session on a copy that lives as long as the context; pg_dump takes further `options`."""
    name, dump = "restored_copy", str(folder / "dump")
    place = ["--host", source.info.host, "--port", str(source.info.port), "--username", "postgres"]
    run(program("pg_dump"), *place, "--format", dump_format, *options, "--file", dump, source.info.dbname)
    source.execute(f"DROP DATABASE IF EXISTS {name}")
    source.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    if dump_format == "plain":
        run(program("psql"), *place, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-d", name, "-f", dump)
    else:
        jobs = ["--jobs", "2"] if dump_format == "directory" else []
        run(program("pg_restore"), *place, *jobs, "--exit-on-error", "--dbname", name, dump)
    copy = connect(dbname=name)
    yield copy
    copy.close()
    source.execute(f"DROP DATABASE {name} WITH (FORCE)")
