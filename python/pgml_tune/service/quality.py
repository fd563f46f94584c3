"""What users think of answers: taking it down, and what it says of each version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pgml_tune.db import Database, Session
from pgml_tune.errors import InvalidArgument, LimitExceeded
from pgml_tune.service.ab_test import half_width, rate_bound
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.report_arguments import check_interval, check_model
from pgml_tune.settings import Limits
from pgml_tune.store import feedback
from pgml_tune.store.feedback import ScoresRow
from pgml_tune.store.schema import read_path
from pgml_tune.store.setting import read_settings

Line = dict[str, Any]
Confusion = Counter[tuple[str, str]]  # (answer, label): how often

_LONGEST_LABEL = 1000  # characters
_ALPHA = 0.05  # of both ends of an interval together
_EXPECTED = 1000  # scores at which intervals shall be narrowest
_CONCENTRATION = 20


def record_feedback(
    db: Session,
    call_id: int | None,
    score: float | None,
    label: str | None,
    expected: str | None,
    text: str | None,
) -> int:
    """Take down what the caller thinks of the answer to one of his calls."""
    if call_id is None:
        raise InvalidArgument("call_id is NULL", hint="SELECT record_feedback(last_call_id(), 1)")
    if score is None and label is None and expected is None:
        raise InvalidArgument("there is neither a score nor a label nor what was expected")
    if score is not None and not 0 <= score <= 1:
        raise InvalidArgument("score is not between 0 and 1")
    if label is not None and len(label) > _LONGEST_LABEL:
        raise LimitExceeded(f"label is longer than {_LONGEST_LABEL} characters")
    path = None if expected is None else read_path(db)
    with own_settings(db):
        longest = Limits.from_rows(read_settings(db)[1]).max_input_bytes
        if any(given is not None and len(given.encode()) > longest for given in (expected, text)):
            raise LimitExceeded(f"expected or input is longer than {longest} bytes")
        feedback_id, is_logged = feedback.add_feedback(db, call_id, score, label, expected, text, path)
    if not is_logged:
        db.notice(f"call {call_id} is not in the log (see setting log_sample): no report will count this feedback")
    return feedback_id


def quality_report(db: Database, name: str | None, since: str | None) -> list[Line]:
    """What feedback since some time ago says of each version of a model."""
    model = check_model(db, name)
    seconds = check_interval(db, since, "since")
    confusions: dict[str, Confusion] = {}
    for row in feedback.read_answers(db, model, seconds):
        confusions.setdefault(row.version, Counter())[row.answer, row.label] += row.rows
    lines: list[Line] = []
    for scores in feedback.read_scores(db, model, seconds):
        measured = [*_scores(scores), *_answers(confusions.get(scores.version, Counter()))]
        lines += [{"version": scores.version} | line for line in measured]
    return lines


def _line(
    metric: str,
    value: float | None,
    n: int,
    *,
    low: float | None = None,
    high: float | None = None,
    label: str | None = None,
) -> Line:
    return {"metric": metric, "label": label, "value": value, "interval_low": low, "interval_high": high, "n": n}


def _scores(row: ScoresRow) -> Iterator[Line]:
    yield _line("feedback", None, row.rows)
    if row.mean is not None:
        # Scores lie between 0 and 1: that all so far are the same does not prove that no other can come.
        error = math.sqrt((row.variance + 0.25 / row.scored) / row.scored)
        width = half_width(error, row.scored, _ALPHA / 2, _EXPECTED)
        low, high = max(row.mean - width, 0.0), min(row.mean + width, 1.0)
        yield _line("score", row.mean, row.scored, low=low, high=high)


def _answers(confusion: Confusion) -> Iterator[Line]:
    """Accuracy, and precision, recall and F1, of each label and their means."""
    total = confusion.total()
    if not total:
        return
    right = sum(count for (answer, label), count in confusion.items() if answer == label)
    low = 1 - rate_bound(total - right, total, _CONCENTRATION, _ALPHA / 2)
    high = rate_bound(right, total, _CONCENTRATION, _ALPHA / 2)
    yield _line("accuracy", right / total, total, low=low, high=high)
    of_labels = {
        label: _of_label(confusion, label) for label in sorted({label for pair in confusion for label in pair})
    }
    for metric in ("precision", "recall", "f1"):
        known = [figures[metric] for figures in of_labels.values() if figures[metric] is not None]
        yield _line(metric, sum(known) / len(known) if known else None, total)
    for label, figures in of_labels.items():
        for metric in ("precision", "recall", "f1"):
            yield _line(metric, figures[metric], figures["n"], label=label)


def _of_label(confusion: Confusion, label: str) -> dict[str, Any]:
    """The figures of one label; None: it was never answered, or never right."""
    right = confusion[label, label]
    answered = sum(count for (answer, _), count in confusion.items() if answer == label)
    wanted = sum(count for (_, expected), count in confusion.items() if expected == label)
    return {
        "n": wanted,
        "precision": right / answered if answered else None,
        "recall": right / wanted if wanted else None,
        "f1": 2 * right / (answered + wanted),
    }
