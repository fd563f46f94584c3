"""Whether a model is asked something else than before.

A difference counts if it is large, by a threshold, and not by chance, by permutation: with many calls the smallest
difference is significant, and with few a large one may mean nothing.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgml_tune.db import Database
from pgml_tune.service.report_arguments import check_interval, check_model
from pgml_tune.store import drift
from pgml_tune.store.drift import AskedCall

Line = dict[str, Any]
Numbers = NDArray[np.float64]

_MOST_CALLS = 2000  # of each of the two times
_LEAST_CALLS = 100
_PERMUTATIONS = 499
_SEED = 20_011  # the same calls give the same report
_BINS = 10
_P_VALUE = 0.01
_STABILITY_INDEX = 0.1
_UNKNOWN_SHARE = 0.01
_DISTANCE = 0.2  # of the centres, in units of the spread around them
_SKETCH_BYTES = 32
_TINY = 1e-12


def drift_report(db: Database, name: str | None, since: str | None, reference: str | None) -> list[Line]:
    """What a model was asked since some time ago, against the time before; a line per space and metric."""
    model = check_model(db, name)
    times = check_interval(db, since, "since"), check_interval(db, reference, "reference")
    calls = drift.read_sample(db, model, *times, _MOST_CALLS)
    return [line for _, group in groupby(calls, lambda call: call.space_id) for line in compare_calls(list(group))]


def compare_calls(calls: list[AskedCall]) -> list[Line]:
    """The lines of versions that share a space, so that their vectors can be compared."""
    versions = ", ".join(sorted({call.version for call in calls}))
    lines = [
        _compare("input_bytes", calls, lambda call: [call.input_bytes], _stability_index),
        _compare("tokens", calls, lambda call: _optional(call.tokens), _stability_index),
        _compare("unknown_share", calls, lambda call: _optional(call.unknown_share), _mean_difference),
        _compare("embedding", calls, lambda call: _read_sketch(call.sketch), _centre_distance),
    ]
    return [{"versions": versions} | line for line in lines]


def _optional(value: float | None) -> list[float] | None:
    return None if value is None else [value]


def _read_sketch(text: str | None) -> list[float] | None:
    if text is None:
        return None
    sketch = np.frombuffer(base64.b64decode(text), np.int8)
    return sketch.tolist() if len(sketch) == _SKETCH_BYTES else None


# Of values and rows of who is current (1) or reference (0): the effect in each row, and from where on it is large.
Statistic = Callable[[Numbers, Numbers], tuple[Numbers, float]]


def _compare(
    metric: str, calls: list[AskedCall], read: Callable[[AskedCall], list[float] | None], statistic: Statistic
) -> Line:
    known = [(entry, not call.is_reference) for call in calls if (entry := read(call)) is not None]
    current_n = sum(is_current for _, is_current in known)
    line: Line = {"metric": metric, "reference_n": len(known) - current_n, "current_n": current_n}
    if min(line["reference_n"], current_n) < _LEAST_CALLS:
        words = f"Fewer than {_LEAST_CALLS} calls in one of the two times."
        if metric == "embedding":
            words += " Vectors are logged while setting log_sketch is on."
        return _complete(line | {"outcome": "no_data", "words": words})
    values = np.array([entry for entry, _ in known], dtype=np.float64)
    is_current = np.array([flag for _, flag in known])
    effects, threshold = statistic(values, _memberships(is_current))
    effect, p_value = float(effects[0]), float((effects >= effects[0] * (1 - 1e-9)).mean())
    has_drifted = effect >= threshold and p_value <= _P_VALUE
    words = f"{effect:.3g} {'is' if has_drifted else 'is not'} a change (from {threshold:.3g} on, p {p_value:.3g})."
    return _complete(
        line
        | {
            "reference_value": _typical(metric, values[~is_current]),
            "current_value": _typical(metric, values[is_current]),
            "effect": effect,
            "threshold": threshold,
            "p_value": p_value,
            "outcome": "drift" if has_drifted else "stable",
            "words": words,
        }
    )


def _complete(line: Line) -> Line:
    return dict.fromkeys(("reference_value", "current_value", "effect", "threshold", "p_value")) | line


def _typical(metric: str, values: Numbers) -> float:
    """The median of what is long-tailed, the mean of a share, the spread of vectors around their centre."""
    if metric == "embedding":
        return float(_spread(values))
    return float(values.mean() if metric == "unknown_share" else np.median(values))


def _memberships(is_current: NDArray[np.bool_]) -> Numbers:
    """Who is current: in the first row as it was, then dealt out at random."""
    rows = np.tile(is_current, (1 + _PERMUTATIONS, 1))
    rows[1:] = np.random.default_rng(_SEED).permuted(rows[1:], axis=1)
    return rows.astype(np.float64)


def _stability_index(values: Numbers, memberships: Numbers) -> tuple[Numbers, float]:
    """The population stability index over the quantiles of both times, which chance alone does not leave at 0."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, values[:, 0], side="left")
    in_bin = np.eye(len(edges) + 1)[bins]
    current = memberships @ in_bin
    reference = in_bin.sum(axis=0) - current + 0.5
    current += 0.5
    current /= current.sum(axis=1, keepdims=True)
    reference /= reference.sum(axis=1, keepdims=True)
    threshold = _STABILITY_INDEX + len(edges) * _chance(memberships)
    return ((current - reference) * np.log(current / reference)).sum(axis=1), threshold


def _mean_difference(values: Numbers, memberships: Numbers) -> tuple[Numbers, float]:
    return np.abs(_centres(values, memberships)[:, 0]), _UNKNOWN_SHARE


def _centre_distance(values: Numbers, memberships: Numbers) -> tuple[Numbers, float]:
    """How far the centres of the two times lie apart, in units of the spread of all around theirs."""
    distances = np.linalg.norm(_centres(values, memberships), axis=1)
    return distances / max(_spread(values), _TINY), math.hypot(_DISTANCE, math.sqrt(_chance(memberships)))


def _centres(values: Numbers, memberships: Numbers) -> Numbers:
    """Mean of the current less mean of the reference calls, for each row."""
    current_n = memberships[0].sum()
    sums: Numbers = memberships @ values
    centres: Numbers = sums / current_n - (values.sum(axis=0) - sums) / (len(values) - current_n)
    return centres


def _chance(memberships: Numbers) -> float:
    """The square of the difference of means, in units of the spread, that chance alone brings."""
    current_n = float(memberships[0].sum())
    return 1 / current_n + 1 / (len(memberships[0]) - current_n)


def _spread(values: Numbers) -> float:
    return float(np.sqrt(((values - values.mean(axis=0)) ** 2).sum(axis=1).mean()))
