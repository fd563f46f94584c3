"""How often the tests of a rollout are alarmed by nothing: logged calls of one version, split at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgml_tune.db import Database
from pgml_tune.errors import InvalidArgument, NotReady
from pgml_tune.service.ab_test import Counts, half_width
from pgml_tune.service.evidence import Arm, Evidence, Phase
from pgml_tune.service.guardrails import Guardrails
from pgml_tune.service.report_arguments import check_model
from pgml_tune.service.verdict import ln_e_events, ln_e_ratio
from pgml_tune.store import experiment
from pgml_tune.store.experiment import ServedCall

Line = dict[str, Any]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

LOOKS = 50
_MOST_ROUNDS = 10_000
_MOST_CALLS = 20_000
_SEED = 20_011  # the same calls give the same report
_SHARE = 5000


@dataclass(frozen=True, slots=True)
class Look:
    """All that is known of each unit at one time."""

    is_seen: Flags
    has_failed: Flags
    ln_ms: Numbers  # NaN: not timed yet


def ab_selftest(db: Database, name: str | None, rounds: int | None) -> list[Line]:
    """A line per test: how many of the rounds raised a false alarm, and how many may."""
    model = check_model(db, name)
    if rounds is None or not 1 <= rounds <= _MOST_ROUNDS:
        raise InvalidArgument(f"rounds is not between 1 and {_MOST_ROUNDS}")
    calls = experiment.read_served(db, model, _MOST_CALLS)
    guardrails = Guardrails()
    units = len({call.unit for call in calls})
    if units < 2 * guardrails.min_units:
        raise NotReady(
            f'too few calls of model "{model}" are logged',
            detail=f"They are of {units} units; {2 * guardrails.min_units} are needed.",
            hint="SELECT configure('log_sample', '1')",
        )
    alarms = false_alarms(looks_at(calls), rounds, guardrails)
    return [_line(metric, alarm, units, _allowed(metric, guardrails)) for metric, alarm in alarms.items()]


def _allowed(metric: str, guardrails: Guardrails) -> float:
    special = {"sample_ratio": guardrails.srm_alpha, "rollback": guardrails.alpha}
    return special.get(metric, guardrails.alpha_each)


def _line(metric: str, alarms: Flags, units: int, alpha: float) -> Line:
    count, rounds = int(alarms.sum()), len(alarms)
    # As many as three standard errors above alpha would be no surprise.
    most = rounds * alpha + 3 * math.sqrt(rounds * alpha * (1 - alpha))
    outcome: str | None = "pass" if count <= most else "fail"
    words = f"{100 * count / rounds:.3g} % of the rounds raised a false alarm, {100 * alpha:.3g} % may."
    if metric == "latency_welch_t":
        outcome, words = None, f"{words} Used by nobody: it shows what peeking at a test for a fixed horizon does."
    return {
        "metric": metric, "rounds": rounds, "looks": LOOKS, "units": units, "false_alarms": count,
        "rate": count / rounds, "alpha": alpha, "outcome": outcome, "words": words,
    }  # fmt: skip


def looks_at(calls: list[ServedCall]) -> Iterator[Look]:
    """What is known of the units after each fiftieth of the calls."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(call.unit for call in calls))}
    unit = np.array([numbers[call.unit] for call in calls])
    failed = np.array([call.has_failed for call in calls], dtype=np.float64)
    ln_ms = np.array([math.nan if call.model_ms is None else math.log(call.model_ms) for call in calls])
    is_timed = ~np.isnan(ln_ms)
    for end in np.linspace(0, len(calls), LOOKS + 1)[1:].astype(int):
        now, timed = unit[:end], is_timed[:end]

        def per_unit(of: NDArray[Any], weights: Numbers | None = None) -> Numbers:
            return np.bincount(of, weights, minlength=len(numbers)).astype(np.float64)

        times = per_unit(now[timed])
        with np.errstate(invalid="ignore"):
            means = per_unit(now[timed], ln_ms[:end][timed]) / times
        yield Look(per_unit(now) > 0, per_unit(now, failed[:end]) > 0, means)


def false_alarms(looks: Iterator[Look], rounds: int, guardrails: Guardrails) -> dict[str, Flags]:
    """Which rounds each test was alarmed in at any of the looks, half of the units playing the candidate."""
    random = np.random.default_rng(_SEED)
    names = ("sample_ratio", "error_rate", "latency", "rollback", "latency_welch_t")
    alarms = {name: np.zeros(rounds, dtype=bool) for name in names}
    is_candidate: Numbers | None = None
    for look in looks:
        if is_candidate is None:
            is_candidate = (random.random((rounds, len(look.is_seen))) < _SHARE / 10_000).astype(np.float64)
        alarms["sample_ratio"] |= _event_alarms(look.is_seen, is_candidate, _ratio_alarm(guardrails))
        alarms["error_rate"] |= _event_alarms(look.has_failed, is_candidate, _error_alarm(guardrails))
        latency, welch_t = _latency_alarms(look.ln_ms, is_candidate, guardrails)
        alarms["latency"] |= latency
        alarms["latency_welch_t"] |= welch_t
    alarms["rollback"] = alarms["error_rate"] | alarms["latency"]
    return alarms


def _ratio_alarm(guardrails: Guardrails) -> Callable[[Counts], bool]:
    def is_alarm(counts: Counts) -> bool:
        phase = Phase(1, _SHARE, Arm(newcomers=counts.serving), Arm(newcomers=counts.candidate))
        return ln_e_ratio(Evidence([phase])) >= -math.log(guardrails.srm_alpha)

    return is_alarm


def _error_alarm(guardrails: Guardrails) -> Callable[[Counts], bool]:
    def is_alarm(counts: Counts) -> bool:
        phase = Phase(1, _SHARE, Arm(first_failed=counts.serving), Arm(first_failed=counts.candidate))
        return ln_e_events(Evidence([phase]), "first_failed") >= -math.log(guardrails.alpha_each)

    return is_alarm


def _event_alarms(has_met: Flags, is_candidate: Numbers, is_alarm: Callable[[Counts], bool]) -> Flags:
    """The test of counts in each round; rounds with the same counts are tested once."""
    total = int(has_met.sum())
    counts, place = np.unique(is_candidate @ has_met, return_inverse=True)
    tested = [is_alarm(Counts(total - count, count, _SHARE / 10_000)) for count in counts.tolist()]
    return np.array(tested)[place]


def _latency_alarms(ln_ms: Numbers, is_candidate: Numbers, guardrails: Guardrails) -> tuple[Flags, Flags]:
    """The test of latency in each round, and what a t test at each look would say."""
    is_timed = ~np.isnan(ln_ms)
    known, candidate = ln_ms[is_timed], is_candidate[:, is_timed]
    n_candidate = candidate.sum(axis=1)
    n_serving = len(known) - n_candidate
    is_enough = np.minimum(n_candidate, n_serving) >= guardrails.min_units
    if not is_enough.any():
        nothing = np.zeros(len(is_candidate), dtype=bool)
        return nothing, nothing
    sums, squares = candidate @ known, candidate @ known**2
    mean_candidate, mean_serving = sums / n_candidate, (known.sum() - sums) / n_serving
    variance_candidate = (squares - n_candidate * mean_candidate**2) / (n_candidate - 1)
    variance_serving = ((known**2).sum() - squares - n_serving * mean_serving**2) / (n_serving - 1)
    error = np.sqrt(variance_candidate / n_candidate + variance_serving / n_serving)
    difference = mean_candidate - mean_serving
    width = error * half_width(1.0, len(known), guardrails.alpha_each, guardrails.expected_total)
    alarm = (difference > width) & (np.expm1(difference) > guardrails.latency_margin)
    # One-sided, as the others; the quantile at so many units is that of the normal distribution.
    is_significant = difference > error * NormalDist().inv_cdf(1 - guardrails.alpha_each)
    return alarm & is_enough, is_significant & is_enough
