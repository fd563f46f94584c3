"""Charts in SVG. Places along an axis are percentages: charts are as wide as the screen, letters stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgml_tune.report.markup import Markup, join, tag
from pgml_tune.report.scale import Scale, Window, from_zero

Write = Callable[[float], str]  # how a figure is written
_HEIGHT = 170  # of lines over time
_LANE = 34  # height of a lane of a timeline
_ROW = 28  # height of an interval


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time; `color` is a class of the style sheet."""

    label: str
    color: str
    points: Sequence[tuple[datetime, float]]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the interval that it lies in; None where nothing is known."""

    label: str
    color: str
    value: float | None
    bounds: tuple[float, float] | None
    words: str  # what stands beside it


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which one version answered, or two of them a share each."""

    since: datetime
    until: datetime
    label: str
    words: str
    color: str
    candidate_color: str | None = None
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that something happened at."""

    at: datetime
    color: str
    words: str


def _svg(height: int, *children: object, label: str) -> Markup:
    drawing = tag("svg", *children, width="100%", height=height, role="img", aria_label=label)
    return tag("div", drawing, class_="plot")


def _time_axis(window: Window, height: int) -> list[Markup]:
    return [
        join(
            (
                tag("line", x1=f"{window.percent(at)}%", x2=f"{window.percent(at)}%", y1=0, y2=height, class_="grid"),
                tag("text", words, x=f"{window.percent(at)}%", y=height + 18, text_anchor="middle"),
            )
        )
        for at, words in window.ticks()
    ]


def lines(series: Sequence[Line], window: Window, write: Write, write_tick: Write, label: str) -> Markup:
    """Lines over time on an axis that begins at 0."""
    height = _HEIGHT
    scale = from_zero([value for line in series for _, value in line.points])
    rows = [(tick, height - scale.percent(tick) * height / 100) for tick in scale.ticks(3)]
    grid = [
        join(
            (
                tag("line", x1=0, x2="100%", y1=y, y2=y, class_="axis" if tick == 0 else "grid"),
                tag("text", write_tick(tick), x=-8, y=y + 4, text_anchor="end"),
            )
        )
        for tick, y in rows
    ]
    # Only what has no letters is stretched to the width of the screen.
    paths = tag(
        "svg",
        [_path(line, window, scale) for line in series],
        width="100%", height=height, viewBox="0 0 100 100", preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip
    ends = [
        tag(
            "circle",
            tag("title", f"{line.label}: {write(value)} at {at:%H:%M on %d %b}"),
            cx=f"{window.percent(at)}%", cy=height - scale.percent(value) * height / 100, r=2.5,
            class_=f"{line.color} dot",
        )
        for line in series
        for at, value in line.points
    ]  # fmt: skip
    return _svg(height + 26, _time_axis(window, height), grid, paths, ends, label=label)


def _path(line: Line, window: Window, scale: Scale) -> Markup:
    places = " ".join(f"{window.percent(at)},{100 - scale.percent(value):.2f}" for at, value in line.points)
    dashes = " dashed" if line.is_dashed else ""
    return tag("polyline", points=places, class_=f"{line.color} line{dashes}")


def intervals(rows: Sequence[Interval], scale: Scale, marks: Sequence[tuple[float, str, str]], label: str) -> Markup:
    """Figures with their intervals on one axis, whose `marks` are (value, words, class of the line)."""
    places = [(f"{scale.percent(value)}%", words, color) for value, words, color in marks]
    axis = tag(
        "svg",
        [tag("text", words, x=place, y=12, text_anchor="middle") for place, words, _ in places],
        width="100%", height=16, aria_hidden="true",
    )  # fmt: skip
    grid = [tag("line", x1=place, x2=place, y1=0, y2="100%", class_=color) for place, _, color in places]
    body = [
        tag(
            "div",
            tag("span", tag("i", class_=f"{row.color} key"), row.label, class_="name"),
            _whisker(row, scale, grid),
            tag("span", row.words, class_="words"),
            class_="row",
        )
        for row in rows
    ]
    foot = tag("div", tag("span"), axis, tag("span"), class_="row foot")
    return tag("div", body, foot, class_="intervals", role="group", aria_label=label)


def _whisker(row: Interval, scale: Scale, grid: Sequence[Markup]) -> Markup:
    words, drawn = f"{row.label}: {row.words}", []
    if row.bounds is not None:
        low, high = (f"{scale.percent(bound)}%" for bound in row.bounds)
        drawn.append(tag("line", x1=low, x2=high, y1="50%", y2="50%", class_=f"{row.color} whisker"))
    if row.value is not None:
        place, title = f"{scale.percent(row.value)}%", tag("title", words)
        if scale.low <= row.value <= scale.high:
            drawn.append(tag("circle", title, cx=place, cy="50%", r=5, class_=f"{row.color} dot"))
        else:
            arrow = "◂" if row.value < scale.low else "▸"
            drawn.append(tag("text", arrow, title, x=place, y="50%", dy=".35em", class_=f"{row.color} beyond"))
    return tag("svg", grid, drawn, width="100%", height=_ROW, role="img", aria_label=words)


def ticks(scale: Scale, write: Write) -> list[tuple[float, str, str]]:
    """Round numbers as the marks of an axis."""
    return [(tick, write(tick), "grid") for tick in scale.ticks(4)]


def shares(parts: Sequence[tuple[str, str, float]], label: str) -> Markup:
    """A bar cut into parts: (color, words, share of the whole)."""
    drawn, start = [], 0.0
    for color, words, share in parts:
        width = round(100 * share, 2)
        drawn.append(
            tag("rect", tag("title", words), x=f"{start}%", width=f"{width}%", height=14, class_=f"{color} part")
        )
        start += width
    return tag("svg", drawn, width="100%", height=14, class_="bar", role="img", aria_label=label)


def timeline(lanes: Sequence[tuple[str, Sequence[Span], Sequence[Mark]]], window: Window, label: str) -> Markup:
    """Who answered when: a lane for each name, with what happened above it."""
    drawn, top = [], 4
    for name, spans, marks in lanes:
        drawn.append(tag("text", name, x=0, y=top + 10, class_="lane"))
        top += 30
        drawn += [_span(span, window, top) for span in spans]
        drawn += [_mark(mark, window, top) for mark in marks]
        top += _LANE + 14
    return _svg(top + 22, _time_axis(window, top), drawn, label=label)


def _span(span: Span, window: Window, top: int) -> Markup:
    start, end = window.percent(span.since), window.percent(span.until)
    place = {"x": f"{start}%", "width": f"{round(end - start, 3)}%"}
    band = round(_LANE * span.share, 1)
    parts = [tag("rect", tag("title", span.words), **place, y=top, height=_LANE, class_=f"{span.color} span")]
    if span.candidate_color:
        color = f"{span.candidate_color} part"
        parts.append(tag("rect", tag("title", span.words), **place, y=top + _LANE - band, height=band, class_=color))
    if end - start > 4:  # on a phone, what does not fit is cut at the end of the span
        words = tag("text", span.label, x=8, y=21, class_="inside")
        parts.append(tag("svg", words, **place, y=top, height=_LANE, class_="clip"))
    return join(parts)


def _mark(mark: Mark, window: Window, top: int) -> Markup:
    place = f"{window.percent(mark.at)}%"
    return join(
        (
            tag("line", x1=place, x2=place, y1=top - 6, y2=top + _LANE, class_=f"{mark.color} mark"),
            tag("circle", tag("title", mark.words), cx=place, cy=top - 8, r=4, class_=f"{mark.color} dot"),
        )
    )
