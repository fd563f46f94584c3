"""The page as a whole."""

from __future__ import annotations

from pathlib import Path

from pgml_tune.report import figures, operations, rollouts, versions
from pgml_tune.report.attention import Note, notes
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.report.scale import Window
from pgml_tune.store.facts import Facts

# The page asks for nothing: no script runs in it, and nothing is loaded.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(facts: Facts) -> str:
    """One HTML document that stands for itself."""
    place = facts.place
    colors, window = Colors.of(facts), Window(place.since, place.until)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{place.database}: models"),
        tag("style", Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        _header(facts),
        tag(
            "main",
            _tiles(facts),
            _attention(notes(facts)),
            rollouts.section(facts, colors, window),
            versions.calls_section(facts, colors),
            versions.latency_section(facts, colors, window),
            versions.quality_section(facts, colors),
            operations.cache_section(facts, colors),
            operations.drift_section(facts),
            operations.jobs_section(facts),
            operations.history_section(facts),
        ),
        tag("footer", f"Written by pgml-tune report, role {place.role}. Times are in UTC."),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(facts: Facts) -> Markup:
    place = facts.place
    return tag(
        "header",
        tag("h1", "Models of ", tag("strong", place.database)),
        tag(
            "p",
            f"{figures.moment(place.since)} to {figures.moment(place.until)} {place.until.year} · "
            f"pgml_tune {place.extension_version} on PostgreSQL {place.server_version}",
        ),
    )


def _tiles(facts: Facts) -> Markup:
    calls = sum(usage.calls for usage in facts.usage)
    failed = sum(usage.errors + usage.fallbacks + usage.lost for usage in facts.usage)
    texts = sum(cache.texts for cache in facts.caches)
    hits = sum(cache.session_hits + cache.table_hits for cache in facts.caches)
    waiting = sum(facts.job_counts.get(state, 0) for state in ("queued", "running"))
    tiles = (
        ("calls", figures.count(calls)),
        ("failed", figures.percent(failed / calls, 2) if calls else figures.NONE),
        ("texts from a cache", figures.percent(hits / texts) if texts else figures.NONE),
        ("rollouts that run", figures.count(sum(rollout.ended_at is None for rollout in facts.rollouts))),
        ("jobs that wait or run", figures.count(waiting)),
    )
    return tag(
        "dl", [tag("div", tag("dd", value), tag("dt", name)) for name, value in tiles], class_="tiles"
    )


def _attention(found: list[Note]) -> Markup:
    if not found:
        return tag("p", "Nothing needs your attention.", class_="note good")
    items = [
        tag("li", tag("span", note.words), tag("code", note.statement), class_=f"note {note.level}") for note in found
    ]
    return tag("ul", items, class_="notes", aria_label="What needs attention")
