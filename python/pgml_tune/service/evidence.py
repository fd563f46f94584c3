"""What was seen of the two variants of a rollout, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgml_tune.service.ab_test import Counts, Sample, half_width, ln_e_above
from pgml_tune.service.guardrails import Guardrails

Overlaps = Mapping[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Arm:
    """What a phase has seen of a variant. Units are counted, not calls: only units were split at random."""

    units: float = 0
    entered: float = 0  # of these, never seen in this variant before
    newcomers: float = 0  # never seen in this rollout before
    failed: float = 0  # with an error
    first_failed: float = 0  # with the first error that they had in this rollout
    slow: float = 0  # with a call that took longer than was promised
    first_slow: float = 0
    latency: Sample | None = None  # mean of ln(ms) of each unit, over its warm calls that no cache answered
    score: Sample | None = None  # mean score of each unit

    def scaled(self, factor: float) -> Arm:
        """The same with so many times the units."""
        counts = ("units", "entered", "newcomers", "failed", "first_failed", "slow", "first_slow")
        samples = {
            name: replace(sample, count=sample.count * factor)
            for name in ("latency", "score")
            if (sample := getattr(self, name)) is not None
        }
        return replace(self, **{name: getattr(self, name) * factor for name in counts}, **samples)

    def alone(self) -> Arm:
        """The same as if there had been no phase before."""
        return replace(self, entered=self.units, newcomers=self.units, first_failed=self.failed, first_slow=self.slow)


@dataclass(frozen=True, slots=True)
class Phase:
    """A time during which one share of the units went to the candidate."""

    number: int
    share: int  # units of 10,000
    serving: Arm
    candidate: Arm
    in_both: int = 0  # units that were seen in both variants, which cannot be

    def alone(self) -> Evidence:
        return Evidence([replace(self, serving=self.serving.alone(), candidate=self.candidate.alone())])

    def counts(self, name: str) -> Counts:
        return Counts(getattr(self.serving, name), getattr(self.candidate, name), self.share / 10_000)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All phases of a rollout, and how far the differences of two of them vary together, since units come back."""

    phases: Sequence[Phase]
    latency_overlaps: Overlaps = field(default_factory=dict)
    score_overlaps: Overlaps = field(default_factory=dict)

    def extended(self, factor: float) -> Evidence:
        """What it would be if the last phase went on as it was until it has so many times its units."""
        *before, last = self.phases
        last = replace(last, serving=last.serving.scaled(factor), candidate=last.candidate.scaled(factor))
        return replace(self, phases=[*before, last])

    def total(self, arm: str, name: str) -> float:
        return float(sum(getattr(getattr(phase, arm), name) for phase in self.phases))


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate less serving version, over all phases, each compared within itself."""

    serving: float
    candidate: float
    error: float
    serving_n: float
    candidate_n: float

    @property
    def estimate(self) -> float:
        return self.candidate - self.serving

    def is_enough(self, guardrails: Guardrails) -> bool:
        return min(self.serving_n, self.candidate_n) >= guardrails.min_units

    def half_width(self, guardrails: Guardrails) -> float:
        units = self.serving_n + self.candidate_n
        return half_width(self.error, units, guardrails.alpha_each, guardrails.expected_total)

    def ln_e(self, estimate: float, guardrails: Guardrails) -> float:
        units = self.serving_n + self.candidate_n
        return ln_e_above(estimate, self.error, units, guardrails.alpha_each, guardrails.expected_total)


def combine(phases: Sequence[Phase], name: str, overlaps: Overlaps) -> Difference | None:
    """The mean over phases of the differences within them, weighted by what each can tell; None: no phase can."""
    pairs = {
        phase.number: (serving, candidate)
        for phase in phases
        if (serving := getattr(phase.serving, name)) is not None and serving.count >= 2
        and (candidate := getattr(phase.candidate, name)) is not None and candidate.count >= 2
    }  # fmt: skip
    if not pairs:
        return None
    weights = {number: 1 / (1 / serving.count + 1 / candidate.count) for number, (serving, candidate) in pairs.items()}
    total = sum(weights.values())
    weights = {number: weight / total for number, weight in weights.items()}
    squared_error = sum(weights[n] ** 2 * (s.squared_error + c.squared_error) for n, (s, c) in pairs.items())
    # The same unit in two phases brings the same peculiarities into both.
    squared_error += 2 * sum(
        weights[one] * weights[other] * covariance
        for (one, other), covariance in overlaps.items()
        if one in weights and other in weights
    )
    return Difference(
        serving=sum(weights[number] * serving.mean for number, (serving, _) in pairs.items()),
        candidate=sum(weights[number] * candidate.mean for number, (_, candidate) in pairs.items()),
        error=math.sqrt(max(squared_error, 0.0)),
        serving_n=sum(serving.count for serving, _ in pairs.values()),
        candidate_n=sum(candidate.count for _, candidate in pairs.values()),
    )
