"""Rows that a tiny classifier can learn: the words of a text tell its label."""

import random

WORDS = {
    "lists": ["list", "string", "object"],
    "numbers": ["number", "value", "the"],
    "queries": ["query", "passage", "of"],
}
COLUMNS = ("body", "label")


def labelled_rows(count, seed=1, words=WORDS):
    """So many rows of each label."""
    order = random.Random(seed)
    return [
        (" ".join(order.choices(own, k=6)), label)
        for label, own in words.items()
        for _ in range(count)
    ]
