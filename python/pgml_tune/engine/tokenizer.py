"""Texts to token numbers, by the tokenizer of an artifact.

The library raises bare `Exception` for whatever it dislikes, so this is the one module that catches that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pgml_tune.errors import ArtifactDamaged

LONG_TEXT = 32  # characters per token of the model's length: what is longer is taken in parts


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token numbers of a text, special tokens included, and whether it had more than the model takes."""

    ids: list[int]
    is_truncated: bool


class TextTokenizer:
    """A tokenizer that cuts at the length of its model."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise ArtifactDamaged("the tokenizer of the model cannot be loaded", detail=f"{error}.") from None
        self._tokenizer.no_padding()
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(False)
        if max_tokens <= self._special_tokens:
            raise ArtifactDamaged(
                f"the model takes {max_tokens} tokens, its tokenizer adds {self._special_tokens} to each text"
            )
        self._max_tokens = max_tokens
        self._tokenizer.enable_truncation(max_tokens)
        # A word that is cut can turn from one unknown token into one per character, up to this length.
        self._margin = max(max_tokens, getattr(self._tokenizer.model, "max_input_chars_per_word", 0))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, cut at the length of the model."""
        longest = LONG_TEXT * self._max_tokens
        short = iter(self._encode([text for text in texts if len(text) <= longest]))
        return [
            _tokens(next(short)) if len(text) <= longest else _tokens(self._encode_long(text, longest))
            for text in texts
        ]

    def count(self, text: str) -> int:
        """Tokens of a text with its special tokens, nothing cut."""
        self._tokenizer.no_truncation()
        try:
            return len(self._encode([text])[0])
        finally:
            self._tokenizer.enable_truncation(self._max_tokens)

    def _encode_long(self, text: str, characters: int) -> Any:
        """The encoding of the shortest beginning of a text that is cut where the whole text would be.

        A tokenizer looks ahead no further than a word, so tokens that far before the end are those of the whole text.
        """
        while characters < len(text):
            encoding = self._encode([text[:characters]])[0]
            parts = (encoding, *encoding.overflowing)
            if sum(len(part) - self._special_tokens for part in parts) >= self._max_tokens + self._margin:
                return encoding
            characters *= 2
        return self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        try:
            encodings: list[Any] = self._tokenizer.encode_batch_fast(texts)
        except Exception as error:
            raise ArtifactDamaged("the tokenizer of the model cannot take the input", detail=f"{error}.") from None
        return encodings


def _tokens(encoding: Any) -> Tokens:
    return Tokens(encoding.ids, bool(encoding.overflowing))
