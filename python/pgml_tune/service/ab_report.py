"""What the log says of a rollout: to rollout_tick() a verdict, to people a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pgml_tune.db import Database
from pgml_tune.errors import ObjectNotFound
from pgml_tune.service.ab_test import Sample, welch
from pgml_tune.service.evidence import Arm, Evidence, Phase
from pgml_tune.service.guardrails import Guardrails
from pgml_tune.service.report_arguments import check_model
from pgml_tune.service.verdict import Finding, Verdict, judge
from pgml_tune.store import experiment
from pgml_tune.store.experiment import ArmRow, CallsRow, RolloutRow

Line = dict[str, Any]

_SECONDS_PER_DAY = 86_400
_GROWTH = 1.25  # of the units that are imagined, from one look into the future to the next
_LONGEST = 1000.0  # times the units of the phase so far
_HIGHEST_LN = 600.0  # more would leave the range of a float
_DECIDED = ("pass", "fail")
_FIGURES = ("mean_ms", "p50_ms", "p95_ms", "p99_ms")
_COLUMNS = (
    "metric", "serving_n", "serving_value", "candidate_n", "candidate_value", "effect", "interval_low",
    "interval_high", "margin", "e_value", "alpha", "outcome", "words", "days_to_decision",
)  # fmt: skip


def look(db: Database, rollout_id: int) -> Verdict:
    """The verdict on a rollout by what is logged now."""
    rollout = _find(db, rollout_id)
    guardrails = Guardrails.parse(rollout.guardrails)
    return judge(gather(db, rollout, guardrails), guardrails)


def ab_report(db: Database, name: str | None) -> list[Line]:
    """The rollout of a model that runs, then the last one that has ended: a line per phase and metric."""
    model = check_model(db, name)
    return [line for number in experiment.shown_rollouts(db, model) for line in _report(db, _find(db, number))]


def _find(db: Database, rollout_id: int) -> RolloutRow:
    rollout = experiment.find_rollout(db, rollout_id)
    if rollout is None:
        raise ObjectNotFound(f"there is no rollout {rollout_id}", hint="SELECT * FROM pgml_tune.rollouts")
    return rollout


def gather(db: Database, rollout: RolloutRow, guardrails: Guardrails) -> Evidence:
    """What was seen of both variants, up to the phase of now, which may not have been seen yet."""
    arms: dict[tuple[int, int], dict[str, ArmRow]] = {}
    for row in experiment.read_arms(db, rollout.rollout_id, guardrails.slo_ms):
        arms.setdefault((row.phase, row.share), {})[row.variant] = row
    arms.setdefault((rollout.phase, rollout.share), {})
    phases = [_phase(number, share, seen) for (number, share), seen in sorted(arms.items())]
    overlaps = experiment.read_overlaps(db, rollout.rollout_id) if len(phases) > 1 else []
    return Evidence(
        phases,
        {(row.phase, row.later_phase): row.latency for row in overlaps},
        {(row.phase, row.later_phase): row.score for row in overlaps},
    )


def _phase(number: int, share: int, seen: dict[str, ArmRow]) -> Phase:
    serving, candidate = seen.get("serving"), seen.get("candidate")
    return Phase(number, share, _arm(serving), _arm(candidate), in_both=candidate.in_both if candidate else 0)


def _arm(row: ArmRow | None) -> Arm:
    if row is None:
        return Arm()
    return Arm(
        units=row.units, entered=row.entered, newcomers=row.newcomers, failed=row.failed,
        first_failed=row.first_failed, slow=row.slow, first_slow=row.first_slow,
        latency=None if row.ln_ms is None else Sample(row.timed, row.ln_ms, row.ln_ms_variance),
        # Scores lie between 0 and 1: that all so far are the same does not prove that no other can come.
        score=None if row.score is None else Sample(row.scored, row.score, row.score_variance + 0.25 / row.scored),
    )  # fmt: skip


def _report(db: Database, rollout: RolloutRow) -> list[Line]:
    guardrails = Guardrails.parse(rollout.guardrails)
    evidence = gather(db, rollout, guardrails)
    verdict = judge(evidence, guardrails)
    is_trusted = verdict.outcome != "mismatch"
    waits = _days_to_decision(evidence, guardrails, verdict, rollout) if is_trusted and rollout.is_running else {}
    lines = [_line(rollout, None, finding, waits) for finding in verdict.findings]
    lines.insert(1, _line(rollout, None, _summary(verdict, guardrails), waits))
    calls = {(row.phase, row.variant): row for row in experiment.read_calls(db, rollout.rollout_id)}
    for phase in evidence.phases:
        ratio, *others = judge(phase.alone(), guardrails).findings
        lines.append(_line(rollout, phase, ratio))
        if is_trusted and ratio.outcome != "mismatch":
            figures = _figures(calls.get((phase.number, "serving")), calls.get((phase.number, "candidate")))
            lines += [_line(rollout, phase, figure) for figure in figures]
            lines += [_line(rollout, phase, finding) for finding in others]
            lines += [_line(rollout, phase, figure) for figure in _fixed_horizon(phase, guardrails)]
    return lines


def _line(
    rollout: RolloutRow, phase: Phase | None, finding: Finding | Line, waits: dict[str, float] | None = None
) -> Line:
    values = asdict(finding) if isinstance(finding, Finding) else finding
    values = values | {"days_to_decision": (waits or {}).get(values["metric"])}
    place = {
        "rollout_id": rollout.rollout_id,
        "phase": phase and phase.number,
        "share_percent": (phase.share if phase else rollout.share) / 100,
    }
    return place | {column: values.get(column) for column in _COLUMNS}


def _summary(verdict: Verdict, guardrails: Guardrails) -> Line:
    return {"metric": "verdict", "outcome": verdict.outcome, "words": verdict.words, "alpha": guardrails.alpha}


def _figures(serving: CallsRow | None, candidate: CallsRow | None) -> Iterable[Line]:
    """What a reader expects to see; nothing is concluded from it."""
    sides = {"serving": serving, "candidate": candidate}
    counts = {f"{side}_n": row.requests if row else 0 for side, row in sides.items()}
    yield {"metric": "requests"} | counts
    shares = {f"{side}_value": row.failed / row.requests if row else None for side, row in sides.items()}
    yield {"metric": "failed_requests"} | counts | shares
    counts = {f"{side}_n": row.measured if row else 0 for side, row in sides.items()}
    for metric in _FIGURES:
        values = {f"{side}_value": getattr(row, metric) if row else None for side, row in sides.items()}
        low, high = values["serving_value"], values["candidate_value"]
        yield {"metric": metric, "effect": high / low - 1 if low and high else None} | counts | values


def _fixed_horizon(phase: Phase, guardrails: Guardrails) -> Iterable[Line]:
    serving, candidate = phase.serving.latency, phase.candidate.latency
    test = welch(serving, candidate, guardrails.alpha_each) if serving and candidate else None
    if serving is None or candidate is None or test is None:
        return
    yield {
        "metric": "latency_welch_t",
        "serving_n": serving.count, "serving_value": math.exp(serving.mean),
        "candidate_n": candidate.count, "candidate_value": math.exp(candidate.mean),
        "effect": math.expm1(candidate.mean - serving.mean),
        "interval_low": math.expm1(test.low), "interval_high": math.expm1(min(test.high, _HIGHEST_LN)),
        "alpha": guardrails.alpha_each,
        "words": f"p = {test.p_value:.2g}, for one look at a time fixed before: not valid when peeking.",
    }  # fmt: skip


def _days_to_decision(
    evidence: Evidence, guardrails: Guardrails, verdict: Verdict, rollout: RolloutRow
) -> dict[str, float]:
    """When each guardrail, and the verdict, would be decided if all went on as in this phase."""
    waits: dict[str, float] = {}
    factor = 1.0
    while factor < _LONGEST:
        future = judge(evidence.extended(factor), guardrails) if factor > 1 else verdict
        outcomes = {finding.metric: finding.outcome for finding in future.findings} | {"verdict": future.outcome}
        for metric, outcome in outcomes.items():
            if outcome in _DECIDED:
                waits.setdefault(metric, (factor - 1) * rollout.phase_seconds / _SECONDS_PER_DAY)
        if "verdict" in waits:
            break
        factor *= _GROWTH
    return waits
