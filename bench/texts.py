"""The texts: of the data sets where DATA_DIR names them, else what every server has."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_SHORT_CHARACTERS = range(30, 120)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sentence pairs with the similarity that people gave them."""

    language: str
    left: list[str]
    right: list[str]
    scores: list[float]


class Texts:
    """Distinct texts, handed out so that no two measurements share one."""

    def __init__(self, connection: psycopg.Connection[Any], data_dir: Path | None) -> None:
        self.data_dir = data_dir
        if data_dir:
            self.source = "retrieval/corpus.jsonl.gz"
            self._all = list(_corpus(data_dir / self.source, 20000))
        else:
            self.source = "pg_description"
            rows = connection.execute("SELECT DISTINCT description FROM pg_description ORDER BY 1")
            self._all = [row[0] for row in rows]
        self._short = (text for text in self._all if len(text) in _SHORT_CHARACTERS and text.isascii())

    def mixed(self, count: int) -> list[str]:
        """The first texts, of any length."""
        return self._all[:count]

    def short(self, count: int) -> list[str]:
        """Sentences that nothing has embedded yet."""
        texts = [text for text, _ in zip(self._short, range(count), strict=False)]
        if len(texts) < count:
            raise SystemExit("bench: there are too few short texts in this server")
        return texts


def _corpus(file: Path, count: int) -> Iterator[str]:
    seen = set()
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if text not in seen:
                seen.add(text)
                yield text
            if len(seen) == count:
                return


def similarity_pairs(data_dir: Path, language: str, part: str = "dev") -> Pairs:
    """STS-B in English (en) or Chinese (zh), the part dev or train."""
    with gzip.open(data_dir / "stsb" / f"stsb_{language}_{part}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return Pairs(
        language,
        [row["sentence1"] for row in rows],
        [row["sentence2"] for row in rows],
        [float(row["score"]) for row in rows],
    )
