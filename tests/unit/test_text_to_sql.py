"""service/text_to_sql.py without a server."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pgml_tune.service import text_to_sql
from pgml_tune.service.schema import Column, Schema, Table
from pgml_tune.service.sql_check import HIDDEN
from pgml_tune.settings import Limits

READABLE: Any = SimpleNamespace(
    schema=Schema((Table("orders", (Column("id", "integer"), Column("total", "numeric"))),)),
    place=SimpleNamespace(tables=None),
)


@pytest.fixture
def inquiry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A question whose candidates a fake server refuses, each after a second of a clock that only it moves."""
    now = [0.0]

    def check(db: Any, sql: str, limits: Limits) -> Any:
        now[0] += 1
        return SimpleNamespace(sql=sql, error='column "total" does not fit', cost=None)

    monkeypatch.setattr(text_to_sql, "check", check)
    monkeypatch.setattr(text_to_sql, "settings_of_caller", lambda db, settings: nullcontext())
    monkeypatch.setattr(text_to_sql.store, "server_names", lambda db, words: [])
    monkeypatch.setattr(text_to_sql.time, "monotonic", lambda: now[0])
    call: Any = SimpleNamespace(limits=Limits.from_rows({"sql_seconds": "2"}))
    nothing: Any = None
    return text_to_sql._Inquiry(nothing, nothing, call, "how many?", "on", READABLE, shows_texts=True)


def test_checks_end_when_their_time_together_is_over(inquiry: Any) -> None:
    reasons = [inquiry.judge("SELECT total FROM orders", 0.0).error for _ in range(5)]
    assert reasons[:3] == ['column "total" does not fit'] * 3
    assert reasons[3:] == ["there was no time left to check it"] * 2


def test_whatever_is_wrong_with_a_hidden_name_the_reason_is_the_same(inquiry: Any) -> None:
    assert inquiry.judge("SELECT salary FROM orders", 0.0).error == HIDDEN
    assert inquiry.judge("SELECT * FROM staff GROUP BY 1", 0.0).error == HIDDEN
