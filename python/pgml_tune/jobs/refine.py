"""Trains on with what the model itself writes and what returns the right rows (reward-ranked fine-tuning).

There is more than one statement that answers a question. The model is better off with those that it finds by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pgml_tune.engine.local import LocalGenerator, Sampling
from pgml_tune.engine.work import Work
from pgml_tune.jobs.caller import Caller
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.sql_learning import Course
from pgml_tune.jobs.sql_metrics import normal_form, statements
from pgml_tune.jobs.sql_rows import Lesson

_ROUNDS, _SAMPLES, _TEMPERATURE = 1, 8, 0.8  # where the option does not say
_KEPT = 2  # statements of a question beside its own
_SHARE = 6  # of the epochs of the training a round takes one in so many
_RATE_SHARE = 0.3  # of its learning rate
_TIME_SHARE = 0.2  # of its time
_FULL = 100.0


def refine(
    network: Any,
    lessons: list[Lesson],
    option: Mapping[str, Any],
    course: Course,
    trial: Callable[[], LocalGenerator],
    teach: Callable[[list[Lesson], Course, str], dict[str, Any]],
    accuracy: Callable[[], float] | None,
    caller: Caller,
    seed: int,
    report: Reporter,
) -> list[dict[str, Any]]:
    """Some rounds of it; where there are rows to measure with, the best weights are taken in the end."""
    part = Course(
        max(1, course.epochs // _SHARE),
        course.rate * _RATE_SHARE,
        None if course.max_seconds is None else course.max_seconds * _TIME_SHARE,
    )
    best = accuracy() if accuracy is not None else None
    weights = _copy(network)
    told: list[dict[str, Any]] = [{"round": 0, "execution_accuracy": best}]
    for number in range(1, option.get("rounds", _ROUNDS) + 1):
        report.progress("sampling answers", step=number, steps=option.get("rounds", _ROUNDS))
        sampling = Sampling(option.get("temperature", _TEMPERATURE), seed + number)
        found, right = _found(trial(), lessons, option.get("samples", _SAMPLES), sampling, caller)
        teach(lessons + found, part, f"refine{number}")
        value = accuracy() if accuracy is not None else None
        told.append({"round": number, "right_samples": right, "added": len(found), "execution_accuracy": value})
        report.log(f"round {number} of refine: {len(found):,} statements added, execution accuracy {value}")
        if best is None or value is None or value >= best:
            best, weights = value, _copy(network)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(weights[name])
    return told


def _found(
    generator: LocalGenerator, lessons: Sequence[Lesson], samples: int, sampling: Sampling, caller: Caller
) -> tuple[list[Lesson], float]:
    """Other statements that return the right rows, and the share of questions with a right sample, times 100."""
    drawn = generator.generate_all([lesson.prompt.text for lesson in lessons], samples, Work(), sampling=sampling)
    found: list[Lesson] = []
    solved = 0
    for lesson, outputs in zip(lessons, drawn, strict=True):
        right = Counter[str]()
        for statement in statements((output.text for output in outputs), lesson.prompt):
            if lesson.row.outcome.matches(caller.run(statement, lesson.row.search_path)):
                right[normal_form(statement)] += 1
        solved += bool(right)
        # No rows, and perhaps a single one, are also what a wrong statement returns.
        if len(lesson.row.outcome.rows) > 0:
            others = [text for text, _ in right.most_common() if text != lesson.row.text][:_KEPT]
            found += [lesson.with_output(text) for text in others]
    return found, round(_FULL * solved / max(1, len(lessons)), 2)


def _copy(network: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in network.named_parameters()}
