"""What a model that chats is told to do, and what it says, without what it says round the statement."""

from __future__ import annotations

import re

INSTRUCTION = (
    "Write one PostgreSQL SELECT statement that answers the question about the tables described below."
    " Reply with the statement alone."
)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def statement_in(answer: str) -> str:
    """The first block of code of an answer, or the whole of it; thoughts said aloud are no part of it."""
    said = _THOUGHT.sub("", answer)
    fenced = _FENCED.search(said)
    return (fenced[1] if fenced else said).strip()
