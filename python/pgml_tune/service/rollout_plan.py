"""How a rollout goes on: a pure function of where it stands and of what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ALL = 10_000  # units of a share

Step = Literal["hold", "pause", "share", "promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a rollout stands."""

    state: str  # running or paused
    share: int  # of 10,000
    plan: Sequence[int] | None  # shares, ascending, ending in 10,000
    on_expiry: str  # rollback, hold or promote
    is_expired: bool


@dataclass(frozen=True, slots=True)
class Action:
    """What to do now, and why."""

    step: Step
    reason: str
    share: int | None = None  # of step share


def next_action(position: Position, outcome: str, words: str) -> Action:
    """What follows from a verdict: fail, pass, inconclusive, no_data or mismatch.

    Who has failed goes back whatever the clock says, and nobody is promoted for want of data unless he who began the
    rollout has said so with on_expiry.
    """
    if outcome == "fail":
        return Action("rollback", words)
    if position.is_expired and position.on_expiry == "rollback":
        return Action("rollback", f"expired: {words}")
    if outcome == "mismatch":
        # Nothing that was counted can be trusted, so the end of its time promotes nobody.
        return Action("rollback" if position.is_expired and position.on_expiry == "promote" else "pause", words)
    if position.is_expired and position.on_expiry == "promote":
        return Action("promote", f"expired: {words}")
    if position.state == "paused" or outcome != "pass" or position.plan is None:
        return Action("hold", words)
    later = [share for share in position.plan if share > position.share]
    if not later or later[0] >= ALL:
        return Action("promote", words)
    return Action("share", words, later[0])
