"""What a candidate may cost, and how sure one has to be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.ab_test import half_width, rate_bound

EVENT_CONCENTRATION = 20  # of the tests of errors: quick to see a rate that doubles

_COUNTS = ("min_units", "expected_units")
_RANGES = {  # lowest and highest value
    "alpha": (1e-9, 0.5), "srm_alpha": (1e-9, 0.5), "latency_margin": (0.001, 1000.0), "error_margin": (0.001, 1000.0),
    "error_tolerance": (0.0, 1.0), "quality_margin": (0.001, 1.0), "slo_ms": (0.001, 1e9),
    "min_units": (2, 10**9), "expected_units": (10, 10**9),
}  # fmt: skip
_POWER = NormalDist().inv_cdf(0.9)
_MOST_UNITS = 10**12


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Margins of a rollout; how often it may be rolled back though nothing is wrong."""

    alpha: float = 0.05  # of all guardrails together, over all looks
    srm_alpha: float = 0.001  # of the check that the units were split as they should
    latency_margin: float = 0.10  # slower by this share is too slow
    error_margin: float = 0.5  # more errors by this share are too many
    error_tolerance: float = 0.01  # below this share of units with an error a candidate passes, whatever the other has
    quality_margin: float = 0.02  # of a score of 0 to 1
    slo_ms: float | None = None  # a call that takes longer breaks the promise; None: there is none
    min_units: int = 100  # of each variant, before anything but errors is judged
    expected_units: int = 5000  # of each variant, where the intervals shall be narrowest

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Guardrails:
        """The guardrails with these values in place of the defaults."""
        valid = [field.name for field in fields(cls)]
        if set(values) - set(valid):
            raise InvalidArgument("guardrails have unknown keys", detail=f"Valid keys are: {', '.join(valid)}.")
        wrong = next((name for name, value in values.items() if not _is_valid(name, value)), None)
        if wrong is not None:
            low, high = _RANGES[wrong]
            kind = "whole number" if wrong in _COUNTS else "number"
            raise InvalidArgument(
                f'guardrail "{wrong}" has a value that is not valid',
                detail=f"It is a {kind} from {low:g} to {high:g}" + (", or null." if wrong == "slo_ms" else "."),
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def alpha_each(self) -> float:
        """Of one guardrail: errors, latency, quality, and a promised latency if there is one."""
        return self.alpha / (3 if self.slo_ms is None else 4)

    @property
    def expected_total(self) -> int:
        """Units of both variants at which the intervals shall be narrowest."""
        return 2 * self.expected_units


def _is_valid(name: str, value: Any) -> bool:
    if value is None:
        return name == "slo_ms"
    if type(value) is not int and (type(value) is not float or name in _COUNTS):
        return False
    low, high = _RANGES[name]
    return bool(low <= value <= high)


def units_needed(share: int, guardrails: Guardrails, deviation: float = 0.9) -> int:
    """Units of both variants after which a candidate as fast as the serving version, and without errors, mostly passes.

    Nine times out of ten, that is. `share` is in units of 10,000, `deviation` that of ln(ms) between units.
    """
    part = share / 10_000
    if not 0 < part < 1:
        return 0
    margin = math.log1p(guardrails.latency_margin)

    def is_enough(units: int) -> bool:
        error = deviation / math.sqrt(units * part * (1 - part))
        width = half_width(error, units, guardrails.alpha_each, guardrails.expected_total)
        return width + _POWER * error < margin and has_few_errors(units * part)

    def has_few_errors(units: float) -> bool:
        bound = rate_bound(0, units, EVENT_CONCENTRATION, guardrails.alpha_each)
        # With no tolerance at all errors are compared, and how many units that needs nobody knows before.
        return bound < guardrails.error_tolerance or not guardrails.error_tolerance

    least = math.ceil(guardrails.min_units / min(part, 1 - part))
    few, many = 1, least
    while not is_enough(many) and many < _MOST_UNITS:
        few, many = many, 2 * many
    while few + 1 < many:
        middle = (few + many) // 2
        few, many = (few, middle) if is_enough(middle) else (middle, many)
    return max(many, least)
