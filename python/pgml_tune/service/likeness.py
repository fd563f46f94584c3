"""How alike two short texts are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CLOSE = 0.4  # share of the trigrams of two texts that both have
_ONE_SLIP = 0.9  # what a text counts that is one letter away
_SHORTEST_SLIPPED = 4  # characters: of shorter words another letter makes another word
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")


def closest(text: str, values: Iterable[str]) -> str | None:
    """The value that is most like a text; None if none is close."""
    plain, grams, digits = _plain(text), _grams(text), _DIGIT.findall(text)
    best, best_share = None, 0.0
    for value in values:
        if _DIGIT.findall(value) != digits:
            continue  # another number is another thing
        other = _plain(value)
        share = 1.0 if other == plain else _ONE_SLIP if is_slip(plain, other) else _share(grams, _grams(value))
        if share > best_share:
            best, best_share = value, share
    return best if best_share >= _CLOSE and best != text else None


def _plain(text: str) -> str:
    return _SPACES.sub(" ", text.strip().lower())


def is_slip(left: str, right: str) -> bool:
    """Whether one letter too many, too few, wrong or in the wrong place tells two texts apart."""
    short, long = sorted((left, right), key=len)
    if len(short) < _SHORTEST_SLIPPED or len(long) - len(short) > 1:
        return False
    if _DIGIT.findall(short) != _DIGIT.findall(long):
        return False
    same = next((place for place in range(len(short)) if short[place] != long[place]), len(short))
    if len(short) < len(long):
        return short[same:] == long[same + 1 :]
    swapped = short[same : same + 2] == long[same : same + 2][::-1]
    return short[same + 1 :] == long[same + 1 :] or (swapped and short[same + 2 :] == long[same + 2 :])


def _grams(text: str) -> frozenset[str]:
    """The trigrams of the words of a text, as pg_trgm has them; pairs in writing where a character is a word."""
    grams: set[str] = set()
    for word in _WORD.findall(text.lower()):
        size = 3 if word.isascii() or len(word) > 8 else 2
        padded = f"{' ' * (size - 1)}{word} "
        grams.update(padded[place : place + size] for place in range(len(padded) - size + 1))
    return frozenset(grams)


def _share(left: frozenset[str], right: frozenset[str]) -> float:
    together = len(left | right)
    return len(left & right) / together if together else 0.0
