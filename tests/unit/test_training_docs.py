"""docs/training.md names every option as the code declares it, and every loss by the rows it fits."""

import json
import re
from pathlib import Path

import pytest

from pgml_tune.service.job_options import OPTIONS
from pgml_tune.service.training_rows import SHAPES

TRAINING = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
TRAININGS = ("finetune_sbert", "finetune_classifier", "finetune_text_to_sql", "distill_model")


def options_told_in(heading):
    section = TRAINING.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section.split("| option | default | valid | |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    return set(table.splitlines())


def as_told(option):
    default = "" if option.default is None else f"`{json.dumps(option.default)}`"
    return f"| `{option.name}` | {default} | {option.valid.replace('|', 'or')} | {option.meaning} |"


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_guide_lists_every_option_as_declared(kind):
    told = options_told_in(kind)
    if kind in TRAININGS:
        told |= options_told_in("Options of every training")
    assert told == {as_told(option) for option in OPTIONS[kind]}


def test_the_guide_shows_every_loss():
    losses = next(option for option in OPTIONS["finetune_sbert"] if option.name == "loss").valid.split(" | ")
    section = TRAINING.split("\n## Losses\n")[1].split("\n## ")[0]
    assert [loss for loss in losses if f"`{loss}`" not in section] == []


def test_the_guide_shows_every_shape_of_rows():
    section = TRAINING.split("\n## Rows\n")[1].split("\n## ")[0]
    shapes = {shape for text in SHAPES.values() for shape in re.findall(r"\([^)]+\)", text)}
    assert [shape for shape in shapes if f"`{shape.replace(' 0 or 1', '')}`" not in section] == []
