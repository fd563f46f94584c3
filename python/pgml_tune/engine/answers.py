"""What a model that chats says, without what it says round the statement."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def statement_in(answer: str) -> str:
    """The first block of code of an answer, or the whole of it; thoughts said aloud are no part of it."""
    said = _THOUGHT.sub("", answer)
    fenced = _FENCED.search(said)
    return (fenced[1] if fenced else said).strip()
