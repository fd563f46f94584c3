"""Turns the texts of a job into tokens, as the engine will when the model serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pgml_tune.engine.batching import chunks
from pgml_tune.engine.tokenizer import TextTokenizer, Tokens
from pgml_tune.jobs.reports import Reporter


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """The tokens of several parts of texts, cut at a limit."""

    parts: list[list[Tokens]]
    limit: int

    def report_cut(self, report: Reporter) -> int:
        """How many texts were cut; said, if there are any."""
        cut = sum(tokens.is_truncated for part in self.parts for tokens in part)
        if cut:
            count = sum(map(len, self.parts))
            limit = f"{self.limit:,} tokens the model reads"
            report.log(f"{cut:,} of {count:,} texts are longer than the {limit} and are cut")
        return cut


def tokenize(file: Path, limit: int, prompt: str, parts: Sequence[Sequence[str]]) -> TokenizedTexts:
    """The tokens of texts with a prompt before each, by the tokenizer in a file."""
    tokenizer = TextTokenizer(file, limit)
    return TokenizedTexts(
        [
            [tokens for chunk in chunks(texts) for tokens in tokenizer.encode([prompt + text for text in chunk])]
            for texts in parts
        ],
        limit,
    )


def tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer.json of a fast tokenizer of transformers, which neither cuts nor pads."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str())
