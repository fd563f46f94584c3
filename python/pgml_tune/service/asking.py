"""Questions answered with rows: SQL of a model, run as whoever asks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, LimitExceeded, PermissionDenied, TuneError
from pgml_tune.service.job import read_limits
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.sql_check import Outcome, Verdict, try_sql
from pgml_tune.settings import Limits
from pgml_tune.store.sql_check import ask_hindrance

_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
_VALUE = re.compile(r"[^\s,\]]")  # how one in an array begins
_LIMITS = ("53200", "54000", "57014")
_ASK_ALL = "SELECT * FROM text_to_sql_candidates('question')"


def read_allowance(db: Session) -> Limits:
    """The limits in force, for a role that may ask."""
    with own_settings(db):
        limits = read_limits(db)
        hindrance = None if limits.ask_privileged == "on" else ask_hindrance(db)
    if hindrance is not None:
        raise PermissionDenied(
            "ask() does not run for this role",
            detail=f"{hindrance} What a model writes would have these rights.",
            hint="Connect as a role with grant_ask() only, or as a superuser: SELECT configure('ask_privileged', 'on')",
        )
    return limits


def ask(db: Session, write: Callable[[], str], max_rows: int | None) -> list[str]:
    """The rows of the SQL that `write` gives, each a JSON object by column."""
    if max_rows is not None and max_rows < 1:
        raise InvalidArgument("max_rows is not 1 or more", hint="SELECT * FROM ask('question', max_rows => 10)")
    limits = read_allowance(db)
    outcome = try_sql(db, write(), max_rows, limits)
    if not outcome.verdict.is_valid:
        raise _failure(outcome.verdict)
    if outcome.is_cut:
        db.notice(f"there are more rows than the first {len(outcome.lines)}")
    return _objects(outcome)


def _failure(verdict: Verdict) -> TuneError:
    kind = LimitExceeded if verdict.sqlstate in _LIMITS else InvalidArgument
    return kind("the SQL for this question does not run", detail=f"{verdict.error}.", hint=_ASK_ALL)


def _objects(outcome: Outcome) -> list[str]:
    """The rows by column; of columns with one name the second is called name_2."""
    names: dict[str, None] = {}
    for column in outcome.verdict.columns:
        again = 2
        name = column
        while name in names:
            name, again = f"{column}_{again}", again + 1
        names[name] = None
    keys = [json.dumps(name, ensure_ascii=False) for name in names]
    return [
        "{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, _values(line), strict=True)) + "}"
        for line in outcome.lines
    ]


def _values(line: str) -> Iterator[str]:
    """The elements of a JSON array as they stand there: Python's numbers are neither as long nor as exact."""
    end = 1
    while begins := _VALUE.search(line, end):
        place = begins.start()
        _, end = _DECODER.raw_decode(line, place)
        yield line[place:end]
