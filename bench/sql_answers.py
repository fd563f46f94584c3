"""text_to_sql() on questions that were not trained on: what its answers return, and how long it takes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import psycopg
from report import Figure, at_least, at_most
from server import Connection
from training import Plan

_TARGETS = {"en": 60.0, "zh": 45.0}
_QUESTIONS = "SELECT question, query FROM public.geo_question WHERE part = 'dev' AND lang = %s ORDER BY number"
_ANSWERED = 90.0
_MILLISECONDS = 150.0
_CHECK_MILLISECONDS = 10.0


def measure(connection: Connection, plan: Plan, part: str, version: str, languages: Sequence[str]) -> Iterator[Figure]:
    """The figures of a version for each language."""
    title = f"text_to_sql() with {version} ({part}), dev questions of GeoQuery, in the backend"
    _answer(connection, "how many states are there", version)  # loads the model
    checks: list[float] = []
    for language in languages:
        right = answered = 0
        times: list[float] = []
        rows = connection.execute(_QUESTIONS, (language,)).fetchall()
        for question, query in rows:
            started = time.perf_counter()
            found = _answer(connection, question, version)
            times.append((time.perf_counter() - started) * 1000)
            if found is not None:
                answered += 1
                right += _same(connection, query, found)
            checks.append(_check(connection, query))
        share, whole = 100 * answered / len(rows), len(rows)
        yield at_least(title, f"{language}: execution accuracy of all questions", 100 * right / whole, "%",
                       _TARGETS[language], f"{right} of {whole}")  # fmt: skip
        yield at_least(title, f"{language}: questions answered", share, "%", _ANSWERED, f"{answered} of {whole}")
        yield at_most(title, f"{language}: median of a call, checks included", median(times), "ms", _MILLISECONDS)
        yield Figure(title, f"{language}: 95th percentile", sorted(times)[int(0.95 * whole)], "ms")
    yield at_most(title, "median of the server's checks alone", median(checks), "ms", _CHECK_MILLISECONDS)


def _answer(connection: Connection, question: str, version: str) -> str | None:
    """The SQL; None where no candidate can be run."""
    try:
        row = connection.execute("SELECT text_to_sql(%s, %s)", (question, version)).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return None
    assert row is not None
    return str(row[0])


def _check(connection: Connection, query: str) -> float:
    started = time.perf_counter()
    connection.execute("SELECT pgml_tune._check_sql(%s)", (query,)).fetchone()
    return (time.perf_counter() - started) * 1000


def _same(connection: Connection, wanted: str, found: str) -> bool:
    """Whether both return the same rows, in the same order where the right one orders."""
    right, answer = (_run(connection, query) for query in (wanted, found))
    if right["error"] or answer["error"]:
        return False
    if right["is_ordered"]:
        return bool(right["rows"] == answer["rows"])
    first, second = (Counter(json.dumps(row) for row in result["rows"]) for result in (right, answer))
    return first == second


def _run(connection: Connection, query: str) -> dict[str, Any]:
    row = connection.execute("SELECT pgml_tune._try_sql(%s)", (query,)).fetchone()
    assert row is not None
    result: dict[str, Any] = row[0]
    return result
