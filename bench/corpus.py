"""The retrieval corpus: documents, the questions asked of them, and how good a ranking is."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

MANUAL = ("pgdoc", "en")
_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Document:
    """A paragraph or a title; its scope is what questions are asked of."""

    document_id: str
    scope: tuple[str, str]  # source and language
    text: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents in a table of the same name that is kept embedded."""

    name: str
    documents: list[Document]


@dataclass(frozen=True, slots=True)
class Question:
    """A query of a judged set, with the grades of the documents that answer it."""

    set_name: str
    text: str
    scope: tuple[str, str]
    grades: dict[str, int]


class Corpus:
    """Everything in the folder `retrieval` of the data sets."""

    def __init__(self, folder: Path) -> None:
        self.documents = [
            Document(row["id"], (row["source"], row["lang"]), row["text"]) for row in _rows(folder / "corpus.jsonl.gz")
        ]
        self.sizes = Counter(document.scope for document in self.documents)
        grades: dict[str, dict[str, int]] = defaultdict(dict)
        with gzip.open(folder / "qrels_dev.tsv.gz", "rt", encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                grades[row["query_id"]][row["doc_id"]] = int(row["grade"])
        self.questions = [
            Question(row["set"], row["text"], (row["scope"][0], row["doc_lang"]), grades[row["id"]])
            for row in _rows(folder / "queries_dev.jsonl.gz")
        ]

    def manual(self, count: int) -> list[Document]:
        """Paragraphs of the English PostgreSQL manual, in the order of the file, which is random."""
        return [document for document in self.documents if document.scope == MANUAL][:count]

    def mixture(self, count: int) -> list[Document]:
        """Documents in the order of the file, of scopes that are whole where possible: the smallest come first."""
        sizes = sorted(self.sizes, key=self.sizes.__getitem__)
        chosen = sorted(self.documents, key=lambda document: sizes.index(document.scope))[:count]
        wanted = {document.document_id for document in chosen}
        return [document for document in self.documents if document.document_id in wanted]

    def whole_scopes(self, documents: Sequence[Document]) -> set[tuple[str, str]]:
        """The scopes of which no document is missing."""
        found = Counter(document.scope for document in documents)
        return {scope for scope, size in found.items() if size == self.sizes[scope]}

    def asked(self, scopes: set[tuple[str, str]], count: int) -> dict[str, list[Question]]:
        """At most so many questions of each set that is asked of one of the scopes, spread over the set."""
        sets: dict[str, list[Question]] = defaultdict(list)
        for question in self.questions:
            if question.scope in scopes:
                sets[question.set_name].append(question)
        return {name: _spread(questions, count) for name, questions in sets.items()}

    def set_size(self, set_name: str) -> int:
        return sum(question.set_name == set_name for question in self.questions)


def training_pairs(folder: Path, kind: str) -> list[tuple[str, str]]:
    """What is asked and the document that answers it, of one type of the pairs made for training."""
    return [(row["query"], row["doc"]) for row in _rows(folder / "train_pairs.jsonl.gz") if row["type"] == kind]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _spread(questions: list[Question], count: int) -> list[Question]:
    count = min(count, len(questions))
    return [questions[number * len(questions) // count] for number in range(count)]


def ndcg(ranking: Sequence[str], grades: Mapping[str, int]) -> float:
    """nDCG@10 in points, with gain 2^grade - 1."""
    best = _gain(sorted(grades.values(), reverse=True))
    return 100 * _gain([grades.get(document_id, 0) for document_id in ranking]) / best


def _gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / log2(place + 1) for place, grade in enumerate(grades[:_DEPTH], 1))
