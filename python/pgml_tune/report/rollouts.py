"""The part of the page on rollouts: who answered when, how those that run are judged, how the others ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from math import inf
from typing import Any

from pgml_tune.report import chart, figures, parts
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.report.scale import Scale, Window
from pgml_tune.store.facts import Facts, Move, Rollout

LEVELS = {
    "promoted": "good", "pass": "good", "running": "plain", "inconclusive": "plain", "no_data": "plain",
    "paused": "warn", "rolled_back": "bad", "fail": "bad", "mismatch": "bad",
}  # fmt: skip
_UNJUDGED: dict[str, Any] = {"outcome": "no_data", "words": "Nobody has judged it yet.", "findings": []}
_SHARE = re.compile(r"(?P<version>\S+) (?P<percent>[\d.]+) %")  # as the history tells it
_HARM = Scale(-1.5, 2.5)  # 0: as the serving version; 1: as bad as is allowed


def section(facts: Facts, colors: Colors, window: Window) -> Markup:
    lanes = [_lane(model, moves, colors, window) for model, moves in _by_model(facts.moves)]
    running = [rollout for rollout in facts.rollouts if rollout.ended_at is None]
    ended = [rollout for rollout in facts.rollouts if rollout.ended_at is not None]
    return parts.section(
        "Rollouts",
        "Which version answered when; the height of a second colour is the share of the traffic that a candidate had.",
        chart.timeline(lanes, window, "Versions over time") if lanes else parts.empty("No model has served yet."),
        [_card(rollout, colors) for rollout in running],
        _ended(ended, colors) if ended else None,
    )


def _by_model(moves: list[Move]) -> Iterator[tuple[str, list[Move]]]:
    models = sorted({move.pointer for move in moves if move.kind == "version"})
    for model in models:
        yield model, [move for move in moves if move.pointer == model and move.kind in ("version", "share")]


def _lane(
    model: str, moves: list[Move], colors: Colors, window: Window
) -> tuple[str, list[chart.Span], list[chart.Mark]]:
    seen = [move for move in moves if move.changed_at >= window.since]
    return model, list(spans(model, moves, colors, window)), [_mark(move) for move in seen if move.from_target]


def _mark(move: Move) -> chart.Mark:
    words = f"{figures.moment(move.changed_at)}: {move.from_target} → {move.to_target or 'dropped'}, {move.changed_by}"
    color = "quiet" if move.kind == "share" and _SHARE.fullmatch(move.to_target or "") else "strong"
    return chart.Mark(move.changed_at, color, f"{words}: {move.reason}" if move.reason else words)


def spans(model: str, moves: list[Move], colors: Colors, window: Window) -> Iterator[chart.Span]:
    """The stretches of the window between the moves of a model, and who answered in each."""
    serving, candidate, share = None, None, 0.0
    since = window.since
    for move in [*moves, None]:
        until = window.until if move is None else max(move.changed_at, window.since)
        if serving and until > since:
            yield _span(model, (serving, candidate, share), since, until, colors)
        since = until
        if move is None:
            return
        found = _SHARE.fullmatch(move.to_target or "") if move.kind == "share" else None
        candidate, share = (found["version"], float(found["percent"]) / 100) if found else (None, 0.0)
        if move.kind == "version":
            serving = move.to_target


def _span(
    model: str, answering: tuple[str, str | None, float], since: datetime, until: datetime, colors: Colors
) -> chart.Span:
    serving, candidate, share = answering
    if candidate is None:
        return chart.Span(since, until, serving, f"{serving} since {figures.moment(since)}", colors(model, serving))
    percent = figures.percent(share, 0)
    words = f"{candidate} has {percent}, {serving} the rest, since {figures.moment(since)}"
    return chart.Span(since, until, percent, words, colors(model, serving), colors(model, candidate), share)


def _card(rollout: Rollout, colors: Colors) -> Markup:
    verdict = rollout.verdict or _UNJUDGED
    outcome = str(verdict["outcome"])
    return tag(
        "article",
        tag(
            "h3",
            f"{rollout.model}: ",
            parts.key(rollout.from_version, colors(rollout.model, rollout.from_version)),
            " → ",
            parts.key(rollout.to_version, colors(rollout.model, rollout.to_version)),
            parts.chip(rollout.state, LEVELS[rollout.state]),
            parts.chip(outcome.replace("_", " "), LEVELS[outcome]),
        ),
        _steps(rollout),
        _findings(verdict["findings"]) if verdict["findings"] else tag("p", verdict["words"]),
        tag(
            "p",
            f"Began {figures.moment(rollout.created_at)} · last judged {figures.moment(rollout.looked_at)} · "
            f"expires {figures.moment(rollout.expires_at)} · every number: ",
            tag("code", f"SELECT rollout_explain({rollout.rollout_id})"),
            class_="quiet",
        ),
        class_="card",
    )


def _steps(rollout: Rollout) -> Markup:
    plan = [step / 10000 for step in rollout.plan or []] or [rollout.share]
    return tag(
        "ol",
        [tag("li", figures.percent(step, 0), class_=_step_class(step, rollout.share)) for step in plan],
        class_="steps",
        aria_label="Shares of the plan",
    )


def _step_class(step: float, share: float) -> str | None:
    if step == share:
        return "now"
    return "done" if step < share else None


def _findings(findings: list[dict[str, Any]]) -> Markup:
    """Each effect in parts of what it is allowed to be, so that all stand on one axis."""
    marks = [(-1.0, "better", "grid"), (0.0, "as now", "axis"), (1.0, "limit", "limit"), (2.0, "worse", "grid")]
    rows = [_finding(finding) for finding in findings]
    drawn = chart.intervals(rows, _HARM, marks, "Effects of the candidate against their limits")
    return tag("div", drawn, class_="findings")


def _finding(finding: dict[str, Any]) -> chart.Interval:
    level = LEVELS[finding["outcome"]]
    low, high = finding["interval_low"], finding["interval_high"]
    bounds = None
    if finding["margin"] is not None and low is not None:
        bounds = (_harm(finding, low), _harm(finding, inf if high is None else high))
    return chart.Interval(
        str(finding["metric"]).replace("_", " "),
        level if level in ("good", "bad") else "neutral",
        None if bounds is None or finding["effect"] is None else _harm(finding, finding["effect"]),
        bounds,
        str(finding["words"]),
    )


def _harm(finding: dict[str, Any], effect: float) -> float:
    """An effect in parts of what is allowed; a lower quality is the worse one, of all else a higher figure."""
    return (-effect if finding["metric"] == "quality" else effect) / float(finding["margin"])


def _ended(rollouts: list[Rollout], colors: Colors) -> Markup:
    return parts.table(
        ("Model", "From", "To", "Ended as", "#Began", "#Took", "Why"),
        [
            (
                rollout.model,
                parts.key(rollout.from_version, colors(rollout.model, rollout.from_version)),
                parts.key(rollout.to_version, colors(rollout.model, rollout.to_version)),
                parts.chip(rollout.state.replace("_", " "), LEVELS[rollout.state]),
                figures.moment(rollout.created_at),
                figures.duration(rollout.ended_at - rollout.created_at if rollout.ended_at else None),
                rollout.reason or figures.NONE,
            )
            for rollout in rollouts
        ],
    )
