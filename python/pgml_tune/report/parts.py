"""Pieces that the sections of the page share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgml_tune.report.markup import Markup, tag


def section(title: str, purpose: str, *content: object) -> Markup:
    """A part of the page under its title."""
    return tag("section", tag("h2", title), tag("p", purpose, class_="purpose"), *content)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table that turns into cards on a phone; a column whose title begins with # is of numbers."""
    kinds = [(column.lstrip("#"), "number" if column.startswith("#") else None) for column in columns]
    head = [tag("th", title, class_=kind, scope="col") for title, kind in kinds]
    body = [tag("tr", *map(_cell, row, kinds)) for row in rows]
    return tag("div", tag("table", tag("thead", tag("tr", head)), tag("tbody", body)), class_="table")


def _cell(content: object, column: tuple[str, str | None]) -> Markup:
    title, kind = column
    return tag("td", content, class_=kind, data_title=title)


def chip(words: str, level: str) -> Markup:
    """A word in a coloured frame: good, bad, warn or plain."""
    return tag("span", words, class_=f"chip {level}")


def key(words: str, color: str) -> Markup:
    """A name with the colour that it has in the charts."""
    return tag("span", tag("i", class_=f"{color} key"), words, class_="named")


def legend(*keys: Markup) -> Markup:
    return tag("div", *keys, class_="legend")


def empty(words: str) -> Markup:
    """What stands where there is nothing to show."""
    return tag("p", words, class_="empty")
