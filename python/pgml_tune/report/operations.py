"""The parts of the page on what keeps the models going: cache, jobs, drift, history."""

from __future__ import annotations

from pgml_tune.report import chart, figures, parts
from pgml_tune.report.colors import Colors
from pgml_tune.report.markup import Markup, tag
from pgml_tune.store.facts import Cache, Drift, Facts, Job

_JOB_LEVELS = {"succeeded": "good", "failed": "bad", "cancelled": "warn"}
_SOURCES = (("session cache", "hit"), ("table cache", "table-hit"), ("computed", "computed"))
_NO_COUNTERS = "A standby has no counters: ask the primary."
_MOVES = 40  # of the history, the latest


def cache_section(facts: Facts, colors: Colors) -> Markup:
    return parts.section(
        "Cache",
        "Where the vectors of texts came from.",
        parts.legend(*(parts.key(name, color) for name, color in _SOURCES)),
        parts.table(
            ("Version", "From", "#Texts", "#Hits", "#Saved", "#Entries", "#Size"),
            [
                (
                    parts.key(f"{cache.model}@{cache.version}", colors(cache.model, cache.version)),
                    _sources(cache),
                    figures.count(cache.texts),
                    figures.percent(cache.hit_ratio),
                    figures.milliseconds(None if cache.saved_seconds is None else 1000 * cache.saved_seconds),
                    figures.count(cache.entries),
                    figures.size(cache.bytes),
                )
                for cache in facts.caches
            ],
        )
        if facts.caches
        else parts.empty(_NO_COUNTERS if facts.place.is_standby else "No text was embedded yet."),
    )


def _sources(cache: Cache) -> Markup:
    computed = cache.texts - cache.session_hits - cache.table_hits
    counts = (cache.session_hits, cache.table_hits, computed)
    parts = [
        (color, f"{name}: {figures.percent(count / cache.texts)}", count / cache.texts)
        for (name, color), count in zip(_SOURCES, counts, strict=True)
    ]
    return chart.shares(parts, ", ".join(words for _, words, _ in parts))


def jobs_section(facts: Facts) -> Markup:
    return parts.section(
        "Jobs",
        f"Those that role {facts.place.role} may see; an administrator sees all.",
        _job_counts(facts),
        parts.table(
            ("#Job", "What", "Model", "State", "#Asked for", "#Took", "Outcome"), [_job(job) for job in facts.jobs]
        )
        if facts.jobs
        else parts.empty("No job was asked for in this time."),
    )


def _job_counts(facts: Facts) -> Markup | None:
    counts = [f"{figures.count(number)} {state}" for state, number in sorted(facts.job_counts.items())]
    return tag("p", f"Of all roles: {', '.join(counts)}.", class_="purpose") if counts else None


def _job(job: Job) -> tuple[object, ...]:
    outcome = f"{job.message} ({job.sqlstate})" if job.message else job.summary
    return (
        job.job_id,
        job.kind,
        job.model or figures.NONE,
        parts.chip(job.state, _JOB_LEVELS.get(job.state, "plain")),
        figures.moment(job.created_at),
        figures.duration(job.run_time),
        outcome or figures.NONE,
    )


def drift_section(facts: Facts) -> Markup:
    return parts.section(
        "Drift",
        "Whether the texts of the last day are like those of the week before: drift is an effect beyond its limit that"
        " chance would hardly make (p).",
        parts.table(
            ("Model", "What", "#Before", "#Now", "#Effect", "#Limit", "#p", "Finding"),
            [_drift(drift) for drift in facts.drifts],
        )
        if facts.drifts
        else parts.empty("Too few calls were logged to compare."),
    )


def _drift(drift: Drift) -> tuple[object, ...]:
    values = (drift.reference_value, drift.current_value, drift.effect, drift.threshold, drift.p_value)
    return (
        f"{drift.model}@{drift.versions}",
        drift.metric.replace("_", " "),
        *map(figures.number, values),
        parts.chip(drift.outcome, "warn" if drift.outcome == "drift" else "good"),
    )


def history_section(facts: Facts) -> Markup:
    moves = [move for move in facts.moves if move.changed_at >= facts.place.since][::-1]
    rows = [
        (
            figures.moment(move.changed_at),
            move.pointer,
            move.kind,
            f"{move.from_target or figures.NONE} → {move.to_target or figures.NONE}",
            move.changed_by,
            move.reason or figures.NONE,
        )
        for move in moves[:_MOVES]
    ]
    rest = len(moves) - len(rows)
    return parts.section(
        "History",
        "Every move of a pointer in this time, the latest first.",
        parts.table(("#When", "What", "Kind", "Move", "Who", "Why"), rows)
        if rows
        else parts.empty("Nothing was moved in this time."),
        tag("p", f"and {rest} more: SELECT * FROM pgml_tune.rollout_history", class_="quiet") if rest > 0 else None,
    )
