"""The rows that a classifier learns from and is measured with: a text and its label each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs.held_out import split_stratified
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.shares import DEFAULT_SHARE
from pgml_tune.records import are_labels


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Texts with the label of each."""

    texts: list[str]
    labels: list[str]

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> LabelledTexts:
        pairs = [(str(text), label_text(label)) for text, label in rows]
        return cls([text for text, _ in pairs], [label for _, label in pairs])

    def chosen(self, places: Sequence[int]) -> LabelledTexts:
        """Those at some places."""
        return LabelledTexts([self.texts[place] for place in places], [self.labels[place] for place in places])


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """What to learn from, and what to measure with."""

    train: LabelledTexts
    evaluation: LabelledTexts
    part: str  # of the job's rows that are measured with: "eval", or "train" where a share of it is held out

    @property
    def is_held_out(self) -> bool:
        return self.part == "train" and bool(self.evaluation.texts)


def read_labelled(job: Job) -> LabelledRows:
    """The rows of a job; where it has none to measure with, a share of the others is held out."""
    rows, given = LabelledTexts.of(job.rows["train"].read()), job.rows.get("eval")
    share = job.parameters["eval_share"]
    if share is None:
        share = 0.0 if given is not None else DEFAULT_SHARE
    train, held_out = _split(rows, share, job.parameters["seed"])
    if given is not None:
        return LabelledRows(train, LabelledTexts.of(given.read()), "eval")
    return LabelledRows(train, held_out, "train")


def label_text(value: Any) -> str:
    """A label as text: whole numbers may be labels too."""
    if type(value) is bool:
        return "true" if value else "false"
    return str(int(value)) if type(value) in (int, float) else str(value)


def all_labels(known: Sequence[str], found: Iterable[str]) -> list[str]:
    """The labels that a model has already, and those it is to learn."""
    labels = [*known, *sorted(set(found) - set(known))]
    if not are_labels(labels):
        raise InvalidArgument(
            "a label of the train query cannot be one",
            detail="A label has 1 to 1,000 characters that PostgreSQL can keep.",
        )
    if len(labels) < 2:
        raise InvalidArgument("the train query has one label only", detail="There is nothing to choose from.")
    return labels


def _split(rows: LabelledTexts, share: float, seed: int) -> tuple[LabelledTexts, LabelledTexts]:
    """A text that stands there more than once is learned from: measured with, it would be known by heart."""
    times = Counter(rows.texts)
    single = [place for place, text in enumerate(rows.texts) if times[text] == 1]
    _, held_out = split_stratified([rows.labels[place] for place in single], share, seed)
    measured = [single[place] for place in held_out]
    kept = sorted(set(range(len(rows.texts))) - set(measured))
    return rows.chosen(kept), rows.chosen(measured)
