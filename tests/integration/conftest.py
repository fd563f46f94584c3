"""One database per test, cloned from a template that has the extension, its roles and model minilm."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

# Cluster-wide roles, whose rights in a test's database come from the template.
ROLES = {"stranger": None, "mallory": None, "alice": "usage", "bob": "usage", "olga": "operate", "adam": "admin"}
VERSIONS = ("v1", "v1-int8", "v1-int8-block")
CRASHES = ("was terminated by signal", "PANIC:")

Connect = Callable[..., psycopg.Connection[Any]]


def _choose_cluster() -> None:
    """Gives each process of a parallel run a cluster of its own: PGML_TUNE_TEST_CLUSTERS is HOME:PGHOST for each."""
    process = os.environ.get("PYTEST_XDIST_WORKER")
    if process is not None:
        cluster = os.environ["PGML_TUNE_TEST_CLUSTERS"].split()[int(process.removeprefix("gw"))]
        os.environ["PGML_TUNE_TEST_HOME"], os.environ["PGHOST"] = cluster.split(":")


_choose_cluster()


def load_template(**connection: Any) -> None:
    """Fills the template database."""
    with psycopg.connect(**connection | {"autocommit": True}) as template:
        template.execute("SET client_min_messages = warning")
        template.execute("CREATE EXTENSION pgml_tune CASCADE")
        for version in VERSIONS:
            template.execute("SELECT register_model('minilm', 'minilm@' || %s, 'embedding', %s)", (version, version))
        for role, level in ROLES.items():
            if not template.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                template.execute(f"CREATE ROLE {role} LOGIN")
            if level:
                template.execute(f"SELECT grant_{level}(%s::regrole)", (role,))


server = factories.postgresql_noproc(
    host=os.environ.get("PGHOST"),
    port=os.environ.get("PGPORT"),
    user=os.environ.get("PGUSER"),
    dbname="pgml_tune_integration",
    load=[load_template],
)
database = factories.postgresql("server")


@pytest.fixture(scope="session")
def server_home() -> Path:
    """The folder of the private cluster: data/, log/, models/, spool/."""
    return Path(os.environ["PGML_TUNE_TEST_HOME"])


@pytest.fixture(scope="session")
def server_log(server_home: Path) -> Callable[[int], str]:
    """Reads the server's log from a position on."""
    log = server_home / "log" / "postgres.log"

    def read(start: int = 0) -> str:
        with log.open("rb") as lines:
            lines.seek(start)
            return lines.read().decode(errors="replace")

    return read


@pytest.fixture(scope="session", autouse=True)
def server_never_crashes(server_log: Callable[[int], str]) -> Iterator[None]:
    """A crash of the server fails the run, whichever test caused it."""
    start = len(server_log(0).encode())
    yield
    assert not [line for line in server_log(start).splitlines() if any(crash in line for crash in CRASHES)]


@contextmanager
def sessions(place: dict[str, Any]) -> Iterator[Connect]:
    """Opens sessions in a database, in autocommit, as any role, and closes them in the end."""
    opened: list[psycopg.Connection[Any]] = []

    def open_session(user: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        session = psycopg.connect(**(place | {"user": user, "autocommit": True} | options))
        opened.append(session)
        return session

    yield open_session
    for session in opened:
        session.close()


@pytest.fixture
def connect(database: psycopg.Connection[Any]) -> Iterator[Connect]:
    """Opens sessions in the test's database, in autocommit, as any role."""
    place = {name: getattr(database.info, name) for name in ("host", "port", "dbname")}
    database.close()
    with sessions(place) as open_session:
        yield open_session


@pytest.fixture(scope="module")
def connect_shared(server: NoopExecutor) -> Iterator[Connect]:
    """Opens sessions in a database that all tests of a module share: what takes long to build is built once."""
    place = {"host": server.host, "port": server.port, "dbname": f"{server.dbname}_shared"}
    with (
        DatabaseJanitor(**place, user=server.user, template_dbname=server.template_dbname),
        sessions(place) as open_session,
    ):
        yield open_session


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection[Any]:
    """A superuser's session."""
    return connect()


@pytest.fixture
def counts(connect: Connect) -> Callable[..., dict[str, int]]:
    """Reads the counters of a session, which are its own and unflushed."""

    def read(session: psycopg.Connection[Any], version: str = "v1") -> dict[str, int]:
        row = session.execute(
            "SELECT coalesce(sum(texts), 0), coalesce(sum(session_hits), 0), coalesce(sum(table_hits), 0),"
            " coalesce(sum(misses), 0) FROM pgml_tune.stat_cache WHERE version = %s",
            (version,),
        ).fetchone()
        assert row is not None
        return dict(zip(("texts", "session_hits", "table_hits", "misses"), map(int, row), strict=True))

    return read


@pytest.fixture
def table_cache_off(db: psycopg.Connection[Any]) -> None:
    """Only the session cache is in use."""
    assert fetch_value(db, "SELECT configure('table_cache', 'off')") == "off"
