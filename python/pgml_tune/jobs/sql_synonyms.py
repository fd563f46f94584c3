"""Words that mean the same in questions: learnt from rows that ask for the same SQL and differ in one word.

"how big is <v>" and "how large is <v>" have the same SQL, so "big" and "large" may stand for each other; "largest" and
"smallest" stand in the same place of other questions with different SQL, so they may not, anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

_FEWEST_STATEMENTS = 2  # that two words have in common
_MOST_QUESTIONS = 100_000  # looked at
_MOST_WORDS = 40  # of one; longer ones hardly ever differ in one word
_MOST_IN_A_PLACE = 50  # more different words in one place are names
Said = tuple[str, ...]  # the words of a question in small letters, with one sign for each value


def learn_synonyms(questions: Iterable[tuple[Said, str]]) -> Mapping[str, Sequence[str]]:
    """The words that may stand for each word, from questions with their SQL, in which values are placeholders."""
    places: dict[tuple[Said, Said], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for number, (said, statement) in enumerate(questions):
        if number == _MOST_QUESTIONS:
            break
        for at, word in enumerate(said[:_MOST_WORDS]):
            places[said[:at], said[at + 1 :]][word].add(statement)
    common: dict[tuple[str, str], set[str]] = defaultdict(set)
    different: set[tuple[str, str]] = set()
    for found in places.values():
        if len(found) > _MOST_IN_A_PLACE:
            continue
        for one, other in combinations(sorted(found), 2):
            shared = found[one] & found[other]
            common[one, other] |= shared
            if not shared:
                different.add((one, other))
    synonyms: dict[str, list[str]] = defaultdict(list)
    for (one, other), statements in sorted(common.items()):
        if len(statements) >= _FEWEST_STATEMENTS and (one, other) not in different:
            synonyms[one].append(other)
            synonyms[other].append(one)
    return dict(synonyms)
