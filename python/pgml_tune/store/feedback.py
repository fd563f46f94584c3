"""Statements on what users thought of answers."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_ADD = """
INSERT INTO pgml_tune.feedback_rows (call_id, score, label, expected, input_text, search_path)
VALUES ($1::int8, $2::float8, $3::text, $4::text, $5::text, pgml_tune._path_text($6::text[]))
RETURNING feedback_id, model
"""
# Of a call that was judged twice the last word counts.
_LAST = """
SELECT DISTINCT ON (f.call_id) f.version, f.score, f.answer, f.label
FROM pgml_tune.feedback_rows AS f
WHERE f.model = $1::text AND f.created_at >= now() - make_interval(secs => $2::float8)
ORDER BY f.call_id, f.feedback_id DESC
"""
_SCORES = f"""
SELECT l.version, count(*) AS rows, count(l.score) AS scored, avg(l.score) AS mean,
       coalesce(var_samp(l.score), 0) AS variance
FROM ({_LAST}) AS l GROUP BY l.version ORDER BY l.version
"""
_ANSWERS = f"""
SELECT l.version, l.answer, l.label, count(*) AS rows
FROM ({_LAST}) AS l WHERE l.answer IS NOT NULL AND l.label IS NOT NULL
GROUP BY l.version, l.answer, l.label
"""


@dataclass(frozen=True, slots=True)
class ScoresRow:
    """The feedback on a version."""

    version: str
    rows: int
    scored: int
    mean: float | None  # None: nobody gave a score
    variance: float


@dataclass(frozen=True, slots=True)
class AnswersRow:
    """How often a version answered one label where users hold another, or the same, for right."""

    version: str
    answer: str
    label: str
    rows: int


def add_feedback(
    db: Database,
    call_id: int,
    score: float | None,
    label: str | None,
    expected: str | None,
    text: str | None,
    path: list[str] | None,
) -> tuple[int, bool]:
    """Add feedback on a call; its number, and whether the call is in the log."""
    row = db.fetch(_ADD, call_id, score, label, expected, text, path)[0]
    return row["feedback_id"], row["model"] is not None


def read_scores(db: Database, model: str, seconds: float) -> list[ScoresRow]:
    """The scores of each version of a model in the last seconds."""
    return [ScoresRow(**row) for row in db.fetch(_SCORES, model, seconds)]


def read_answers(db: Database, model: str, seconds: float) -> list[AnswersRow]:
    """The answers of each version of a classifier, beside what users hold for right."""
    return [AnswersRow(**row) for row in db.fetch(_ANSWERS, model, seconds)]
