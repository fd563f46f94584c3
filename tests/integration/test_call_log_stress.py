"""Writers, ingesters and readers at once: no call is missed or seen twice, whoever fails or is killed."""

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from call_lines import make_writer
from conditions import fetch_value
from conftest import Connect

SECONDS = float(os.environ.get("PGML_TUNE_STRESS_SECONDS", "3"))
WRITERS, INGESTERS, READERS = 4, 2, 2
BATCH = 50
CHECK = "SELECT count(*), count(DISTINCT call_id) FROM pgml_tune._calls"
AGE = "UPDATE pgml_tune.log_file SET done_at = now() - interval '2 hours' WHERE done_at IS NOT NULL"
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s"


class Stress:
    """What the threads share."""

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.end = time.monotonic() + SECONDS
        self.faults: list[str] = []
        self.written = [0] * WRITERS  # each thread counts for itself
        self.checks = [0] * READERS
        self.injected = [0] * INGESTERS

    def run(self, work: Callable[[int, random.Random], None], number: int) -> threading.Thread:
        def until_the_end() -> None:
            chance = random.Random(f"{work.__name__} {number}")
            try:
                while time.monotonic() < self.end:
                    work(number, chance)
            except BaseException as error:
                self.faults.append(f"{work.__name__}: {error!r}")

        thread = threading.Thread(target=until_the_end)
        thread.start()
        return thread

    def write(self, number: int, chance: random.Random) -> None:
        """A session that writes in transactions, half of which are rolled back."""
        session = self.connect()
        for _ in range(chance.randrange(1, 20)):
            first = (number + 1) * 10**9 + self.written[number]
            session.execute("BEGIN")
            session.execute("SELECT write_calls(%s, %s)", (first, BATCH))
            session.execute(chance.choice(["COMMIT", "ROLLBACK"]))
            self.written[number] += BATCH
        session.close()

    def ingest(self, number: int, chance: random.Random) -> None:
        """An ingest that is rolled back or killed now and then; files are removed as soon as they may be."""
        session = self.connect()
        session.execute("BEGIN")
        session.execute("SELECT pgml_tune._ingest_logs()")
        what = chance.choice(["COMMIT", "COMMIT", "ROLLBACK", "kill"])
        if what == "kill":
            with self.connect() as other:
                other.execute(TERMINATE, (session.info.backend_pid,))
            self.injected[number] += 1
        else:
            self.injected[number] += what == "ROLLBACK"
            session.execute(what)
            session.execute(AGE)
        session.close()

    def read(self, number: int, chance: random.Random) -> None:
        """Counts must hold in every snapshot."""
        session = self.connect()
        session.execute(chance.choice(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"]))
        for _ in range(3):
            before = sum(self.written) if not self.checks[number] % 3 else 0
            row = session.execute(CHECK).fetchone()
            assert row is not None
            if row[0] != row[1]:
                self.faults.append(f"{row[0] - row[1]} calls seen twice")
            if row[0] < before:
                self.faults.append(f"{before - row[0]} calls missed")
            self.checks[number] += 1
        session.close()


@pytest.mark.slow
def test_no_call_is_missed_or_counted_twice(connect: Connect) -> None:
    db: psycopg.Connection[Any] = connect()
    make_writer(db)
    stress = Stress(connect)
    threads = [stress.run(stress.write, number) for number in range(WRITERS)]
    threads += [stress.run(stress.ingest, number) for number in range(INGESTERS)]
    threads += [stress.run(stress.read, number) for number in range(READERS)]
    for thread in threads:
        thread.join()
    assert stress.faults == []
    total = sum(stress.written)
    assert db.execute(CHECK).fetchone() == (total, total)
    db.execute("SELECT pgml_tune._ingest_logs()")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.call_log") == total
    assert db.execute(CHECK).fetchone() == (total, total)
    assert db.execute("SELECT dropped_bytes, refused_lines FROM pgml_tune.stat_log").fetchone() == (0, 0)
    assert sum(stress.checks) > 0
    print(f"{total} calls, {sum(stress.injected)} failures of ingests, {sum(stress.checks)} looks")
