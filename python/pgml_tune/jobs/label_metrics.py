"""Measures classifiers on rows of a text and its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.jobs import metrics
from pgml_tune.jobs.label_rows import LabelledTexts
from pgml_tune.jobs.metrics import LabelFigures
from pgml_tune.jobs.runner import Runner
from pgml_tune.records import ArtifactConfig

_MOST_LABELS = 200  # whose figures are kept one by one with a version


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """How well a classifier tells the labels of some rows."""

    accuracy: float
    macro_f1: float
    labels: dict[str, LabelFigures]

    def figures(self) -> dict[str, float]:
        """The two that matter most."""
        return {"accuracy": round(self.accuracy, 4), "macro_f1": round(self.macro_f1, 4)}

    def all_figures(self) -> dict[str, float]:
        """Also those of each label, unless there are very many."""
        if len(self.labels) > _MOST_LABELS:
            return self.figures()
        return self.figures() | {
            f"{name}[{label}]": round(value, 4)
            for label, found in self.labels.items()
            for name, value in (("precision", found.precision), ("recall", found.recall), ("f1", found.f1))
        }

    def to_json(self) -> dict[str, Any]:
        return self.figures() | {"labels": {label: found.to_json() for label, found in self.labels.items()}}


def measure_labels(runner: Runner, config: ArtifactConfig, rows: LabelledTexts) -> LabelMeasures:
    """Compare the most probable label of each text with its own."""
    logits = runner.embed_sorted([config.prompt_passage + text for text in rows.texts])
    return compare_labels(rows.labels, [config.labels[place] for place in logits.argmax(axis=1).tolist()])


def compare_labels(expected: Sequence[str], found: Sequence[str]) -> LabelMeasures:
    """The figures of labels that were found."""
    labels = metrics.per_label(expected, found)
    return LabelMeasures(metrics.accuracy(expected, found), metrics.macro_f1(labels), labels)
