"""Decides which rows are kept out of training, to measure with."""

from __future__ import annotations

import random
from collections.abc import Sequence


def split_stratified(labels: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """The places of the rows to train on and of those held out, each label giving its share.

    What is left of the share goes to the labels with the greatest remainders. A label keeps a row to train on.
    """
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    shares = {label: share * len(rows) for label, rows in places.items()}
    counts = {label: min(int(shares[label]), len(rows) - 1) for label, rows in places.items()}
    missing = round(share * len(labels)) - sum(counts.values())
    by_remainder = sorted(places, key=lambda label: counts[label] - shares[label])
    for label in [label for label in by_remainder if counts[label] < len(places[label]) - 1][: max(missing, 0)]:
        counts[label] += 1
    order = random.Random(seed)
    held_out = sorted(place for label, rows in places.items() for place in order.sample(rows, counts[label]))
    return sorted(set(range(len(labels))) - set(held_out)), held_out
