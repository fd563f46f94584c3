"""The parts of the page on what the versions do: calls, latency, quality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pgml_tune.report import chart, figures, parts
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.report.scale import Scale, Window, around
from pgml_tune.store.facts import Facts, Latency, Moment, Quality, Usage

_SCORES = Scale(0.0, 1.0)


def latency_section(facts: Facts, colors: Colors, window: Window) -> Markup:
    groups = groupby(facts.latencies, key=lambda latency: (latency.model, latency.task))
    figures_of_groups = [_latency(list(rows), facts.course, colors, window) for _, rows in groups]
    return parts.section(
        "Latency",
        "Of calls whose texts the model computed, once it was loaded. The interval (95 %) is of the geometric mean.",
        figures_of_groups or parts.empty("No such call was logged in this time."),
    )


def _latency(rows: Sequence[Latency], course: Sequence[Moment], colors: Colors, window: Window) -> Markup:
    model, task = rows[0].model, rows[0].task
    return tag(
        "article",
        tag("h3", f"{model}: {task}"),
        parts.legend(
            *(parts.key(row.version, colors(model, row.version)) for row in rows),
            tag("span", "p50 ──  p95 ╌╌", class_="quiet"),
        ),
        chart.lines(
            [line for row in rows for line in _lines(row, course, colors)],
            window, figures.milliseconds, figures.tick_milliseconds, f"p50 and p95 of {model}, task {task}, over time",
        ),
        _means(rows, colors) if len(rows) > 1 else None,
        parts.table(
            ("Version", "#Calls", "#Mean", "#p50", "#p95", "#p99"),
            [
                (
                    parts.key(row.version, colors(model, row.version)),
                    figures.count(row.calls),
                    *map(figures.milliseconds, (row.mean, row.p50, row.p95, row.p99)),
                )
                for row in rows
            ],
        ),
        class_="card",
    )  # fmt: skip


def _means(rows: Sequence[Latency], colors: Colors) -> Markup:
    scale = around([place for row in rows for place in (row.low, row.high)])
    return chart.intervals(
        [
            chart.Interval(
                row.version, colors(row.model, row.version), row.mean, (row.low, row.high),
                f"{figures.milliseconds(row.mean)} ({figures.number(row.low)} to {figures.number(row.high)})",
            )
            for row in rows
        ],
        scale, chart.ticks(scale, figures.tick_milliseconds), "Mean latency of each version",
    )  # fmt: skip


def _lines(row: Latency, course: Sequence[Moment], colors: Colors) -> list[chart.Line]:
    place = (row.model, row.task, row.version)
    own = [moment for moment in course if (moment.model, moment.task, moment.version) == place]
    color = colors(row.model, row.version)
    return [
        chart.Line(f"{row.version} p50", color, [(moment.at, moment.p50) for moment in own]),
        chart.Line(f"{row.version} p95", color, [(moment.at, moment.p95) for moment in own], is_dashed=True),
    ]


def calls_section(facts: Facts, colors: Colors) -> Markup:
    rows = sorted(facts.usage, key=lambda usage: -usage.calls)
    return parts.section(
        "Calls and errors",
        "Estimated from the log. After a fallback the caller had an answer, of the version that serves.",
        parts.table(
            ("Version", "#Calls", "#Errors", "#Fallbacks", "#Lost", "Failed"),
            [
                (
                    parts.key(f"{row.model}@{row.version}", colors(row.model, row.version)),
                    *map(figures.count, (row.calls, row.errors, row.fallbacks, row.lost)),
                    _failed(row),
                )
                for row in rows
            ],
        )
        if rows
        else parts.empty("No call was logged in this time."),
    )


def _failed(usage: Usage) -> Markup:
    share = (usage.errors + usage.fallbacks + usage.lost) / usage.calls
    return parts.chip(figures.percent(share, 2), "bad" if share > 0.01 else "plain" if share else "good")


def quality_section(facts: Facts, colors: Colors) -> Markup:
    groups = groupby(facts.qualities, key=lambda quality: (quality.model, quality.metric))
    return parts.section(
        "Quality",
        "What record_feedback() has brought, with intervals (95 %).",
        [_quality(list(rows), colors) for _, rows in groups] or parts.empty("No feedback was given in this time."),
    )


def _quality(rows: Sequence[Quality], colors: Colors) -> Markup:
    return tag(
        "article",
        tag("h3", f"{rows[0].model}: {rows[0].metric}"),
        chart.intervals(
            [
                chart.Interval(
                    row.version, colors(row.model, row.version), row.value, (row.interval_low, row.interval_high),
                    f"{row.value:.2f} ({row.interval_low:.2f} to {row.interval_high:.2f}), n = {figures.count(row.n)}",
                )
                for row in rows
            ],
            _SCORES, chart.ticks(_SCORES, figures.tick), f"{rows[0].metric} of each version",
        ),
        class_="card",
    )  # fmt: skip
