"""The process of a session: its threads, its memory, its names."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

ODD_NAME = 'Odd "name" $1 %s äöü'
CALLS = 2000
MOST_GROWTH = 8 << 20
SIGNALS = [1, 2, 3, 10, 14, 15]  # SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGALRM, SIGTERM: those PostgreSQL handles


def resident_bytes(session: psycopg.Connection[Any]) -> int:
    return int(Path(f"/proc/{session.info.backend_pid}/statm").read_text().split()[1]) * resource.getpagesize()


def blocked_signals(task: Path) -> int:
    """The signal mask of a thread."""
    lines = (task / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)


def test_threads_of_libraries_never_handle_signals_of_the_server(connect: Connect, db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('threads', '4')")
    session = connect()
    session.execute("SELECT embed(array_agg('text ' || g)) FROM generate_series(1, 200) AS g")
    backend = session.info.backend_pid
    others = [task for task in Path(f"/proc/{backend}/task").iterdir() if task.name != str(backend)]
    assert others
    for task in others:
        mask = blocked_signals(task)
        assert all(mask >> (signal - 1) & 1 for signal in SIGNALS), task.name
    assert not blocked_signals(Path(f"/proc/{backend}/task/{backend}")) >> 14 & 1


def test_memory_does_not_grow_with_calls(connect: Connect) -> None:
    session = connect()
    session.execute("SET pgml_tune.cache = 'off'")
    for number in range(CALLS // 4):
        session.execute("SELECT embed(%s, 'minilm@v1-int8')", (f"warm {number}",))
    before = resident_bytes(session)
    for number in range(CALLS):
        session.execute("SELECT embed(%s, 'minilm@v1-int8')", (f"text {number}",))
        if number % 4 == 0:
            with refused("42704", "22023"):
                session.execute("SELECT embed('a', %s)", (f"nothere{number}" if number % 8 else "not valid",))
    assert resident_bytes(session) - before <= MOST_GROWTH


@pytest.fixture
def odd(db: psycopg.Connection[Any], connect: Connect) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role in a database, both with a name full of quotes."""
    quoted = '"' + ODD_NAME.replace('"', '""') + '"'
    db.execute(f"DROP DATABASE IF EXISTS {quoted}")
    db.execute(f"DROP ROLE IF EXISTS {quoted}")
    db.execute(f"CREATE ROLE {quoted} LOGIN")
    db.execute(f"CREATE DATABASE {quoted} TEMPLATE template0")
    owner = connect(dbname=ODD_NAME)
    owner.execute("SET client_min_messages = warning")
    owner.execute("CREATE EXTENSION pgml_tune CASCADE")
    owner.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
    owner.execute("SELECT grant_admin(%s::text::regrole)", (quoted,))
    owner.close()
    session = connect(ODD_NAME, dbname=ODD_NAME)
    yield session
    session.close()
    db.execute(f"DROP DATABASE {quoted} WITH (FORCE)")
    db.execute(f"DROP ROLE {quoted}")


def test_odd_names_of_database_and_role_work(odd: psycopg.Connection[Any]) -> None:
    assert fetch_value(odd, "SELECT vector_dims(embed('a'))") == 384
    assert fetch_value(odd, "SELECT register_model('odd', 'minilm@v1', 'embedding', 'v1')") == "v1"
    assert fetch_value(odd, "SELECT created_by FROM pgml_tune.models WHERE model = 'odd'") == ODD_NAME
    assert fetch_value(odd, "SELECT configure('threads', '2')") == "2"
    quoted = fetch_value(odd, "SELECT quote_ident(current_user)")
    assert fetch_value(odd, "SELECT cache_purge(role => %s::text::regrole)", (quoted,)) == 1
    assert fetch_value(odd, "SELECT count(*) FROM doctor() WHERE status = 'fail'") == 0
