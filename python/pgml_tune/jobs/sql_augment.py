"""Varies questions while training: other values where the SQL compares with them, words said otherwise or left out."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgml_tune.jobs.sql_rows import Lesson, Place, Reader
from pgml_tune.jobs.sql_synonyms import Said, learn_synonyms
from pgml_tune.service.prompt import Prompt, restore
from pgml_tune.service.value_links import words

_SWAPPED = 0.5  # of the questions
_LEFT_OUT = 0.05  # of the words beside the values
_SAID_OTHERWISE = 0.15  # of the words beside the values that have synonyms
_VALUE = "\0"  # no word
_FEWEST_WORDS = 4  # a question of fewer loses none


@dataclass(frozen=True, slots=True)
class _Swapped:
    """A value that takes the place of another."""

    begin: int
    end: int
    value: str
    columns: tuple[tuple[str, str], ...]


class Augmenter:
    """Makes other examples of one."""

    def __init__(self, reader: Reader, lessons: Sequence[Lesson], chance: random.Random) -> None:
        self._reader = reader
        self._synonyms = learn_synonyms((_said(lesson), lesson.template) for lesson in lessons)
        self._chance = chance
        self._pools = {path: _Pool(place) for path, place in reader.places.items()}

    def vary(self, lesson: Lesson) -> tuple[str, str]:
        """A prompt and what is to be written for it."""
        swapped = self._swapped(lesson) if self._chance.random() < _SWAPPED else {}
        question, matches, at = "", [], 0
        for match in lesson.matches:
            question += self._reworded(lesson.row.question[at : match.begin])
            said = lesson.row.question[match.begin : match.end]
            value, columns = swapped.get(match.value, (match.value, tuple(match.columns)))
            # In the place of a name in another language stands the value itself.
            written = said if value == match.value else value
            matches.append(_Swapped(len(question), len(question) + len(written), value, columns))
            question += written
            at = match.end
        question += self._reworded(lesson.row.question[at:])
        prompt = self._reader.render(lesson.row, question, matches)
        if self._reader.form.values == "placeholder":
            return prompt.text, lesson.output
        values = tuple(swapped.get(value, (value,))[0] for value in lesson.named)
        return prompt.text, restore(lesson.template, Prompt("", values))

    def _swapped(self, lesson: Lesson) -> dict[str, tuple[str, tuple[tuple[str, str], ...]]]:
        """Other values of all the columns that a value is compared with, none of them in the question already."""
        compared = lesson.row.target.compared() if lesson.row.target is not None else {}
        pool, taken, found = self._pools[lesson.row.search_path], {match.value for match in lesson.matches}, {}
        for match in lesson.matches:
            names = compared.get(match.value.lower())
            if not names or match.value in found:
                continue
            choices = pool.values(names)
            other = self._chance.choice(choices) if choices else match.value
            if other not in taken:
                taken.add(other)
                found[match.value] = (other, pool.columns(other, self._reader))
        return found

    def _reworded(self, text: str) -> str:
        """A part of a question with synonyms for some of its words and without others."""
        spans = words(text)
        may_lose = len(spans) >= _FEWEST_WORDS
        kept, at = "", 0
        for begin, end in spans:
            others = self._synonyms.get(text[begin:end].lower())
            if others and self._chance.random() < _SAID_OTHERWISE:
                kept += text[at:begin] + self._chance.choice(others)
                at = end
            elif may_lose and self._chance.random() < _LEFT_OUT:
                kept += text[at:begin]
                at = end
        return kept + text[at:]


def _said(lesson: Lesson) -> Said:
    """The words of a question in small letters, with a sign for each value."""
    said: list[str] = []
    at = 0
    for match in lesson.matches:
        said += [*_words(lesson.row.question[at : match.begin]), _VALUE]
        at = match.end
    return (*said, *_words(lesson.row.question[at:]))


def _words(text: str) -> list[str]:
    return [text[begin:end].lower() for begin, end in words(text)]


class _Pool:
    """The values of the columns of one place."""

    def __init__(self, place: Place) -> None:
        self._by_name: Mapping[str, list[str]] = defaultdict(list)
        self._columns: Mapping[str, list[tuple[str, str]]] = defaultdict(list)
        self._common: dict[frozenset[str], list[str]] = {}
        for table, column, value in place.values:
            self._by_name[column].append(value)
            self._columns[value].append((table, column))

    def values(self, names: set[str]) -> list[str]:
        """Those that stand in columns of all these names."""
        key = frozenset(names)
        if key not in self._common:
            sets = [set(self._by_name.get(name, ())) for name in key]
            self._common[key] = sorted(set.intersection(*sets)) if sets else []
        return self._common[key]

    def columns(self, value: str, reader: Reader) -> tuple[tuple[str, str], ...]:
        """Where a value stands, of what questions are searched for."""
        return tuple(column for column in self._columns[value] if reader.form.links(*column))
