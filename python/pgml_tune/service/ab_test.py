"""Tests that stay valid however often one looks at them: the mathematics, on plain numbers.

An e-value has a mean of at most 1 while the null hypothesis holds, at every time; so it reaches 1/alpha with a
probability of at most alpha, ever. Logarithms are kept, because the values themselves leave the range of a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WIDEST_LN_RATIO = math.log(1e6)
_HALVINGS = 50
_FRACTIONS = 20_000  # more than any sum of counts that a log can hold needs
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Counts:
    """Events in the two variants, and the share of the units that went to the candidate."""

    serving: float
    candidate: float
    share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A figure of each of `count` units."""

    count: float
    mean: float
    variance: float  # of the figure, not of its mean

    @property
    def squared_error(self) -> float:
        """The variance of the mean."""
        return self.variance / self.count


def ln_beta(a: float, b: float) -> float:
    """The logarithm of the beta function."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def ln_tail(a: float, b: float, x: float) -> float:
    """ln P(X > x) for X of the distribution Beta(a, b)."""
    if not 0 < x < 1:
        return 0.0 if x <= 0 else -math.inf
    ln_front = a * math.log(x) + b * math.log1p(-x) - ln_beta(a, b)
    if x < (a + 1) / (a + b + 2):
        below = math.exp(ln_front) * _beta_fraction(a, b, x) / a
        return math.log(max(1 - below, _TINY))
    return ln_front + math.log(_beta_fraction(b, a, 1 - x) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), evaluated from the front (Lentz)."""
    numerator, denominator = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, _FRACTIONS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            denominator = 1 / _not_zero(1 + step * denominator)
            numerator = _not_zero(1 + step / numerator)
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-14:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def ln_e_share(counts: Counts, concentration: float) -> float:
    """ln E against "each event falls to the candidate with probability `share`", in either direction.

    The beta-binomial mixture (Howard and others 2021; for sample ratios: Lindon and Malek 2022).
    """
    share = counts.share
    if not 0 < share < 1:
        return 0.0
    a, b = concentration * share, concentration * (1 - share)
    return (
        ln_beta(a + counts.candidate, b + counts.serving)
        - ln_beta(a, b)
        - counts.candidate * math.log(share)
        - counts.serving * math.log1p(-share)
    )


def ln_e_more(counts: Counts, concentration: float) -> float:
    """ln E against "no more events fall to the candidate than its share": the mixture cut off at the null."""
    share = counts.share
    if not 0 < share < 1:
        return 0.0
    a, b = concentration * share, concentration * (1 - share)
    cut = ln_tail(a + counts.candidate, b + counts.serving, share) - ln_tail(a, b, share)
    return ln_e_share(counts, concentration) + cut


def ln_e_fewer(counts: Counts, concentration: float) -> float:
    """ln E against "no fewer events fall to the candidate than its share"."""
    return ln_e_more(Counts(counts.candidate, counts.serving, 1 - counts.share), concentration)


def ratio_interval(strata: Sequence[Counts], concentration: float, alpha: float) -> tuple[float, float] | None:
    """Bounds of rate(candidate)/rate(serving), each crossed ever with a probability of at most alpha.

    A rate ratio r sends each event to the candidate with odds r * share/(1 - share): the ratios that the one-sided
    tests do not reject. Strata are tested each at its own share and multiplied, never pooled. None: no events.
    """
    strata = [counts for counts in strata if 0 < counts.share < 1]
    if not sum(counts.serving + counts.candidate for counts in strata):
        return None

    def is_rejected(test: Callable[[Counts, float], float], ln_ratio: float) -> bool:
        shifted = (Counts(s.serving, s.candidate, _shift(s.share, ln_ratio)) for s in strata)
        return sum(test(counts, concentration) for counts in shifted) >= -math.log(alpha)

    low = _last_rejected(lambda distance: is_rejected(ln_e_more, distance - _WIDEST_LN_RATIO))
    high = _last_rejected(lambda distance: is_rejected(ln_e_fewer, _WIDEST_LN_RATIO - distance))
    # Strata that contradict each other leave no ratio at all: then all between the two bounds.
    low, high = sorted((low - _WIDEST_LN_RATIO, _WIDEST_LN_RATIO - high))
    return math.exp(low), math.exp(high)


def rate_bound(events: float, units: float, concentration: float, alpha: float) -> float:
    """An upper bound of the rate of events per unit, crossed ever with a probability of at most alpha."""

    def is_rejected(rate: float) -> bool:
        return ln_e_fewer(Counts(units - events, events, rate), concentration) >= -math.log(alpha)

    return 1 - _last_rejected(lambda distance: is_rejected(1 - distance), 1.0)


def _shift(share: float, ln_ratio: float) -> float:
    odds = math.exp(ln_ratio) * share / (1 - share)
    return odds / (1 + odds)


def _last_rejected(is_rejected: Callable[[float], bool], furthest: float = 2 * _WIDEST_LN_RATIO) -> float:
    """How far one can go from 0 until values are no longer rejected."""
    near, far = 0.0, furthest
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        near, far = (middle, far) if is_rejected(middle) else (near, middle)
    return near


def tuning(alpha: float, expected_units: float) -> float:
    """rho^2: makes an interval narrowest at about so many units; one for all looks of a test."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / expected_units


def half_width(standard_error: float, units: float, alpha: float, expected_units: float) -> float:
    """How far the truth ever lies below (or, separately, above) an estimate, with a probability of at most alpha.

    The one-sided asymptotic confidence sequence of Waudby-Smith and others (arXiv 2103.06476, Proposition 1 and 2.6).
    """
    growth = units * tuning(2 * alpha, expected_units)
    return standard_error * math.sqrt(2 * (growth + 1) / growth * math.log1p(math.sqrt(growth + 1) / (2 * alpha)))


def ln_e_above(estimate: float, standard_error: float, units: float, alpha: float, expected_units: float) -> float:
    """ln E against "the truth is at most 0": it is ln(1/alpha) where `half_width` equals the estimate."""
    if estimate <= 0:
        return 0.0
    growth = units * tuning(2 * alpha, expected_units)
    exponent = (estimate / standard_error) ** 2 * growth / (2 * (growth + 1)) if standard_error else math.inf
    # ln(2 (e^exponent - 1) / sqrt(growth + 1)), which for a large exponent would overflow.
    ln_excess = exponent + math.log(-math.expm1(-exponent)) if exponent > _TINY else -math.inf
    return max(0.0, math.log(2) + ln_excess - math.log(growth + 1) / 2)


@dataclass(frozen=True, slots=True)
class Welch:
    """A test that holds for one look, at a time fixed before."""

    p_value: float
    low: float
    high: float


def welch(serving: Sample, candidate: Sample, alpha: float) -> Welch | None:
    """Welch's t test of a difference of means, with its interval at 1 - alpha; None: too little to say."""
    squared_error = serving.squared_error + candidate.squared_error
    if min(serving.count, candidate.count) < 2 or squared_error <= 0:
        return None
    freedom = squared_error**2 / sum(sample.squared_error**2 / (sample.count - 1) for sample in (serving, candidate))
    difference, error = candidate.mean - serving.mean, math.sqrt(squared_error)
    width = error * _student_quantile(alpha, freedom)
    return Welch(student_p(difference / error, freedom), difference - width, difference + width)


def student_p(t: float, freedom: float) -> float:
    """The probability that Student's t is at least so far from 0."""
    return math.exp(ln_tail(0.5, freedom / 2, t * t / (freedom + t * t)))


def _student_quantile(alpha: float, freedom: float) -> float:
    return _last_rejected(lambda distance: student_p(1e3 * distance, freedom) > alpha, 1.0) * 1e3
