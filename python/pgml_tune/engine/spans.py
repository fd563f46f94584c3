"""Where the tokens of a text are; told without loading a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the tokens of a text begin and end, in characters and without the white space around them.

    Neither decreases. Tokens that share a character overlap; white space that is a token of its own has none.
    """

    starts: Sequence[int]
    ends: Sequence[int]
