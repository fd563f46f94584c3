"""HTML and SVG in which no text can become markup by accident."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_WITHOUT_END = frozenset({"br", "meta"})


class Markup(str):
    """Text that is markup already; every other text is escaped when it becomes part of an element."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element: attributes that are None are left out, `class_` is class and `text_anchor` is text-anchor."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _WITHOUT_END else f"</{name}>"
    return Markup(f"<{name}{given}>{join(children)}{end}")


def join(children: Iterable[object]) -> Markup:
    """The children one after another; lists are taken apart and None is left out."""
    return Markup("".join(_markup(child) for child in children if child is not None))


def _markup(child: object) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return escape(str(child))
