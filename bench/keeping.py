"""Rows loaded into a table that is kept embedded, against embedding alone and against what applications do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from contenders import Contender, sentence_transformers
from plan import Plan, in_turns
from psycopg import sql
from report import Figure, at_least, ratio, spread
from server import FP32, Connection, configured, connect, seconds, set_cache

_THREADS = 2
_EMBED = "SELECT cardinality(embed(%s::text[], %s))"
_COMPUTED = "SELECT compute_time / 1000 FROM pgml_tune.stat_inference WHERE model || '@' || version = %s"
_ALONE, _AUTO, _GRAPH = "embed(text[]) alone", "COPY, auto_embed", "COPY, auto_embed with index hnsw"
_PLAIN, _APPLICATION = "COPY, no trigger", "application: COPY, encode, UPDATE per row"
_COPY, _UPDATE, _INSERT = "COPY", "UPDATE of another column", "INSERT of single rows"
_INDEX = {_AUTO: "auto", _GRAPH: "hnsw"}
_SINGLE_ROWS = 200


class _Tables:
    """A new table for each measurement."""

    def __init__(self, connection: Connection, reference: str) -> None:
        self.connection = connection
        self._reference = reference
        self._count = 0

    def create(self, index: str | None) -> str:
        self._count += 1
        name = f"kept_{self._count}"
        self.connection.execute(
            f"CREATE TABLE {name}"
            " (n integer PRIMARY KEY, body text NOT NULL, seen integer NOT NULL DEFAULT 0, embedding vector(384))"
        )
        if index:
            self.connection.execute(
                "CALL auto_embed(%s, 'body', %s, options => jsonb_build_object('index', %s::text))",
                (name, self._reference, index),
            )
        return name

    def copy(self, name: str, texts: Sequence[str]) -> float:
        """Seconds that a COPY of all texts takes."""
        started = time.perf_counter()
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {name} (n, body) FROM STDIN") as copy:
            for number, text in enumerate(texts):
                copy.write_row((number, text))
        return time.perf_counter() - started

    def beyond_model(self, name: str, statement: str, arguments: Sequence[tuple[object, ...]]) -> float:
        """Seconds that a statement takes, run once with each of the arguments, without those in which the model ran."""
        before = self.computed()
        with self.connection.transaction():
            started = time.perf_counter()
            for values in arguments:
                self.connection.execute(sql.SQL(statement).format(sql.Identifier(name)), values)
            elapsed = time.perf_counter() - started
        return elapsed - (self.computed() - before)

    def computed(self) -> float:
        """Seconds that the model has run in this session and before."""
        row = self.connection.execute(_COMPUTED, (self._reference,)).fetchone()
        return float(row[0]) if row else 0.0


def measure(plan: Plan) -> list[Figure]:
    texts = plan.texts.mixed(plan.size("ROWS", 10000, 1000))
    singles = [(len(texts) + number, text) for number, text in enumerate(plan.texts.short(_SINGLE_ROWS))]
    reference = plan.reference(FP32)
    part = f"8. {len(texts)} rows of {plan.texts.source} by COPY into an auto_embed table; fp32, {_THREADS} threads"
    beyond: dict[str, list[float]] = {_COPY: [], _UPDATE: [], _INSERT: []}
    with connect() as connection, configured(connection, "threads", str(_THREADS)):
        set_cache(connection, "off")
        tables = _Tables(connection, reference)
        contender = Contender(sentence_transformers, plan.source_folder, _THREADS)
        seconds(connection, _EMBED, texts[:64], reference)

        def run(contestant: str, _: int) -> float:
            if contestant == _ALONE:
                return seconds(connection, _EMBED, texts, reference)
            if contestant == _APPLICATION:
                return _application(tables, contender, texts)
            plain, name = tables.create(None), tables.create(_INDEX[contestant])
            plain_seconds, before = tables.copy(plain, texts), tables.computed()
            elapsed = tables.copy(name, texts)
            if contestant == _AUTO:
                _check_complete(connection, name)
                beyond[_COPY].append((elapsed - (tables.computed() - before) - plain_seconds) / len(texts))
                for what, statement, arguments, rows in (
                    (_UPDATE, "UPDATE {} SET seen = seen + 1", [()], len(texts)),
                    (_INSERT, "INSERT INTO {} (n, body) VALUES (%s, %s)", singles, len(singles)),
                ):
                    spent, spent_without = (tables.beyond_model(table, statement, arguments) for table in (name, plain))
                    beyond[what].append((spent - spent_without) / rows)
            return elapsed

        times = in_turns([_ALONE, _AUTO], plan.pick(3, 2), run) | in_turns([_GRAPH, _APPLICATION], 1, run)
        contender.close()
    figures = []
    for name, values in times.items():
        speeds = [len(texts) / value for value in values]
        figures.append(Figure(part, name, median(speeds), "rows/s", note=spread(speeds)))
    figures.append(at_least(part, f"{_AUTO} / embed alone", ratio(times[_ALONE], times[_AUTO]), "x", 0.9))
    for name in (_GRAPH, _APPLICATION):
        faster = median(times[name]) / median(times[_AUTO])
        figures.append(Figure(part, f"{_AUTO} / {name}", faster, "x"))
    for what, values in beyond.items():
        microseconds = [value * 1e6 for value in values]
        note = f"{spread(microseconds)}; less the same without trigger, less the model"
        figures.append(Figure(part, f"trigger, {what}", median(microseconds), "us/row", note=note))
    return figures


def _application(tables: _Tables, contender: Contender, texts: Sequence[str]) -> float:
    """What an application does: load, encode in batches, write each vector; without any index on them."""
    name = tables.create(None)
    started = time.perf_counter()
    tables.copy(name, texts)
    _, vectors = contender.run(texts)
    with tables.connection.transaction():
        for number, vector in enumerate(vectors.tolist()):
            tables.connection.execute(f"UPDATE {name} SET embedding = %s WHERE n = %s", (str(vector), number))
    return time.perf_counter() - started


def _check_complete(connection: Connection, table: str) -> None:
    query = "SELECT is_complete FROM pgml_tune.embedding_collections WHERE source = %s::regclass"
    if connection.execute(query, (table,)).fetchone() != (True,):
        raise SystemExit(f"bench: the collection over {table} is not complete")
