"""Questions answered with rows: SQL of a model, run as whoever asks."""

from __future__ import annotations

import json
from collections.abc import Callable

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, LimitExceeded, PermissionDenied, TuneError
from pgml_tune.service.job import read_limits
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.sql_check import Outcome, Verdict, try_sql
from pgml_tune.settings import Limits
from pgml_tune.store.sql_check import ask_hindrance

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


def ask(db: Session, write: Callable[[], str], max_rows: int | None) -> str:
    """The rows of the SQL that `write` gives, as JSON with the SQL and the names of its columns."""
    if max_rows is not None and max_rows < 1:
        raise InvalidArgument("max_rows is not 1 or more", hint="SELECT ask('question', max_rows => 10)")
    limits = read_allowance(db)
    outcome = try_sql(db, write(), max_rows, limits)
    if not outcome.verdict.is_valid:
        raise _failure(outcome.verdict)
    return _json_text(outcome)


def _failure(verdict: Verdict) -> TuneError:
    kind = LimitExceeded if verdict.sqlstate in _LIMITS else InvalidArgument
    return kind("the SQL for this question does not run", detail=f"{verdict.error}.", hint=_ASK_ALL)


def _json_text(outcome: Outcome) -> str:
    verdict = outcome.verdict
    head = {"sql": verdict.sql, "columns": list(verdict.columns), "is_cut": outcome.is_cut}
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "rows": [{", ".join(outcome.lines)}]}}'
