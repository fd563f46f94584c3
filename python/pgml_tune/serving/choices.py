"""In which ways models are to be run, as the parent of the process has found in the databases."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pgml_tune.engine.way import Way

log = logging.getLogger("pgml_tune.serving")


@dataclass(frozen=True, slots=True)
class Choice:
    """The way in which an artifact is to be run, and the machine for which that was found."""

    machine: str
    way: Way


def read_choices(told: Mapping[str, Any], suspects: Collection[str]) -> dict[str, Choice]:
    """The choices by digest; the others run by their own engine, and so does what ran while the process crashed."""
    choices = {}
    for digest, values in told.items():
        if digest in suspects:
            log.warning("%s runs by its own engine: it ran while the process crashed", digest[:12])
            continue
        try:
            choices[digest] = Choice(str(values["machine"]), Way.from_json(values["way"]))
        except (LookupError, TypeError, ValueError) as error:
            log.warning("%s runs by its own engine, what was chosen cannot be read: %s", digest[:12], error)
    return choices
