"""Query trees as the server prints them: nodes with fields, whose values are nodes, lists or words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# A backslash takes the meaning from what follows it; other blanks than these are parts of words.
_TOKENS = re.compile(r"[(){}]|(?:\\[\s\S]|[^ \n\t(){}\\])+")
_ESCAPED = re.compile(r"\\([\s\S])")
_NOTHING = "<>"
_BYTES = "constbytes"  # which the server does not print
_MOST_BYTES = 10  # of a value that is kept: a number with its brackets


class TreeError(Exception):
    """The text is no tree of the form that is known."""


class Node:
    """One node: what it is, and its fields in order."""

    __slots__ = ("fields", "tag")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.fields: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)

    def items(self, name: str) -> list[Any]:
        """The items of a list, none where there is no list."""
        value = self.fields.get(name, _NOTHING)
        if type(value) is list:
            return value
        if value != _NOTHING:
            raise TreeError
        return []

    def numbers(self, name: str) -> list[int]:
        """The number of a field or those of its list, which begins with a letter that says of what."""
        value = self.fields.get(name, _NOTHING)
        words = value[1:] if type(value) is list else [] if value == _NOTHING else [value]
        try:
            return [int(word) for word in words]
        except (TypeError, ValueError):
            raise TreeError from None

    def is_empty(self, name: str) -> bool:
        """Whether the field is there and holds nothing."""
        return bool(self.fields.get(name) == _NOTHING)


def parse(text: str) -> list[Any]:
    """What a tree consists of, outermost first; a loop, since queries nest as deep as whoever writes them likes."""
    tokens = _TOKENS.findall(text)
    root: list[Any] = []
    container: Any = root
    above: list[Any] = []
    field: str | None = None
    place, count = 0, len(tokens)
    try:
        while place < count:
            token = tokens[place]
            place += 1
            if token == "}" or token == ")":
                if field is not None or (type(container) is Node) != (token == "}"):
                    raise TreeError
                container = above.pop()
                continue
            is_node = type(container) is Node
            if is_node and field is None:
                # A word that only looks like a field is the value of the one before it.
                if token[0] != ":" or token[1:] in container.fields:
                    raise TreeError
                field = token[1:]
                continue
            value: Any = token
            if token == "{":
                value = Node(tokens[place])
                place += 1
            elif token == "(":
                value = []
            elif field == "constvalue" and token != _NOTHING:
                # Its length is the value; its bytes, which are printed as signed, follow in brackets.
                if tokens[place] != "[":
                    raise TreeError
                end = tokens.index("]", place)
                if end - place <= _MOST_BYTES:
                    container.fields[_BYTES] = [int(byte) & 255 for byte in tokens[place + 1 : end]]
                place = end + 1
            if is_node:
                container.fields[field] = value
                field = None
            else:
                container.append(value)
            if value is not token:
                above.append(container)
                container = value
    except (IndexError, ValueError):
        raise TreeError from None
    if above:
        raise TreeError
    return root


def nodes(tree: Any) -> Iterator[Node]:
    """All nodes of a tree, each before those inside it."""
    waiting: list[Any] = [tree]
    while waiting:
        item = waiting.pop()
        if type(item) is Node:
            yield item
            waiting.extend(value for name, value in item.fields.items() if type(value) is not str and name != _BYTES)
        elif type(item) is list:
            waiting.extend(value for value in item if type(value) is not str)


def name(word: str) -> str:
    """A name as it is, without the signs that keep it one word."""
    return "" if word in ('""', _NOTHING) else _ESCAPED.sub(r"\1", word)
