"""Entry points of sql/functions/monitoring.sql."""

from __future__ import annotations

from typing import Any

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.service import ab_report as reports
from pgml_tune.service import quality


@entrypoint
def ab_report(db: Session, name: str | None) -> list[dict[str, Any]]:
    return reports.ab_report(db, name)


@entrypoint
def record_feedback(
    db: Session,
    call_id: int | None,
    score: float | None,
    label: str | None,
    expected: str | None,
    text: str | None,
) -> int:
    return quality.record_feedback(db, call_id, score, label, expected, text)


@entrypoint
def quality_report(db: Session, name: str | None, since: str | None) -> list[dict[str, Any]]:
    return quality.quality_report(db, name, since)


@entrypoint
def ab_selftest(db: Session, name: str | None, rounds: int | None) -> list[dict[str, Any]]:
    from pgml_tune.service import ab_selftest as selftest  # numpy, which feedback does without

    return selftest.ab_selftest(db, name, rounds)


@entrypoint
def drift_report(db: Session, name: str | None, since: str | None, reference: str | None) -> list[dict[str, Any]]:
    from pgml_tune.service import drift

    return drift.drift_report(db, name, since, reference)
