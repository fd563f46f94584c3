"""Texts that were embedded before: remembered by the session, or found in the table."""

from __future__ import annotations

import time
from statistics import median

from plan import Plan
from report import Figure, Seconds, at_most, cores, spread, walls
from server import FP32, Connection, add_samples, connect, seconds, timed

_PART = "3. Repeated texts (whole statement, by calls; fp32, jit off)"
_REPEATED = """
SELECT count(embed(s.content, %s)) FROM generate_series(1, %s), sample AS s WHERE s.purpose = 'cache' AND s.round = 0
"""
_ONCE = "SELECT count(embed(s.content, %s)) FROM sample AS s WHERE s.purpose = 'cache'"
_HITS = "SELECT session_hits, table_hits FROM pgml_tune.stat_cache WHERE model || '@' || version = %s"
_REPEATED_TEXTS = 10
_FLUSH_SECONDS = 1.1  # a session writes what it has computed at its first call after a second


def measure(plan: Plan) -> list[Figure]:
    rounds, size, repetitions = plan.pick(9, 4), plan.pick(500, 300), plan.pick(300, 100)
    texts = plan.texts.short(size)
    reference = plan.reference(FP32)
    calls = _REPEATED_TEXTS * repetitions
    session_times: list[Seconds] = []
    table_times: list[Seconds] = []
    with connect("-c jit=off") as session:
        add_samples(session, "cache", 0, texts[:_REPEATED_TEXTS])
        add_samples(session, "cache", 1, texts[_REPEATED_TEXTS:])
        seconds(session, _ONCE, reference)
        time.sleep(_FLUSH_SECONDS)
        seconds(session, "SELECT embed('one more text', %s)", reference)
        for _ in range(rounds):
            before = _hits(session, reference)
            session_times.append(timed(session, _REPEATED, reference, repetitions).per(calls))
            _check(before, _hits(session, reference), (calls, 0))
            table_times.append(_table_round(reference, size))
    return [
        _figure("session cache", session_times, 25),
        _figure("table cache, filled by another session", table_times, 100),
    ]


def _figure(what: str, times: list[Seconds], limit_us: float) -> Figure:
    values, on_core = walls(times, 1e6), min(cores(times, 1e6))
    return at_most(_PART, what, median(values), "us", limit_us, f"{spread(values)}; on a core {on_core:.1f}")


def _table_round(reference: str, size: int) -> Seconds:
    """What a text costs in a new session that reads what another one has cached."""
    with connect("-c jit=off") as connection:
        seconds(connection, "SELECT embed('one more text', %s)", reference)
        before = _hits(connection, reference)
        elapsed = timed(connection, _ONCE, reference)
        _check(before, _hits(connection, reference), (0, size))
    return elapsed.per(size)


def _hits(connection: Connection, reference: str) -> tuple[int, int]:
    row = connection.execute(_HITS, (reference,)).fetchone()
    assert row is not None
    return row[0], row[1]


def _check(before: tuple[int, int], after: tuple[int, int], wanted: tuple[int, int]) -> None:
    found = (after[0] - before[0], after[1] - before[1])
    if found != wanted:
        raise SystemExit(f"bench: {wanted} hits in session and table were expected, there were {found}")
