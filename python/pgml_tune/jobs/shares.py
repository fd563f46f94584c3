"""Holds a share of the training rows out, to measure with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

DEFAULT_SHARE = 0.1
_FEWEST = 3


def hold_out(rows: Sequence[list[Any]], share: float, seed: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """Rows to train with and rows to measure with; rows that begin with the same text stay together.

    Otherwise what is measured would have been learned by heart.
    """
    if not share:
        return list(rows), []
    beginnings = list(dict.fromkeys(row[0] for row in rows))
    random.Random(seed).shuffle(beginnings)
    sizes = dict.fromkeys(beginnings, 0)
    for row in rows:
        sizes[row[0]] += 1
    wanted, held, chosen = max(_FEWEST, round(share * len(rows))), 0, set()
    for beginning in beginnings:
        if held >= wanted or held + sizes[beginning] > max(wanted, len(rows) // 2):
            continue
        chosen.add(beginning)
        held += sizes[beginning]
    return [row for row in rows if row[0] not in chosen], [row for row in rows if row[0] in chosen]
