"""Which words of a question are values that stand in the tables, and in which of their columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgml_tune.service.likeness import is_slip

# For each value in lower case: how it is written, and the columns (table, column) in which it stands so.
ValueIndex = Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]

_LONGEST_QUESTION = 2000  # characters that are looked at
_SHORTEST_SLIP = 5  # characters of a value that may be misspelt
_MOST_WORDS = 6  # of a value
_MOST_CHARACTERS = 16  # of a value written without spaces
# Scripts without spaces between words: each character may begin one.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_SPACE = re.compile(r"\s+")
# Words that say how a question is meant, even where some row holds them as a value.
_GRAMMAR = frozenset(
    "a an and any are as at be by can did do does for from had has have how i if in is it its many me much my no not"
    " of on or our s than that the their them there these this those to was were what when where which who whose why"
    " will with you your 的 是 在 有 和 与 了 吗 呢 个 几 多 少 哪 中 不 为 里 上 下 到 从".split()
)


@dataclass(frozen=True, slots=True)
class Match:
    """A piece of a question that means a value of columns."""

    begin: int
    end: int
    value: str  # as the columns have it
    columns: tuple[tuple[str, str], ...]


def terms(question: str, lexicon: Mapping[str, str] | None = None) -> list[str]:
    """All that the words of a question could mean as a value, in lower case: what is worth looking up."""
    found = dict.fromkeys(term for _, _, term in _pieces(_folded(question)))
    for term in list(found):
        if lexicon and lexicon.get(term):
            found[lexicon[term].lower()] = None
    return list(found)


def index(rows: Iterable[tuple[str, str, str]]) -> ValueIndex:
    """The index of values, each with the table and column in which it stands."""
    found: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
    for table, column, value in rows:
        spellings = found.setdefault(_SPACE.sub(" ", value.strip().lower()), {})
        spellings[value] = (*spellings.get(value, ()), (table, column))
    return found


def link(question: str, values: ValueIndex, lexicon: Mapping[str, str] | None = None) -> list[Match]:
    """The values that a question names, in its order: long ones before short ones, and none over another.

    The lexicon says which value a phrase means that is not written as the value, as in another language; one that means
    '' there is no value, however it looks, though words in it may be.
    """
    pieces = sorted(_pieces(_folded(question)), key=lambda piece: (piece[0] - piece[1], piece[0]))
    taken: list[Match] = []
    for begin, end, term in pieces:
        meant = lexicon.get(term, term) if lexicon else term
        spellings = values.get(meant.lower()) if meant else None
        if spellings and all(end <= match.begin or match.end <= begin for match in taken):
            taken.append(_match(begin, end, question[begin:end], spellings))
    return sorted(taken, key=lambda match: match.begin)


def link_slips(question: str, values: ValueIndex) -> list[Match]:
    """The values that a question names with one letter wrong; for one in which link() finds nothing."""
    pieces = [
        piece
        for piece in _pieces(_folded(question))
        if len(piece[2]) >= _SHORTEST_SLIP and not _IS_UNSPACED.search(piece[2])
    ]
    by_length: dict[int, list[str]] = {}
    for value in values:
        by_length.setdefault(len(value), []).append(value)
    taken: list[Match] = []
    for begin, end, term in sorted(pieces, key=lambda piece: (piece[0] - piece[1], piece[0])):
        likely = (value for size in (0, 1, -1) for value in by_length.get(len(term) + size, ()))
        meant = next((value for value in likely if is_slip(term, value)), None)
        if meant is not None and all(end <= match.begin or match.end <= begin for match in taken):
            taken.append(_match(begin, end, meant, values[meant]))
    return sorted(taken, key=lambda match: match.begin)


def _match(begin: int, end: int, written: str, spellings: Mapping[str, tuple[tuple[str, str], ...]]) -> Match:
    """A match with the spelling that most columns have, in doubt with that of the question."""
    value = max(spellings, key=lambda spelling: (len(spellings[spelling]), spelling == written))
    return Match(begin, end, value, spellings[value])


def words(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends; without spaces between them each character is one."""
    return [match.span() for match in _WORD.finditer(text)]


def _pieces(folded: str) -> Iterator[tuple[int, int, str]]:
    """Every run of words that may be a value: where it begins and ends, and how it reads."""
    found = words(folded)
    for first, (begin, _) in enumerate(found):
        spaced = 0
        for place, (word_begin, end) in enumerate(found[first : first + _MOST_CHARACTERS]):
            spaced += not _IS_UNSPACED.match(folded, word_begin)
            if spaced > _MOST_WORDS:
                break
            term = _SPACE.sub(" ", folded[begin:end])
            if place or term not in _GRAMMAR:
                yield begin, end, term


def _folded(question: str) -> str:
    """The question in lower case, each character where it was."""
    lowered = (character.lower() for character in question[:_LONGEST_QUESTION])
    return "".join(
        character if len(lower) != 1 else lower for lower, character in zip(lowered, question, strict=False)
    )
