"""The page of the report, from facts as they could be."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_facts

from pgml_tune.report import figures
from pgml_tune.report.attention import notes
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.report.page import render
from pgml_tune.report.rollouts import spans
from pgml_tune.report.scale import Scale, Window
from pgml_tune.store.facts import Facts, Move

HOSTILE = """</style><script>alert(1)</script>'" onload="x" <img src=https://example.org/x> &amp; \u202e"""
WITHOUT_END = {"meta", "br"}


class Reader(HTMLParser):
    """The elements, attributes and texts of a page; refuses one whose elements are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(name)
        self.attributes += [(key, value or "") for key, value in attributes]
        if name not in WITHOUT_END:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(text)


def poisoned(value: Any, kept: frozenset[str]) -> Any:
    """A value in which every text that a user can choose is hostile."""
    if isinstance(value, str):
        return value if value in kept else HOSTILE
    if isinstance(value, list):
        return [poisoned(item, kept) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: poisoned(getattr(value, name), kept) for name in names})
    return value


# What only our own code writes.
OURS = frozenset(
    {"version", "share", "default", "running", "paused", "promoted", "rolled_back", "pass", "inconclusive"}
)


@pytest.mark.parametrize("facts", [report_facts.empty(), report_facts.busy()], ids=["empty", "busy"])
def test_the_page_is_nested_well_and_asks_for_nothing(facts: Facts) -> None:
    page = Reader(render(facts))
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "url(" not in render(facts) and "@import" not in render(facts)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_no_text_of_a_user_becomes_markup() -> None:
    hostile = render(poisoned(report_facts.busy(), OURS))
    page, plain = Reader(hostile), Reader(render(report_facts.busy()))
    assert set(page.elements) <= set(plain.elements)
    assert {name for name, _ in page.attributes} <= {name for name, _ in plain.attributes}
    assert any(HOSTILE in text for text in page.texts)


def test_every_class_has_a_style() -> None:
    page = render(report_facts.busy())
    style = page.split("<style>")[1].split("</style>")[0]
    used = {name for names in re.findall(r' class="([^"]*)"', page) for name in names.split()}
    assert {name for name in used if f".{name}" not in style} <= {"c6"}


def test_every_colour_is_there_in_light_and_in_dark() -> None:
    style = render(report_facts.empty()).split("<style>")[1].split("</style>")[0]
    light, dark = style.split("prefers-color-scheme: dark")[0], style.split("prefers-color-scheme: dark")[1]
    named = re.compile(r"(--[\w-]+): #")
    assert set(named.findall(light)) == set(named.findall(dark)) != set()


def test_an_empty_database_is_told_so_in_every_section() -> None:
    texts = " ".join(Reader(render(report_facts.empty())).texts)
    assert "Nothing needs your attention." in texts
    for words in ("No model has", "No such call", "No feedback", "No text", "Too few calls", "No job", "Nothing was"):
        assert words in texts


def test_what_is_worst_comes_first() -> None:
    found = notes(report_facts.busy())
    assert [note.level for note in found] == sorted(note.level for note in found)
    assert found[0].words == "1 call of minilm@v3 never ended: the session died."
    assert notes(report_facts.empty()) == []


def test_a_version_has_one_colour_and_those_that_answer_differ() -> None:
    colors = Colors.of(report_facts.busy())
    assert len({colors("minilm", version) for version in ("v1", "v2", "v3")}) == 3
    assert colors("intents", "v1") == "c0"


def test_the_timeline_shows_who_answered_and_the_share_of_a_candidate() -> None:
    facts = report_facts.busy()
    moves = [move for move in facts.moves if move.pointer == "minilm"]
    window = Window(report_facts.SINCE, report_facts.NOW)
    found = list(spans("minilm", moves, Colors.of(facts), window))
    assert [span.label for span in found] == ["v1", "5 %", "25 %", "50 %", "v2", "10 %", "v2", "20 %"]
    assert [span.share for span in found] == [0, 0.05, 0.25, 0.5, 0, 0.1, 0, 0.2]
    assert found[0].since == window.since and found[-1].until == window.until
    assert all(span.until == later.since for span, later in zip(found, found[1:], strict=False))


def test_a_model_that_was_dropped_answers_no_longer() -> None:
    facts = report_facts.busy()
    window = Window(report_facts.SINCE, report_facts.NOW)
    moves = [
        Move("version", "gone", None, "v1", None, "adam", report_facts.SINCE + report_facts.HOUR),
        Move("version", "gone", "v1", None, None, "adam", report_facts.SINCE + 3 * report_facts.HOUR),
    ]
    found = list(spans("gone", moves, Colors.of(facts), window))
    assert [(span.label, span.until - span.since) for span in found] == [("v1", timedelta(hours=2))]


def test_elements_escape_texts_and_attributes_and_keep_markup() -> None:
    assert tag("p", "<", Markup("<br>"), ["&", None], title='"', class_=None) == '<p title="&quot;">&lt;<br>&amp;</p>'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 100, [0, 50, 100]), (0, 25.8, [0, 10, 20]), (11.3, 13.2, [11.5, 12, 12.5, 13]), (5, 5, [5])],
)
def test_ticks_are_round_and_within_the_axis(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high).ticks() == pytest.approx(ticks)


def test_a_place_beyond_the_axis_is_its_end() -> None:
    scale = Scale(0, 10)
    assert [scale.percent(value) for value in (-5, 0, 2.5, 10, float("inf"))] == [0, 0, 25, 100, 100]
    assert Scale(3, 3).percent(3) == 50


@pytest.mark.parametrize("hours", [0.1, 1, 5, 24, 24 * 7, 24 * 30, 24 * 400])
def test_an_axis_of_time_has_a_few_round_moments(hours: float) -> None:
    window = Window(report_facts.NOW - timedelta(hours=hours), report_facts.NOW)
    ticks = list(window.ticks())
    assert 1 <= len(ticks) <= 9
    assert all(window.since <= at <= window.until and at.second == 0 for at, _ in ticks)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.count(12345.4), "12,345"), (figures.percent(0.1234), "12.3 %"), (figures.percent(None), "–"),
        (figures.number(0.0123), "0.012"), (figures.number(1.2), "1.20"), (figures.number(99.97), "100"),
        (figures.number(0), "0"), (figures.milliseconds(999.7), "1.00 s"), (figures.milliseconds(12.34), "12.3 ms"),
        (figures.size(23_400_000), "23.4 MB"), (figures.duration(timedelta(hours=3, minutes=12)), "3 h 12 min"),
        (figures.duration(timedelta(seconds=59)), "59 s"), (figures.days(2.54), "2.5 days"),
        (figures.days(0.5), "12 h"),
    ],
)  # fmt: skip
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


chromium = shutil.which("chromium")


@pytest.mark.skipif(chromium is None, reason="chromium is not installed")
@pytest.mark.slow
def test_a_browser_shows_the_page_without_a_complaint(tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render(report_facts.busy()), encoding="utf-8")
    assert chromium is not None
    run = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--window-size=1180,3000", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert picture.stat().st_size > 50_000, run.stderr
    assert "CONSOLE" not in run.stderr
