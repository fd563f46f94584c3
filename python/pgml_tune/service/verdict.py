"""From what was seen of the two variants of a rollout to a verdict: fail, pass, or not yet."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from pgml_tune.service.ab_test import ln_e_more, ln_e_share, rate_bound, ratio_interval
from pgml_tune.service.evidence import Evidence, combine
from pgml_tune.service.guardrails import EVENT_CONCENTRATION, Guardrails

_RATIO_CONCENTRATION = 1000  # finds a tenth of the units lost soonest
_LARGEST_LN_E = 600.0  # what is shown; more would leave the range of a float
_FARTHEST_RATIO = 1e5  # bounds beyond it are none


@dataclass(frozen=True, slots=True)
class Finding:
    """One guardrail: both sides, the effect with its interval, and what follows."""

    metric: str
    outcome: str
    words: str
    serving_n: float
    candidate_n: float
    alpha: float
    serving_value: float | None = None
    candidate_value: float | None = None
    effect: float | None = None
    interval_low: float | None = None
    interval_high: float | None = None
    margin: float | None = None
    e_value: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from all guardrails: fail, pass, inconclusive, no_data or mismatch."""

    outcome: str
    words: str
    findings: list[Finding]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(evidence: Evidence, guardrails: Guardrails) -> Verdict:
    """The verdict on a candidate. If the units were not split as they should be, nothing else is said."""
    ratio = judge_ratio(evidence, guardrails)
    if ratio.outcome != "pass":
        return Verdict(ratio.outcome, ratio.words, [ratio])
    errors, latency = judge_errors(evidence, guardrails), judge_latency(evidence, guardrails)
    quality = judge_quality(evidence, guardrails)
    watched = [judge_promise(evidence, guardrails)] if guardrails.slo_ms is not None else []
    # Not every model gets feedback: without any, quality holds nothing up.
    needed = [errors, latency] + [quality] * (quality.outcome != "no_data")
    findings = [ratio, errors, latency, *watched, quality]
    failed = [finding for finding in findings if finding.outcome == "fail"]
    if failed:
        return Verdict("fail", " ".join(finding.words for finding in failed), findings)
    missing = [finding for finding in needed if finding.outcome != "pass"]
    if missing:
        return Verdict("inconclusive", " ".join(finding.words for finding in missing), findings)
    return Verdict("pass", "The candidate is within all margins.", findings)


def judge_ratio(evidence: Evidence, guardrails: Guardrails) -> Finding:
    """Whether the units fell to the variants by the share: each counts where it was seen first."""
    strata = [phase.counts("newcomers") for phase in evidence.phases]
    serving, candidate = evidence.total("serving", "newcomers"), evidence.total("candidate", "newcomers")
    units = serving + candidate
    if not evidence.phases or not units:
        return Finding("sample_ratio", "no_data", "No call has been logged yet.", 0, 0, guardrails.srm_alpha)
    ln_e = ln_e_ratio(evidence)
    expected = sum((s.serving + s.candidate) * s.share for s in strata) / units
    in_both = sum(phase.in_both for phase in evidence.phases)
    words = f"{_percent(candidate / units)} of the units went to the candidate, {_percent(expected)} should have."
    outcome = "pass"
    if in_both:
        outcome, words = "mismatch", f"{in_both} units were seen in both variants: calls are logged wrongly."
    elif ln_e >= -math.log(guardrails.srm_alpha):
        outcome, words = "mismatch", f"{words} Calls of one variant are lost: no other figure can be trusted."
    return Finding(
        "sample_ratio", outcome, words, serving, candidate, guardrails.srm_alpha,
        serving_value=1 - candidate / units, candidate_value=candidate / units,
        effect=candidate / units / expected - 1 if expected else None, e_value=_shown(ln_e),
    )  # fmt: skip


def judge_errors(evidence: Evidence, guardrails: Guardrails) -> Finding:
    """Whether more units meet an error under the candidate."""
    alpha, margin = guardrails.alpha_each, guardrails.error_margin
    finding = _event_finding("error_rate", evidence, "first_failed", alpha, margin)
    if finding.outcome != "inconclusive":
        return finding
    bound = rate_bound(evidence.total("candidate", "first_failed"), finding.candidate_n, EVENT_CONCENTRATION, alpha)
    is_enough = _is_enough(evidence, guardrails)
    if is_enough and bound < guardrails.error_tolerance:
        words = f"Errors of the candidate: surely of fewer than {_percent(bound)} of the units."
        return replace(finding, outcome="pass", words=words)
    if is_enough and finding.interval_high is not None and finding.interval_high < margin:
        words = f"Errors of the candidate: {_signed(finding.interval_high)} at most, {_percent(margin)} are allowed."
        return replace(finding, outcome="pass", words=words)
    words = f"Errors: not enough seen; up to {_percent(bound)} of the units of the candidate may have one."
    return replace(finding, words=words)


def judge_promise(evidence: Evidence, guardrails: Guardrails) -> Finding:
    """Whether more units wait longer than was promised under the candidate; it can only fail."""
    finding = _event_finding("slo", evidence, "first_slow", guardrails.alpha_each, None)
    if finding.outcome == "inconclusive" and _is_enough(evidence, guardrails):
        return replace(finding, outcome="pass", words="No more units wait longer than promised, as far as one can see.")
    return finding


def judge_latency(evidence: Evidence, guardrails: Guardrails) -> Finding:
    """Whether the candidate takes longer, as the ratio of the geometric means of units."""
    alpha, margin = guardrails.alpha_each, guardrails.latency_margin
    difference = combine(evidence.phases, "latency", evidence.latency_overlaps)
    if difference is None:
        words = "Latency: no warm call that no cache answered has been logged."
        return Finding("latency", "no_data", words, 0, 0, alpha, margin=margin)
    width = difference.half_width(guardrails)
    low, high = (math.expm1(_bounded(difference.estimate + sign * width)) for sign in (-1, 1))
    effect = math.expm1(_bounded(difference.estimate))
    words = f"Latency of the candidate: {_signed(effect)} (between {_signed(low)} and {_signed(high)})"
    outcome = "inconclusive"
    if difference.is_enough(guardrails):
        if low > 0 and effect > margin:
            outcome, words = "fail", f"{words}, more than the {_percent(margin)} that are allowed."
        elif high < margin and _is_enough(evidence, guardrails):
            outcome, words = "pass", f"{words}, {_percent(margin)} are allowed."
    if outcome == "inconclusive":
        words = f"{words}: not enough seen, {_percent(margin)} are allowed."
    return Finding(
        "latency", outcome, words, difference.serving_n, difference.candidate_n, alpha,
        serving_value=math.exp(difference.serving), candidate_value=math.exp(difference.candidate),
        effect=effect, interval_low=low, interval_high=high, margin=margin,
        e_value=_shown(difference.ln_e(difference.estimate, guardrails)),
    )  # fmt: skip


def judge_quality(evidence: Evidence, guardrails: Guardrails) -> Finding:
    """Whether users give the candidate worse scores."""
    alpha, margin = guardrails.alpha_each, guardrails.quality_margin
    difference = combine(evidence.phases, "score", evidence.score_overlaps)
    if difference is None:
        return Finding("quality", "no_data", "Quality: too little feedback.", 0, 0, alpha, margin=margin)
    width, effect = difference.half_width(guardrails), difference.estimate
    low, high = effect - width, effect + width
    words = f"Mean score of the candidate: {effect:+.3f} (between {low:+.3f} and {high:+.3f})"
    outcome = "inconclusive"
    if not difference.is_enough(guardrails):
        outcome, words = "no_data", f"{words}: too little feedback."
    elif high < 0 and effect < -margin:
        outcome, words = "fail", f"{words}, worse by more than the {margin:g} that is allowed."
    elif low > -margin:
        outcome, words = "pass", f"{words}, worse by {margin:g} is allowed."
    else:
        words = f"{words}: not enough seen, worse by {margin:g} is allowed."
    return Finding(
        "quality", outcome, words, difference.serving_n, difference.candidate_n, alpha,
        serving_value=difference.serving, candidate_value=difference.candidate,
        effect=effect, interval_low=low, interval_high=high, margin=margin,
        e_value=_shown(difference.ln_e(-effect, guardrails)),
    )  # fmt: skip


def ln_e_ratio(evidence: Evidence) -> float:
    """ln E against "the units were split by the shares"."""
    return sum(ln_e_share(phase.counts("newcomers"), _RATIO_CONCENTRATION) for phase in evidence.phases)


def ln_e_events(evidence: Evidence, name: str) -> float:
    """ln E against "no more of such units under the candidate"."""
    return sum(ln_e_more(phase.counts(name), EVENT_CONCENTRATION) for phase in evidence.phases)


def _event_finding(metric: str, evidence: Evidence, name: str, alpha: float, margin: float | None) -> Finding:
    """A finding on units that meet an event at least once: fail, inconclusive or no_data."""
    serving_n, candidate_n = evidence.total("serving", "entered"), evidence.total("candidate", "entered")
    if not serving_n or not candidate_n:
        return Finding(metric, "no_data", "One variant has had no calls.", serving_n, candidate_n, alpha, margin=margin)
    serving, candidate = evidence.total("serving", name) / serving_n, evidence.total("candidate", name) / candidate_n
    strata = [phase.counts(name) for phase in evidence.phases]
    bounds = ratio_interval(strata, EVENT_CONCENTRATION, alpha)
    ln_e = ln_e_events(evidence, name)
    what = "met an error" if metric == "error_rate" else "waited longer than promised"
    words = f"{_percent(candidate)} of the units of the candidate {what}, {_percent(serving)} of the others."
    return Finding(
        metric, "fail" if ln_e >= -math.log(alpha) else "inconclusive", words, serving_n, candidate_n, alpha,
        serving_value=serving, candidate_value=candidate, effect=candidate / serving - 1 if serving else None,
        interval_low=bounds[0] - 1 if bounds else None,
        interval_high=bounds[1] - 1 if bounds and bounds[1] < _FARTHEST_RATIO else None,
        margin=margin, e_value=_shown(ln_e),
    )  # fmt: skip


def _is_enough(evidence: Evidence, guardrails: Guardrails) -> bool:
    """Whether the last phase, which is the one that a pass would end, has been looked at at all."""
    last = evidence.phases[-1]
    return min(last.serving.units, last.candidate.units) >= guardrails.min_units


def _shown(ln_e: float) -> float:
    return math.exp(min(ln_e, _LARGEST_LN_E))


def _bounded(ln_ratio: float) -> float:
    return max(-_LARGEST_LN_E, min(ln_ratio, _LARGEST_LN_E))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _signed(share: float) -> str:
    return f"{100 * share:+.3g} %"
