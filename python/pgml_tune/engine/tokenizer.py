"""Texts to token numbers, by the tokenizer of an artifact.

The library raises bare `Exception` for whatever it dislikes, so this is the one module that catches that.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pgml_tune.engine.spans import Spans
from pgml_tune.errors import ArtifactDamaged

LONG_TEXT = 32  # characters per token of the model's length: what is longer is taken in parts
PIECE_CHARACTERS = 1 << 16  # located at once: an encoding takes some hundred bytes per token
_UNKNOWN = "<unk>"  # as SentencePiece calls it
_IDEOGRAPHS = "鑫犇骉"
_PIECE_ENDS = (re.compile(r"(?<=\S)\s"), re.compile(r"(?<=\W)(?=\w)"))  # a space belongs to the word behind it


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token numbers of a text, special tokens included, and whether it had more than the model takes."""

    ids: list[int]
    unknown: int  # of them stand for what the vocabulary has no word for
    is_truncated: bool


class TextTokenizer:
    """A tokenizer that cuts at the length of its model."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise ArtifactDamaged("the tokenizer of the model cannot be loaded", detail=f"{error}.") from None
        self._tokenizer.no_padding()
        self._special_tokens: int = self._tokenizer.num_special_tokens_to_add(False)
        if max_tokens <= self._special_tokens:
            raise ArtifactDamaged(
                f"the model takes {max_tokens} tokens, its tokenizer adds {self._special_tokens} to each text"
            )
        self._max_tokens = max_tokens
        self._tokenizer.enable_truncation(max_tokens)
        # A model of pieces of words does not tell its own; None is the number of no token.
        unknown = getattr(self._tokenizer.model, "unk_token", None) or _UNKNOWN
        self._unknown: int | None = self._tokenizer.token_to_id(unknown)
        # A word that is cut can turn from one unknown token into one per character, up to this length.
        self._margin = max(max_tokens, getattr(self._tokenizer.model, "max_input_chars_per_word", 0))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, cut at the length of the model."""
        longest = LONG_TEXT * self._max_tokens
        short = iter(self._encode([text for text in texts if len(text) <= longest]))
        return [
            self._tokens(next(short) if len(text) <= longest else self._encode_long(text, longest)) for text in texts
        ]

    def _tokens(self, encoding: Any) -> Tokens:
        ids = encoding.ids
        return Tokens(ids, ids.count(self._unknown), bool(encoding.overflowing))

    def count_unknown(self, ids: Sequence[int]) -> int:
        """How many tokens stand for what the vocabulary has no word for."""
        return 0 if self._unknown is None else list(ids).count(self._unknown)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The tokens of these numbers as the vocabulary writes them."""
        return [self._tokenizer.id_to_token(number) or _UNKNOWN for number in ids]

    def text(self, pieces: Sequence[str]) -> str:
        """The text of tokens without the special ones; what this vocabulary does not have is left out."""
        numbers = map(self._tokenizer.token_to_id, pieces)
        try:
            text: str = self._tokenizer.decode([number for number in numbers if number is not None])
        except Exception as error:
            raise ArtifactDamaged("the tokenizer cannot write what the model says", detail=f"{error}.") from None
        return text.strip()

    def plain(self, text: str) -> list[int]:
        """The numbers of a text that nobody has checked: nothing cut, and no special token, whatever it says."""
        return self._whole(text, True)

    def marked(self, text: str) -> list[int]:
        """The numbers of a text of our own, in which special tokens are what they say."""
        return self._whole(text, False)

    def _whole(self, text: str, has_no_special: bool) -> list[int]:
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = has_no_special
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:
            raise _cannot_take(error) from None
        finally:
            self._tokenizer.encode_special_tokens = False
            self._tokenizer.enable_truncation(self._max_tokens)
        return ids

    def count(self, text: str) -> int:
        """Tokens of a text with its special tokens, nothing cut."""
        self._tokenizer.no_truncation()
        try:
            return len(self._encode([text])[0])
        finally:
            self._tokenizer.enable_truncation(self._max_tokens)

    def longest_text(self, prompt: str) -> int:
        """The most tokens of a part of a text that fit behind a prompt, the special tokens counted."""
        return self._max_tokens - self._special_tokens - self._size(prompt) - self._tokens_of_a_beginning()

    def _tokens_of_a_beginning(self) -> int:
        """Tokens that a tokenizer sets before whatever a text begins with, where no word begins."""
        return max(0, *(self._size("。") + self._size(after) - self._size("。" + after) for after in _IDEOGRAPHS))

    def _size(self, text: str) -> int:
        return len(self._locate(text))

    def spans(self, text: str, checkpoint: Callable[[], None] = lambda: None) -> Spans:
        """Where the tokens of a text are, nothing cut and none added; `checkpoint` runs between parts of a long one."""
        starts, ends = array("i"), array("i")
        for first, piece in _pieces(text):
            if first:
                checkpoint()
            for start, end in self._locate(piece):
                while start < end and piece[start].isspace():
                    start += 1
                while start < end and piece[end - 1].isspace():
                    end -= 1
                starts.append(max(first + start, starts[-1] if starts else 0))
                ends.append(max(first + end, starts[-1], ends[-1] if ends else 0))
        return Spans(starts, ends)

    def _locate(self, text: str) -> list[tuple[int, int]]:
        self._tokenizer.no_truncation()
        try:
            offsets: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        except Exception as error:
            raise _cannot_take(error) from None
        finally:
            self._tokenizer.enable_truncation(self._max_tokens)
        return offsets

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
            raise _cannot_take(error) from None
        return encodings


def _cannot_take(error: Exception) -> ArtifactDamaged:
    return ArtifactDamaged("the tokenizer of the model cannot take the input", detail=f"{error}.")


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The parts of a text with the place of each; a part ends with a word if one ends in its last half."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        places = (pattern.finditer(text, start + PIECE_CHARACTERS // 2, end) for pattern in _PIECE_ENDS)
        end = next((found[-1].start() for found in map(list, places) if found), end)
        yield start, text[start:end]
        start = end
    yield start, text[start:]
