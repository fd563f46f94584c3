"""Rollouts that are looked at fifty times: how often they are rolled back for nothing, and for something.

The figures that are printed (pytest -s) stand in docs/benchmarks.md.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import NormalDist, median

import numpy as np
import pytest

from pgml_tune.service.ab_test import Sample
from pgml_tune.service.evidence import Arm, Evidence, Phase
from pgml_tune.service.guardrails import Guardrails
from pgml_tune.service.verdict import judge, judge_latency, judge_quality, ln_e_events, ln_e_ratio

LOOKS = 50
GUARDRAILS = Guardrails()
NAMES = ("sample_ratio", "error_rate", "latency", "quality", "rollback", "t test")


@dataclass(frozen=True)
class Traffic:
    """What units are like, and what the candidate does to them."""

    units: int = 10_000
    is_clustered: bool = False  # units make about ten calls each, over all of the time; else one
    share: float = 0.5
    slower: float = 1.0
    error_factor: float = 1.0
    score_change: float = 0.0
    lost: float = 0.0  # share of the candidate's units that nobody hears of


@dataclass(frozen=True)
class Units:
    """What is known of each unit, in the order of their coming, or, in columns, at each look."""

    is_seen: np.ndarray
    has_failed: np.ndarray
    ln_ms: np.ndarray
    score: np.ndarray
    at_looks: Callable[[np.ndarray], np.ndarray] = field(repr=False)  # sums over units

    def arms(self, is_member: np.ndarray) -> list[Arm]:
        """A variant at each look."""
        is_seen = is_member & self.is_seen
        units, failed = self.at_looks(is_seen).tolist(), self.at_looks(is_seen & self.has_failed).tolist()
        latency, score = self._samples(self.ln_ms, is_seen), self._samples(self.score, is_seen)
        return [
            Arm(units=n, entered=n, newcomers=n, failed=f, first_failed=f, latency=ln_ms, score=s)
            for n, f, ln_ms, s in zip(units, failed, latency, score, strict=True)
        ]

    def _samples(self, values: np.ndarray, is_known: np.ndarray) -> Iterator[Sample | None]:
        values = np.where(is_known, values, 0)
        sums = (self.at_looks(part).tolist() for part in (is_known, values, values**2))
        for count, total, squares in zip(*sums, strict=True):
            variance = (squares - total * total / count) / (count - 1) if count > 1 else 0
            yield Sample(count, total / count, max(variance, 0)) if count > 1 else None


def single_calls(traffic: Traffic, is_candidate: np.ndarray, random: np.random.Generator) -> Units:
    """Units that make one call: 2 % meet an error, the times have a long tail, four of five are content."""
    size = len(is_candidate)
    ln_ms = 0.9 * random.standard_normal(size) + 3 * (random.random(size) < 0.01)
    return Units(
        is_seen=np.ones(size, dtype=bool),
        has_failed=random.random(size) < 0.02 * np.where(is_candidate, traffic.error_factor, 1),
        ln_ms=ln_ms + np.where(is_candidate, math.log(traffic.slower), 0),
        score=random.random(size) < 0.8 + np.where(is_candidate, traffic.score_change, 0),
        at_looks=lambda values: np.cumsum(values.reshape(LOOKS, -1).sum(axis=1)),
    )


def clustered_calls(traffic: Traffic, is_candidate: np.ndarray, random: np.random.Generator) -> Units:
    """Units that call again and again, each with a speed, a taste and a proneness to errors of its own."""
    shape = len(is_candidate), LOOKS
    is_call = random.random(shape, dtype=np.float32) < 0.2
    calls = np.cumsum(is_call, axis=1)
    noise = np.cumsum(is_call * random.standard_normal(shape, dtype=np.float32), axis=1)
    own_ms = 0.8 * random.standard_normal((shape[0], 1)) + np.where(is_candidate, math.log(traffic.slower), 0)[:, None]
    taste = random.beta(3.2, 0.8, (shape[0], 1)) + np.where(is_candidate, traffic.score_change, 0)[:, None]
    prone = 0.02 * random.exponential(1.0, (shape[0], 1)) * np.where(is_candidate, traffic.error_factor, 1)[:, None]
    luck = random.random(shape, dtype=np.float32)
    return Units(
        is_seen=calls > 0,
        has_failed=np.maximum.accumulate(is_call & (luck < prone), axis=1),
        ln_ms=own_ms + 0.5 * noise / np.maximum(calls, 1),
        score=np.cumsum(is_call & (luck[::-1] < taste), axis=1) / np.maximum(calls, 1),
        at_looks=lambda values: values.sum(axis=0),
    )


def simulate(traffic: Traffic, random: np.random.Generator) -> Iterator[Evidence]:
    """What is in the log of one rollout at each look."""
    is_candidate = random.random(traffic.units) < traffic.share
    units = (clustered_calls if traffic.is_clustered else single_calls)(traffic, is_candidate, random)
    is_heard = ~is_candidate | (random.random(traffic.units) >= traffic.lost)
    groups = (is_heard & ~is_candidate, is_heard & is_candidate)
    sides = (units.arms(group[:, None] if traffic.is_clustered else group) for group in groups)
    for serving, candidate in zip(*sides, strict=True):
        yield Evidence([Phase(1, round(10_000 * traffic.share), serving, candidate)])


def alarms(evidence: Evidence) -> set[str]:
    """What judge() would act on, without the bounds that it shows, which take long."""
    if ln_e_ratio(evidence) >= -math.log(GUARDRAILS.srm_alpha):
        return {"sample_ratio"}
    findings = judge_latency(evidence, GUARDRAILS), judge_quality(evidence, GUARDRAILS)
    found = {finding.metric for finding in findings if finding.outcome == "fail"}
    if ln_e_events(evidence, "first_failed") >= -math.log(GUARDRAILS.alpha_each):
        found.add("error_rate")
    return found | {"rollback"} if found else found


def peek(evidence: Evidence) -> set[str]:
    """What a t test for one look would be alarmed by, at 5 %."""
    phase = evidence.phases[-1]
    serving, candidate = phase.serving.latency, phase.candidate.latency
    if serving is None or candidate is None or min(serving.count, candidate.count) < GUARDRAILS.min_units:
        return set()
    error = math.sqrt(serving.squared_error + candidate.squared_error)
    return {"t test"} if candidate.mean - serving.mean > NormalDist().inv_cdf(0.95) * error else set()


def share_of_alarms(traffics: list[Traffic], rounds: int, seed: int) -> dict[str, float]:
    """The share of rollouts, of each kind in turn, in which an alarm was raised at any look."""
    random = np.random.default_rng(seed)
    units: dict[str, list[float]] = {name: [] for name in NAMES}  # of the candidate, when the alarm was raised
    for number in range(rounds):
        first: dict[str, float] = {}
        for evidence in simulate(traffics[number % len(traffics)], random):
            for name in alarms(evidence) | peek(evidence):
                first.setdefault(name, evidence.total("candidate", "units"))
        for name, count in first.items():
            units[name].append(count)
    print(f"\n{rounds} x {traffics}")
    for name, counts in units.items():
        print(f"  {name} {100 * len(counts) / rounds:.1f} %", f"after {median(counts):.0f} units" if counts else "")
    return {name: len(counts) / rounds for name, counts in units.items()}


@pytest.mark.parametrize(
    "traffics",
    [
        [Traffic(), Traffic(share=0.2)],
        [Traffic(units=800, is_clustered=True), Traffic(units=800, is_clustered=True, share=0.2)],
    ],
    ids=["single calls", "clustered calls"],
)
def test_like_versions_are_rolled_back_no_more_often_than_alpha_says(traffics):
    shares = share_of_alarms(traffics, 1000, 1)
    assert shares["rollback"] <= GUARDRAILS.alpha
    assert max(shares[name] for name in ("error_rate", "latency", "quality")) <= GUARDRAILS.alpha_each
    assert shares["sample_ratio"] <= 3 * GUARDRAILS.srm_alpha
    assert shares["t test"] > 2 * 0.05  # what is promised is not to be had by looking at a t test


@pytest.mark.parametrize(
    ("traffic", "name"),
    [
        (Traffic(slower=1.2), "latency"),
        (Traffic(error_factor=2), "error_rate"),
        (Traffic(score_change=-0.05), "quality"),
        (Traffic(lost=0.1, units=20_000), "sample_ratio"),
    ],
    ids=["20 % slower", "twice the errors", "5 points worse", "a tenth lost, of twice as many"],
)
def test_a_planted_regression_is_caught_within_5000_units_of_each_version(traffic, name):
    assert share_of_alarms([traffic], 200, 2)[name] >= 0.9


def ramp(random: np.random.Generator, units: int = 1500) -> Iterator[Evidence]:
    """The end of each phase of a plan, in which the same units come back, slow ones slow and fast ones fast."""
    bucket, own_ms = random.random(units), 0.8 * random.standard_normal(units)
    phases: list[Phase] = []
    influences: list[np.ndarray] = []  # of each unit on the difference of the variants
    overlaps: dict[tuple[int, int], float] = {}
    for number, share in enumerate((0.05, 0.25, 0.5), 1):
        is_candidate = bucket < share
        ln_ms = own_ms + 0.2 * random.standard_normal(units)
        influence = np.empty(units)
        arms = []
        for is_member, sign in ((~is_candidate, -1), (is_candidate, 1)):
            values = ln_ms[is_member]
            n, mean = len(values), float(values.mean())
            influence[is_member] = sign * (values - mean) / n
            latency = Sample(n, mean, float(values.var(ddof=1)))
            arms.append(Arm(units=n, entered=n, newcomers=n, latency=latency))
        phases.append(Phase(number, round(10_000 * share), *arms))
        influences.append(influence)
        overlaps |= {(k, number): float(influences[k - 1] @ influence) for k in range(1, number)}
        yield Evidence(list(phases), dict(overlaps))


def test_units_that_come_back_in_each_phase_of_a_plan_raise_no_more_false_alarms():
    random = np.random.default_rng(3)
    guardrails, rounds, failed = replace(GUARDRAILS, min_units=50), 1000, 0
    for _ in range(rounds):
        failed += any(judge_latency(seen, guardrails).outcome == "fail" for seen in ramp(random))
    print(f"\n{rounds} plans of three phases with the same units: latency {100 * failed / rounds:.1f} %")
    assert failed / rounds <= GUARDRAILS.alpha_each


def test_the_alarms_of_the_simulation_are_those_of_the_verdict():
    random = np.random.default_rng(4)
    for traffic in (Traffic(), Traffic(slower=1.2), Traffic(error_factor=3), Traffic(lost=0.2)):
        for evidence in list(simulate(traffic, random))[9::10]:
            verdict, found = judge(evidence, GUARDRAILS), alarms(evidence)
            assert (verdict.outcome == "mismatch") == ("sample_ratio" in found)
            assert (verdict.outcome == "fail") == ("rollback" in found)
