"""One colour for each version of a model, the same in every chart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from pgml_tune.store.facts import Facts

COLORS = 6  # as many as the style sheet has


@dataclass(frozen=True, slots=True)
class Colors:
    """Classes of the style sheet by model and version."""

    classes: dict[tuple[str, str], str]

    @classmethod
    def of(cls, facts: Facts) -> Colors:
        classes: dict[tuple[str, str], str] = {}
        numbers: dict[str, int] = {}
        for key in _versions(facts):
            if key not in classes:
                number = numbers.get(key[0], 0)
                classes[key] = f"c{number % COLORS}"
                numbers[key[0]] = number + 1
        return cls(classes)

    def __call__(self, model: str, version: str) -> str:
        return self.classes.get((model, version), "c0")


def _versions(facts: Facts) -> Iterator[tuple[str, str]]:
    """Those that do something first, so that they get the colours that differ most; a dropped one may be among them."""
    groups: tuple[Iterable[tuple[str, str]], ...] = (
        ((rollout.model, rollout.from_version) for rollout in facts.rollouts),
        ((rollout.model, rollout.to_version) for rollout in facts.rollouts),
        ((usage.model, usage.version) for usage in facts.usage),
        ((version.model, version.version) for version in facts.versions),
        ((move.pointer, move.from_target) for move in facts.moves if move.kind == "version" and move.from_target),
    )
    return chain.from_iterable(groups)
