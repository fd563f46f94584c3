"""Documents in a table in mode queue: the worker's fill against the engine alone, four writers beside both."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import psycopg
from corpus import Corpus
from plan import Plan
from report import Figure, at_least, at_most, skipped
from server import FP32, Connection, connect
from serving import as_server, serving
from storing import storing_rates

_WRITERS, _PAUSE_SECONDS = 4, 0.05
_BATCH, _SINGLES = 1000, 500
# The same process that the worker asks, asked for the same texts in the same batches, and nothing else.
_ENGINE = """
import json, sys, threading, time
from pgml_tune.engine.work import Work
from pgml_tune.errors import TuneError
from pgml_tune.settings import Limits, read_paths
from pgml_tune.worker.passages import open_passages
passages, limits = open_passages(read_paths(), threading.Event(), is_served=True), Limits.from_rows({})
texts, batch = json.load(sys.stdin), int(sys.argv[2])
for attempt in range(100):
    try:
        passages.embed(sys.argv[1], texts[:64], limits, Work())
        break
    except TuneError:  # the worker has just been started
        time.sleep(0.2)
started = time.monotonic()
for first in range(0, len(texts), batch):
    passages.embed(sys.argv[1], texts[first : first + batch], limits, Work())
print(time.monotonic() - started)
"""
_WAITING = "SELECT EXISTS (SELECT FROM pgml_tune.queue AS q WHERE q.queue_id <= %s AND q.collection_id = %s)"
_STATE = "SELECT is_ready FROM pgml_tune.collection WHERE collection_id = %s"
_WRONG = """
SELECT count(*) FROM queued AS s FULL JOIN {side} AS e ON e.key_1 = s.n
WHERE s.n IS NULL OR e.key_1 IS NULL OR e.text_sha256 <> sha256(convert_to(s.body, 'UTF8'))
"""


def measure(plan: Plan) -> list[Figure]:
    part = "13. Mode queue: documents embedded by the worker, four writers beside it; fp32"
    if plan.texts.data_dir is None:
        return [skipped(part, "all", "DATA_DIR is not set")]
    documents = Corpus(plan.texts.data_dir / "retrieval").documents[: plan.size("QUEUE_ROWS", 100000, 2000)]
    texts = [document.text for document in documents]
    with connect() as connection, serving():
        _load(connection, texts)
        share = texts[: plan.size("QUEUE_CEILING", 10000, 1000)]
        with _writers():
            before = _engine_rate(plan, share)
            fill, collection_id = _fill(connection, plan, len(texts))
        index = _wait_for_index(connection, collection_id)
        with _writers():
            after = _engine_rate(plan, share)
        latencies = _latencies(connection)
        side = f"pgml_tune.embedding_{collection_id}_{plan_version(connection, collection_id)}"
        wrong = _settled(connection, side)
        trigger = _trigger_cost(connection, texts)
        sys.path.insert(0, plan.package_folder)  # the statement of the worker is run from here
        stored, copied = storing_rates(connection, plan.reference(FP32))
    ceiling = (before + after) / 2
    return [
        Figure(part, f"fill of {len(texts)} rows", fill, "rows/s"),
        Figure(part, "the engine, asked by the same client", ceiling, "rows/s", note=f"{before:.0f}, {after:.0f}"),
        at_least(part, "fill / engine", fill / ceiling, "x", 0.85),
        Figure(part, "indexes, afterwards", index, "s"),
        at_most(part, "rows that differ in the end", float(wrong), "rows", 0),
        at_most(part, "from an INSERT to its vector, median", median(latencies), "s", 1.0),
        at_most(part, "trigger, INSERT of single rows", trigger[0] * 1e3, "ms/row", 0.2),
        at_most(part, "trigger, INSERT of 10000 rows", trigger[1] * 1e3, "ms/row", 0.2),
        Figure(part, "10000 vectors stored as the worker does", stored, "rows/s"),
        Figure(part, "10000 vectors by COPY BINARY, unchecked", copied, "rows/s"),
        at_most(part, "storing / the time of a row in the fill", 100 * fill / stored, "%", 5),
    ]


def plan_version(connection: Connection, collection_id: int) -> int:
    """The version that a collection has vectors of."""
    sql = "SELECT model_version_id FROM pgml_tune.collection WHERE collection_id = %s"
    return int(_value(connection, sql, collection_id))


@contextmanager
def _writers() -> Iterator[None]:
    """Sessions that change texts all the time."""
    stopping = threading.Event()

    def write(number: int) -> None:
        with connect() as session:
            turn = 0
            while not stopping.wait(_PAUSE_SECONDS):
                turn += 1
                values = (f"writer {number} has come to turn {turn}", (turn * _WRITERS + number) % 2000)
                session.execute("UPDATE queued SET body = %s WHERE n = %s", values)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _load(connection: Connection, texts: Sequence[str]) -> None:
    connection.execute("CREATE TABLE queued (n integer PRIMARY KEY, body text NOT NULL)")
    with connection.cursor() as cursor, cursor.copy("COPY queued FROM STDIN") as copy:
        for number, text in enumerate(texts):
            copy.write_row((number, text))
    connection.execute("ANALYZE queued")


def _engine_rate(plan: Plan, texts: Sequence[str]) -> float:
    digest = plan.versions[FP32].digest
    command = [sys.executable, "-P", "-c", _ENGINE, digest, str(_BATCH)]
    result = subprocess.run(
        command, input=json.dumps(texts), text=True, stdout=subprocess.PIPE, check=True, **as_server()
    )
    return len(texts) / float(result.stdout)


def _fill(connection: Connection, plan: Plan, rows: int) -> tuple[float, int]:
    """Rows per second from the call to the vector of the last row that was there, and the collection."""
    started = time.monotonic()
    options = json.dumps({"batch_size": _BATCH})
    connection.execute(
        "CALL auto_embed('queued', 'body', %s, mode => 'queue', options => %s)", (plan.reference(FP32), options)
    )
    collection_id = int(_value(connection, "SELECT max(collection_id) FROM pgml_tune.collection"))
    last = 0
    while last < rows:
        time.sleep(0.05)
        last = int(_value(connection, "SELECT coalesce(max(queue_id), 0) FROM pgml_tune.queue"))
    while _value(connection, _WAITING, last, collection_id):
        time.sleep(0.1)
    return rows / (time.monotonic() - started), collection_id


def _wait_for_index(connection: Connection, collection_id: int) -> float:
    started = time.monotonic()
    while not _value(connection, _STATE, collection_id):
        time.sleep(0.1)
    return time.monotonic() - started


def _latencies(connection: Connection) -> list[float]:
    """Seconds from the commit of a row until it is embedded, one at a time."""
    found = []
    waiting = "SELECT EXISTS (SELECT FROM pgml_tune.queue)"
    while _value(connection, waiting):
        time.sleep(0.1)
    for number in range(20):
        connection.execute("UPDATE queued SET body = %s WHERE n = %s", (f"a text of turn {number}", number))
        started = time.monotonic()
        while _value(connection, waiting):
            time.sleep(0.005)
        found.append(time.monotonic() - started)
        time.sleep(0.1 * (number % 7))  # not in step with the worker
    return found


def _settled(connection: Connection, side: str) -> int:
    while _value(connection, "SELECT EXISTS (SELECT FROM pgml_tune.queue)"):
        time.sleep(0.1)
    return int(_value(connection, _WRONG.format(side=side)))


def _trigger_cost(connection: Connection, texts: Sequence[str]) -> tuple[float, float]:
    """Seconds a row that INSERT takes longer than without a trigger, in single rows and in many."""
    connection.execute("CREATE TABLE plain (LIKE queued INCLUDING ALL)")
    many = "INSERT INTO {} SELECT %s + g, 'text ' || g FROM generate_series(1, 10000) AS g"
    singles = "INSERT INTO {} VALUES (%s, %s)"
    spent: dict[tuple[str, str], list[float]] = {}
    for turn in range(5):
        for table in ("plain", "queued"):
            first = 1_000_000 * (turn + 1)
            with connection.transaction(force_rollback=True):
                started = time.perf_counter()
                connection.execute(many.format(table), (first,))
                spent.setdefault((table, "many"), []).append((time.perf_counter() - started) / 10000)
                started = time.perf_counter()
                for number in range(_SINGLES):
                    connection.execute(singles.format(table), (first + 20000 + number, texts[number % len(texts)]))
                spent.setdefault((table, "single"), []).append((time.perf_counter() - started) / _SINGLES)
    costs = [median(spent["queued", kind]) - median(spent["plain", kind]) for kind in ("single", "many")]
    return costs[0], costs[1]


def _value(connection: psycopg.Connection[object], sql: str, *arguments: object) -> object:
    row = connection.execute(sql, arguments).fetchone()
    return row[0] if row else None  # type: ignore[index]
