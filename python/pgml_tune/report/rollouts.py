"""The part of the page on rollouts: who answered when, how those that run are judged, how the others ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf

from pgml_tune.report import chart, figures, parts
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.report.scale import Scale, Window
from pgml_tune.store.facts import Facts, Finding, Move, Rollout

LEVELS = {
    "promoted": "good", "pass": "good", "running": "plain", "inconclusive": "plain", "no_data": "plain",
    "paused": "warn", "rolled_back": "bad", "fail": "bad", "mismatch": "bad",
}  # fmt: skip
_SHARE = re.compile(r"(?P<version>\S+) (?P<percent>[\d.]+) %")  # as the history tells it
_MINUTE = 1 / 1440  # in days
_HARM = Scale(-1.5, 2.5)  # 0: as the serving version; 1: as bad as is allowed


def section(facts: Facts, colors: Colors, window: Window) -> Markup:
    lanes = [_lane(model, moves, colors, window) for model, moves in _by_model(facts.moves)]
    running = [rollout for rollout in facts.rollouts if rollout.ended_at is None]
    ended = [rollout for rollout in facts.rollouts if rollout.ended_at is not None]
    return parts.section(
        "Rollouts",
        "Which version answered when; the height of a second colour is the share of the traffic that a candidate had.",
        chart.timeline(lanes, window, "Versions over time") if lanes else parts.empty("No model has served yet."),
        [
            _card(rollout, [finding for finding in facts.findings if finding.rollout_id == rollout.rollout_id], colors)
            for rollout in running
        ],
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
    """Who answered in the window: each move begins a span that lasts until the next one."""
    serving, candidate, share = None, None, 0.0
    ends = [*(move.changed_at for move in moves[1:]), window.until]
    for move, end in zip(moves, ends, strict=True):
        found = _SHARE.fullmatch(move.to_target or "") if move.kind == "share" else None
        candidate, share = (found["version"], float(found["percent"]) / 100) if found else (None, 0.0)
        serving = move.to_target if move.kind == "version" else serving
        since = max(move.changed_at, window.since)
        if serving is None or end <= since:
            continue
        begun = f"since {figures.moment(move.changed_at)}"
        if candidate is None:
            yield chart.Span(since, end, serving, f"{serving} {begun}", colors(model, serving))
        else:
            part = figures.part(share)
            words = f"{candidate} has {part}, {serving} the rest, {begun}"
            yield chart.Span(since, end, part, words, colors(model, serving), colors(model, candidate), share)


def _card(rollout: Rollout, findings: list[Finding], colors: Colors) -> Markup:
    verdict = next((finding for finding in findings if finding.metric == "verdict"), None)
    return tag(
        "article",
        tag(
            "h3",
            f"{rollout.model}: ",
            parts.key(rollout.from_version, colors(rollout.model, rollout.from_version)),
            " → ",
            parts.key(rollout.to_version, colors(rollout.model, rollout.to_version)),
            parts.chip(rollout.state, LEVELS[rollout.state]),
            parts.chip(verdict.outcome.replace("_", " "), LEVELS[verdict.outcome]) if verdict else None,
        ),
        _steps(rollout),
        _effects([finding for finding in findings if finding is not verdict]),
        tag("p", _times(rollout, verdict), class_="quiet"),
        tag("p", "Every number: ", tag("code", f"SELECT * FROM ab_report('{rollout.model}')"), class_="quiet"),
        class_="card",
    )


def _times(rollout: Rollout, verdict: Finding | None) -> str:
    times = [
        f"Began {figures.moment(rollout.created_at)}",
        f"guardrails last applied {figures.moment(rollout.looked_at)}",
        f"expires {figures.moment(rollout.expires_at)}",
    ]
    if verdict and verdict.days_to_decision and verdict.days_to_decision > _MINUTE:
        times.append(f"decided in about {figures.days(verdict.days_to_decision)}")
    return " · ".join(times)


def _steps(rollout: Rollout) -> Markup:
    plan = [step / 10000 for step in rollout.plan or []] or [rollout.share]
    return tag(
        "ol",
        [tag("li", figures.part(step), class_=_step_class(step, rollout.share)) for step in plan],
        class_="steps",
        aria_label="Shares of the plan",
    )


def _step_class(step: float, share: float) -> str | None:
    if step == share:
        return "now"
    return "done" if step < share else None


def _effects(findings: list[Finding]) -> Markup:
    """Each effect in parts of what it is allowed to be, so that all stand on one axis."""
    marks = [(-1.0, "better", "grid"), (0.0, "as now", "axis"), (1.0, "limit", "limit"), (2.0, "worse", "grid")]
    drawn = chart.intervals(list(map(_effect, findings)), _HARM, marks, "Effects of the candidate against their limits")
    return tag("div", drawn, class_="findings")


def _effect(finding: Finding) -> chart.Interval:
    level = LEVELS[finding.outcome]
    effect, bounds = None, None
    if finding.margin is not None and finding.interval_low is not None:
        # A lower quality is the worse one; of all else, a higher figure.
        unit = -finding.margin if finding.metric == "quality" else finding.margin
        effect = None if finding.effect is None else finding.effect / unit
        bounds = finding.interval_low / unit, inf if finding.interval_high is None else finding.interval_high / unit
    color = level if level in ("good", "bad") else "neutral"
    return chart.Interval(finding.metric.replace("_", " "), color, effect, bounds, finding.words)


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
