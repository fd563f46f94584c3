"""SQL of a model, judged and run: what does more than read is refused, and what people ask is not."""

import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from conftest import Connect

from tests.fixtures.sql_benign import BENIGN
from tests.fixtures.sql_hostile import BOMBS, hostile, mutated
from tests.fixtures.sql_world import SHOP, TRAPS

MUTATED = 200
FUZZED = int(os.environ.get("PGML_TUNE_FUZZ_CASES", "20000")) // 4
MEBIBYTE = 1 << 20
STATE = """
SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
    SELECT 'ledger', count(*) FROM shop.ledger
    UNION ALL SELECT 'customer', count(*) FROM shop.customer
    UNION ALL SELECT 'class', count(*) FROM pg_class
    UNION ALL SELECT 'proc', count(*) FROM pg_proc
    UNION ALL SELECT 'role', count(*) FROM pg_authid
    UNION ALL SELECT 'large objects', count(*) FROM pg_largeobject_metadata
    UNION ALL SELECT 'slots', count(*) FROM pg_replication_slots
    UNION ALL SELECT 'grants', count(*) FROM pg_class, aclexplode(relacl)
    UNION ALL SELECT 'sequence', last_value + is_called::int FROM shop.counter
    UNION ALL SELECT 'scratch', count(*) FROM pg_class WHERE relnamespace = 'pgml_tune_scratch'::regnamespace
) AS t
"""
LEFT = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
   OR current_setting('evil.mark', true) IS NOT NULL
"""


@pytest.fixture(scope="module")
def world(connect_shared: Connect) -> psycopg.Connection[Any]:
    """A superuser's session in a database with the shop and the traps."""
    session = connect_shared()
    session.execute("SET client_min_messages = warning")
    session.execute(f"GRANT CREATE ON DATABASE {session.info.dbname} TO alice")  # type: ignore[arg-type]
    session.execute(SHOP)
    session.execute(TRAPS)
    session.execute("SELECT grant_operate('alice')")
    session.execute("ANALYZE")
    session.execute("RESET client_min_messages")
    return session


class Victim:
    """A session that checks and runs SQL, and hears what the traps say."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self.session = session
        self.heard: list[str] = []
        session.add_notice_handler(lambda notice: self.heard.append(str(notice.message_primary)))

    def tries(self, sql: str) -> dict[str, Any]:
        found: dict[str, Any] = fetch_value(self.session, "SELECT pgml_tune._try_sql(%s)", (sql,))
        return found


@pytest.fixture(params=["postgres", "alice"])
def victim(request: pytest.FixtureRequest, world: psycopg.Connection[Any], connect_shared: Connect) -> Victim:
    session = connect_shared(request.param)
    session.execute("SET search_path = public, evil, shop")
    return Victim(session)


def files(home: Path) -> set[str]:
    """What stands where the server may write, but for what it writes by itself."""
    places = [home / "data", Path("/tmp")]
    return {str(file) for place in places for file in place.glob("*") if not file.name.startswith("pytest")}


@pytest.mark.slow
def test_no_hostile_statement_passes_or_leaves_a_trace(
    world: psycopg.Connection[Any], victim: Victim, server_home: Path
) -> None:
    statements = hostile()
    assert len(statements) >= 300
    before, files_before = fetch_value(world, STATE), files(server_home)
    passed = [sql for sql in statements if victim.tries(sql)["error"] is None]
    assert passed == []
    assert [line for line in victim.heard if "EVIL" in line] == []
    assert fetch_value(victim.session, LEFT) == 0
    assert fetch_value(world, STATE) == before
    assert files(server_home) - files_before == set()


@pytest.mark.slow
def test_what_people_ask_passes_and_runs(world: psycopg.Connection[Any], connect_shared: Connect) -> None:
    victim = Victim(connect_shared("alice"))
    assert len(BENIGN) >= 200
    answers = {sql: victim.tries(sql)["error"] for sql in BENIGN}
    wrong = {sql: error for sql, error in answers.items() if error is not None}
    assert len(wrong) <= 0.02 * len(BENIGN), wrong
    assert victim.heard == []


def try_mutated(world: psycopg.Connection[Any], victim: Victim, seed: int, count: int) -> None:
    """Tries so many statements that should not run; one that is only odd, or no longer hostile, may."""
    random = Random(seed)
    before = fetch_value(world, STATE)
    for _ in range(count):
        sql = mutated(random)
        verdict = victim.tries(sql)
        assert not any("EVIL" in line for line in victim.heard), sql
        assert verdict["sqlstate"] not in ("38000", "XX000"), (sql, verdict)
    assert fetch_value(victim.session, LEFT) == 0
    assert fetch_value(world, STATE) == before


@pytest.mark.slow
def test_no_mutated_statement_runs_what_it_should_not(world: psycopg.Connection[Any], victim: Victim) -> None:
    try_mutated(world, victim, 6, MUTATED)


@pytest.mark.fuzz
def test_none_of_many_mutated_statements_runs_what_it_should_not(
    world: psycopg.Connection[Any], victim: Victim
) -> None:
    try_mutated(world, victim, 7, FUZZED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_a_bomb_ends_in_time_and_memory(world: psycopg.Connection[Any], connect_shared: Connect, number: int) -> None:
    session = connect_shared("alice")
    fetch_value(session, "SELECT pgml_tune._check_sql('SELECT 1')")
    status = Path(f"/proc/{session.info.backend_pid}/status")
    fetch_value(world, "SELECT configure('sql_max_cost', '1000000000000000')")
    try:
        highest = memory(status, "VmHWM")
        begun = time.monotonic()
        outcome = fetch_value(session, "SELECT pgml_tune._try_sql(%s)", (BOMBS[number],))
        seconds = time.monotonic() - begun
        assert seconds <= 7, (seconds, outcome["error"])
        assert memory(status, "VmHWM") - highest <= 300 * MEBIBYTE
        assert outcome["error"] or outcome["is_cut"] or len(json.dumps(outcome["rows"])) < 2 * MEBIBYTE
        assert fetch_value(session, "SELECT 1") == 1
    finally:
        fetch_value(world, "SELECT configure('sql_max_cost', NULL)")


def memory(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
