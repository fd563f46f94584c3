"""How good SQL of a model is: it is run, and what it returns compared with what it should."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pgml_tune.engine.local import LocalGenerator
from pgml_tune.engine.work import Work
from pgml_tune.jobs.caller import Caller
from pgml_tune.jobs.sql_rows import Lesson
from pgml_tune.jobs.sql_targets import SqlTarget
from pgml_tune.service.prompt import Prompt, restore
from pgml_tune.service.sql_text import tidy

CANDIDATES = 4  # the first that runs is the answer
METRIC = "execution_accuracy"
_FULL = 100.0
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class SqlMeasures:
    """Shares of all questions, times 100."""

    execution_accuracy: float  # whose answer returns the rows that it should
    exact_match: float  # whose answer is the same statement, in normal form
    valid_rate: float  # that are answered: a candidate runs

    def figures(self) -> dict[str, float]:
        return asdict(self)


def measure_sql(generator: LocalGenerator, lessons: Sequence[Lesson], caller: Caller) -> SqlMeasures:
    """Figures of a model on rows."""
    found = generator.generate_all([lesson.prompt.text for lesson in lessons], CANDIDATES, Work())
    right = same = answered = 0
    for lesson, candidates in zip(lessons, found, strict=True):
        row = lesson.row
        for statement in statements((candidate.text for candidate in candidates), lesson.prompt):
            outcome = caller.run(statement, row.search_path)
            if outcome.is_valid:
                answered += 1
                right += row.outcome.matches(outcome)
                same += normal_form(statement) == row.text
                break
    return SqlMeasures(*(round(_FULL * count / len(lessons), _DIGITS) for count in (right, same, answered)))


def statements(outputs: Iterable[str], prompt: Prompt) -> list[str]:
    """The different statements that outputs of a model mean, in their order."""
    written = (restore(output, prompt) for output in outputs)
    return list(dict.fromkeys(tidy(text) for text in written if text))


def normal_form(statement: str) -> str:
    """A statement as those of the rows are compared with."""
    target = SqlTarget.parse(statement)
    return statement if target is None else target.text


def speed(generator: LocalGenerator, lessons: Sequence[Lesson]) -> dict[str, Any]:
    """How long the model takes for a question by itself, in milliseconds, and for how many in a second."""
    taken = []
    for lesson in lessons:
        started = time.perf_counter()
        generator.generate(lesson.prompt.text, CANDIDATES, Work())
        taken.append(time.perf_counter() - started)
    taken.sort()
    median = taken[len(taken) // 2]
    return {"latency_ms": round(1000 * median, 3), "questions_per_second": round(len(taken) / sum(taken), 2)}
