"""Jobs, called as a DBA calls them, and what they have made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from plan import in_turns
from psycopg import sql
from psycopg.errors import Diagnostic
from psycopg.types.json import Jsonb
from report import Figure, at_least, at_most
from server import Connection, connect, seconds

MODEL = "minilm"
VERSION = f"{MODEL}@v1"
_ROUNDS = 11  # as many as there are different remainders of 12, less the one that warms up


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the data sets and the models are, and how thorough to be."""

    is_quick: bool
    data_dir: Path
    model_root: Path

    def some(self, rows: Sequence[Any], count: int) -> Sequence[Any]:
        """All rows, or in a quick run the first of them."""
        return rows[:count] if self.is_quick else rows

    def pick(self, thorough: int, quick: int) -> int:
        """A number."""
        return quick if self.is_quick else thorough


@dataclass(frozen=True, slots=True)
class Job:
    """A job that has succeeded."""

    result: dict[str, Any]
    seconds: float  # as long as the client waited: reading rows, working, measuring, exporting, registering

    @property
    def version(self) -> str:
        """The version that it has made, as name@version."""
        return str(self.result["versions"][0])


def connect_loudly() -> Connection:
    """A new connection that shows what the server tells, and remembers no vectors."""
    connection = connect("-c client_min_messages=notice -c pgml_tune.cache=off")
    connection.add_notice_handler(_show)
    return connection


def _show(notice: Diagnostic) -> None:
    print(f"    {notice.severity}:  {notice.message_primary}", flush=True)


def call(connection: Connection, procedure: str, **arguments: Any) -> Job:
    """CALL a procedure, and wait for the end of its job."""
    values = [Jsonb(value) if isinstance(value, dict) else value for value in arguments.values()]
    statement = sql.SQL("CALL {}({})").format(
        sql.Identifier(procedure),
        sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder()) for name in arguments),
    )
    print(f"--> {procedure} {arguments.get('model') or arguments.get('teacher')}", flush=True)
    started = time.perf_counter()
    row = connection.execute(statement, values).fetchone()
    elapsed = time.perf_counter() - started
    assert row is not None
    found = connection.execute(
        "SELECT j.result FROM pgml_tune.jobs AS j WHERE j.job_id = %s AND j.state = 'succeeded'", row
    ).fetchone()
    if found is None:
        raise SystemExit(f"bench: job {row[0]} of {procedure} has not succeeded")
    return Job(found[0], elapsed)


def load(connection: Connection, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    """A new table with these rows."""
    connection.execute(f"CREATE TABLE {table} ({columns})")
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute(f"VACUUM ANALYZE {table}")


def model_bytes(connection: Connection, plan: Plan, version: str) -> int:
    """The size of a version's graph and weights."""
    row = connection.execute(
        "SELECT artifact_sha256 FROM pgml_tune.model_versions WHERE model || '@' || version = %s", (version,)
    ).fetchone()
    assert row is not None
    return sum(file.stat().st_size for file in (plan.model_root / row[0]).glob("model.onnx*"))


def latencies_ms(connection: Connection, statement: str, versions: Sequence[str]) -> dict[str, float]:
    """Milliseconds per row of a statement that takes a version and the number of a round and returns its row count."""
    for version in versions:
        seconds(connection, statement, version, _ROUNDS)

    def measure(version: str, number: int) -> float:
        started = time.perf_counter()
        row = connection.execute(statement, (version, number)).fetchone()
        assert row is not None and row[0] > 0
        return (time.perf_counter() - started) * 1000 / int(row[0])

    return {version: median(times) for version, times in in_turns(versions, _ROUNDS, measure).items()}


def quantize(connection: Connection, version: str, eval_query: str) -> str:
    """The version in 8 bits, whatever it loses: that is judged by whoever measures."""
    options = {"eval_query": eval_query, "max_loss": 100}
    return call(connection, "quantize_model", model=version, method="int8_dynamic", options=options).version


def compare_quantized(
    connection: Connection, plan: Plan, part: str, statement: str, version: str, quantized: str, lost: float
) -> list[Figure]:
    """What a version in 8 bits saves and loses."""
    sizes = {name: model_bytes(connection, plan, name) for name in (version, quantized)}
    times = latencies_ms(connection, statement, (version, quantized))
    smaller, faster = (100 * (1 - values[quantized] / values[version]) for values in (sizes, times))
    megabytes = f"{sizes[quantized] / 1e6:.1f} of {sizes[version] / 1e6:.1f} MB"
    milliseconds = f"{times[quantized]:.2f} of {times[version]:.2f} ms"
    return [
        at_least(part, f"{quantized}: files smaller by", smaller, "%", 74, megabytes),
        at_least(part, f"{quantized}: latency lower by", faster, "%", 40, milliseconds),
        at_most(part, f"{quantized}: lost", lost, "points", 0.5),
    ]
