"""What all measurements are given."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server import FP32, INT8_BLOCK, INT8_DYNAMIC, Version
from texts import Texts

STORAGES = (FP32, INT8_DYNAMIC, INT8_BLOCK)
_PATIENCE_SECONDS = 90
_Contestant = TypeVar("_Contestant")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything is, and how thorough to be."""

    is_quick: bool
    package_folder: str  # where the package pgml_tune can be imported from
    source_folder: str  # the model as sentence-transformers loads it
    model_root: Path
    versions: dict[str, Version]  # by storage
    texts: Texts

    def artifact(self, storage: str) -> str:
        """The folder with the files of a version."""
        return str(self.model_root / self.versions[storage].digest)

    def reference(self, storage: str) -> str:
        """The version as SQL names it."""
        return self.versions[storage].reference

    def pick(self, thorough: int, quick: int) -> int:
        """A number of repetitions or texts."""
        return quick if self.is_quick else thorough

    def size(self, name: str, thorough: int, quick: int) -> int:
        """A number that the environment variable BENCH_<name> overrides."""
        return int(os.environ.get(f"BENCH_{name}") or self.pick(thorough, quick))


def in_turns(
    contestants: Sequence[_Contestant], rounds: int, measure: Callable[[_Contestant, int], _Value]
) -> dict[_Contestant, list[_Value]]:
    """One value per contestant and round; each round begins with another one, so that noise hits all alike.

    On a busy machine there are fewer rounds, so that the whole stays within minutes.
    """
    started = time.monotonic()
    values: dict[_Contestant, list[_Value]] = {contestant: [] for contestant in contestants}
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            values[contestant].append(measure(contestant, number))
        if number and time.monotonic() - started > _PATIENCE_SECONDS:
            break
    return values
