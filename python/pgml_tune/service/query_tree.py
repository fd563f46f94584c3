"""Query trees as the server prints them: nodes with fields, whose values are nodes, lists or words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# A backslash takes the meaning from what follows it.
_TOKENS = re.compile(r"[(){}]|(?:\\[\s\S]|[^\s(){}\\])+")


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


def parse(text: str) -> list[Any]:
    """What a tree consists of, outermost first; a loop, since queries nest as deep as whoever writes them likes."""
    tokens = _TOKENS.findall(text)
    root: list[Any] = []
    container: Any = root
    above: list[tuple[Any, str | None]] = []
    field: str | None = None
    place, count = 0, len(tokens)
    try:
        while place < count:
            token = tokens[place]
            place += 1
            if token == "}" or token == ")":
                container, field = above.pop()
                if type(container) is Node:
                    field = None
                continue
            if type(container) is Node and field is None:
                # A word that only looks like a field is the value of the one before it.
                if token[0] != ":" or token[1:] in container.fields:
                    raise TreeError
                field = token[1:]
                continue
            value: Any
            if token == "{":
                value = Node(tokens[place])
                place += 1
            elif token == "(":
                value = []
            else:
                value = token
                if field == "constvalue" and token != "<>":
                    # Its length, and its bytes in brackets.
                    place = tokens.index("]", place) + 1
            if type(container) is Node:
                container.fields[field] = value  # type: ignore[index]
            else:
                container.append(value)
            if token == "{" or token == "(":
                above.append((container, field))
                container = value
            field = None
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
            waiting.extend(item.fields.values())
        elif type(item) is list:
            waiting.extend(item)
