"""Learns from questions and their SQL what the questions call the values of the tables.

"有多少人住在得克萨斯州" and "... WHERE state_name = 'texas'" have no word in common. But another question differs
from this one in its value alone, as its SQL does, so that what stands between their common beginning and end are the
names. A phrase is learnt when it stands by its value and hardly anywhere else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgml_tune.service.value_links import ValueIndex, link, words

_ROUNDS = 6  # a question with two unknown values can tell of one when the other is known
_MOST_COMPARED = 2000  # questions: each is compared with each
_LONGEST_PHRASE = 8  # words
_FEWEST_COMMON = 2  # words that two questions must share
_SHARE = 0.8  # of the questions with a phrase that must have its value
_FEW = 3  # questions; a word of fewer may belong to the name of a value
_VALUE = "\0"  # stands for a value that is known


@dataclass(frozen=True, slots=True)
class Example:
    """A question, the texts that its SQL compares with, in lower case, and the values that its tables have."""

    question: str
    wanted: frozenset[str]
    index: ValueIndex

    def linked(self, lexicon: Mapping[str, str]) -> set[str]:
        """The values that are found in the question."""
        return {match.value.lower() for match in link(self.question, self.index, lexicon)}


def learn_lexicon(examples: Sequence[Example]) -> dict[str, str]:
    """Phrases in lower case with the value that each means; '' where one looks like a value and is none."""
    compared = examples[:_MOST_COMPARED]
    lexicon = _grown(_false_friends(compared), compared)
    # What is cut to the name itself may be found in more questions, which tell of others.
    lexicon = _grown(_trimmed(lexicon, compared), compared)
    return _merged(_trimmed(lexicon, compared), compared)


def _grown(lexicon: dict[str, str], examples: Sequence[Example]) -> dict[str, str]:
    """The lexicon with what else the questions tell."""
    for _ in range(_ROUNDS):
        found = _best(_votes(examples, lexicon), _Texts(examples, lexicon))
        if not set(found) - set(lexicon):
            break
        lexicon = found | lexicon
    return lexicon


def _false_friends(examples: Sequence[Example]) -> dict[str, str]:
    """Values that questions name only as a part of their words for a shorter one, as "ohio river" for ohio."""
    hides, means = Counter[str](), Counter[str]()
    for example in examples:
        for match in link(example.question, example.index):
            term = example.question[match.begin : match.end].lower()
            if term in example.wanted or match.value.lower() in example.wanted:
                means[term] += 1
            elif any(f" {wanted} " in f" {term} " for wanted in example.wanted):
                hides[term] += 1
    return {term: "" for term in hides if not means[term]}


def _votes(examples: Sequence[Example], lexicon: Mapping[str, str]) -> dict[str, Counter[str]]:
    """For each value that is not found yet the phrases that may mean it."""
    masked = [_masked(example, lexicon) for example in examples]
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for place, (signs, spans, missing) in enumerate(masked):
        if len(missing) != 1:
            continue
        (value,) = missing
        for other, (other_signs, _, other_missing) in enumerate(masked):
            if other == place or other_missing == missing:
                continue
            begin, end, common = _difference(signs, other_signs)
            if common < _FEWEST_COMMON or not 0 < end - begin <= _LONGEST_PHRASE or _VALUE in signs[begin:end]:
                continue
            question = examples[place].question
            phrase = _phrase(question, spans[begin:end])
            if len(phrase) > 1 and phrase not in examples[place].index:
                votes[value][phrase] += common * common
    return votes


def _masked(example: Example, lexicon: Mapping[str, str]) -> tuple[list[str], list[tuple[int, int]], frozenset[str]]:
    """The words of a question, a sign for each value that is known, where they stand, and the values not known."""
    matches = [
        match for match in link(example.question, example.index, lexicon) if match.value.lower() in example.wanted
    ]
    signs, spans = [], []
    for begin, end in words(example.question):
        match = next((match for match in matches if match.begin <= begin < match.end), None)
        if match is None:
            signs.append(example.question[begin:end].lower())
            spans.append((begin, end))
        elif match.begin == begin:
            signs.append(_VALUE)
            spans.append((match.begin, match.end))
    known = {match.value.lower() for match in matches}
    return signs, spans, frozenset(value for value in example.wanted - known if value in example.index)


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, int, int]:
    """Where ours begins and ends to differ, and how many words both share before and behind."""
    most = min(len(ours), len(theirs))
    begin = 0
    while begin < most and ours[begin] == theirs[begin]:
        begin += 1
    behind = 0
    while behind < most - begin and ours[-1 - behind] == theirs[-1 - behind]:
        behind += 1
    return begin, len(ours) - behind, begin + behind


def _best(votes: Mapping[str, Counter[str]], texts: _Texts) -> dict[str, str]:
    """The phrase with the most votes for each value."""
    found: dict[str, str] = {}
    for value, counted in votes.items():
        ranked = [(weight * texts.meaning(phrase, value), phrase) for phrase, weight in counted.items()]
        score, phrase = max(ranked)
        if score and phrase not in found:
            found[phrase] = value
    return found


def _trimmed(lexicon: Mapping[str, str], examples: Sequence[Example]) -> dict[str, str]:
    """Each phrase without words at its ends that stand in many questions whatever value they name."""
    texts = _Texts(examples, lexicon)
    trimmed = {}
    for phrase, value in sorted(lexicon.items()):
        # Where several questions agree, they show where the name begins and ends.
        spans = words(phrase) if value and texts.meaning(phrase, value) < _FEW else []
        while len(spans) > 1:
            ends = (spans[:-1], spans[-1]), (spans[1:], spans[0])
            shorter = [
                rest
                for rest, (begin, end) in ends
                if texts.is_common(phrase[begin:end])
                and len(part := _phrase(phrase, rest)) > 1
                and texts.meaning(part, value)
                and lexicon.get(part, value) == value
            ]
            if not shorter:
                break
            spans = shorter[0]
        trimmed[_phrase(phrase, spans) if spans else phrase] = value
    return trimmed


def _merged(lexicon: Mapping[str, str], examples: Sequence[Example]) -> dict[str, str]:
    """One phrase for those of a value that share a part, which is the name."""
    texts = _Texts(examples, lexicon)
    merged = dict(lexicon)
    by_value: dict[str, list[str]] = defaultdict(list)
    for phrase, value in sorted(lexicon.items()):
        if value:
            by_value[value].append(phrase)
    for value, phrases in by_value.items():
        for place, first in enumerate(phrases):
            for second in phrases[place + 1 :]:
                part = _shared(first, second)
                if part and part not in merged and texts.meaning(part, value):
                    merged.pop(first, None)
                    merged.pop(second, None)
                    merged[part] = value
    return merged


def _shared(first: str, second: str) -> str:
    """The longest run of words of more than a character that stands in both phrases; '' without any."""
    spans = words(first)
    runs = [_phrase(first, spans[begin:end]) for begin in range(len(spans)) for end in range(begin + 1, len(spans) + 1)]
    return max((run for run in runs if len(run) > 1 and run in second), key=len, default="")


class _Texts:
    """What questions say beside the values that are known."""

    def __init__(self, examples: Sequence[Example], lexicon: Mapping[str, str]) -> None:
        self._examples = examples
        self._lexicon = lexicon
        self._lowered = [example.question.lower() for example in examples]
        self._standing = Counter[str]()
        for signs, _, _ in (_masked(example, lexicon) for example in examples):
            self._standing.update(set(signs))

    def is_common(self, word: str) -> bool:
        """Whether a word belongs to many questions."""
        return self._standing[word] >= max(_FEW, len(self._examples) // 100)

    def meaning(self, phrase: str, value: str) -> int:
        """In how many questions a phrase means a value; 0 where too many have it for other reasons."""
        others = [known for known, meant in self._lexicon.items() if meant and meant != value and known not in phrase]
        standing = meaning = 0
        for place, question in enumerate(self._lowered):
            if phrase in question:
                for known in others:
                    question = question.replace(known, _VALUE)
                if phrase in question:
                    standing += 1
                    meaning += value in self._examples[place].wanted
        return meaning if meaning >= _SHARE * standing else 0


def _phrase(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text from the first to the last of some words, as link() looks it up."""
    return " ".join(text[spans[0][0] : spans[-1][1]].lower().split())
