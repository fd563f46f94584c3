"""The options of `rollout_model()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.options import parse_options
from pgml_tune.service.rollout_plan import ALL

_ON_EXPIRY = ("rollback", "hold", "promote")
_MAX_STEPS = 100
_MAX_REASON = 10_000


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """What may be said of a rollout; None means not given."""

    plan: list[int] | None = None  # shares of 10,000
    guardrails: dict[str, Any] | None = None
    expires: str | None = None  # an interval
    on_expiry: str | None = None
    untracked: str | None = None
    reason: str | None = None
    dry_run: bool = False

    @classmethod
    def parse(cls, text: str | None) -> RolloutOptions:
        values = parse_options(text, cls.__slots__, "'plan', '[1, 5, 25, 50, 100]'::jsonb")
        values = {name: value for name, value in values.items() if value is not None}
        for name in ("expires", "on_expiry", "untracked", "reason"):
            if name in values and (type(values[name]) is not str or len(values[name]) > _MAX_REASON):
                raise InvalidArgument(f'option "{name}" is not a text of at most {_MAX_REASON} characters')
        if type(values.get("dry_run", False)) is not bool:
            raise InvalidArgument('option "dry_run" is neither true nor false')
        if type(values.get("guardrails", {})) is not dict:
            raise InvalidArgument('option "guardrails" is not a JSON object')
        if values.get("on_expiry", "rollback") not in _ON_EXPIRY:
            raise InvalidArgument(f'option "on_expiry" is not one of {", ".join(_ON_EXPIRY)}')
        if values.get("untracked", "accept") != "accept":
            raise InvalidArgument('option "untracked" can only be accept')
        if "plan" in values:
            values["plan"] = shares(values["plan"])
        return cls(**values)


def shares(plan: object) -> list[int]:
    """The shares, of 10,000, of a plan in percent."""
    if not isinstance(plan, Sequence) or isinstance(plan, str) or not 1 <= len(plan) <= _MAX_STEPS:
        raise InvalidArgument('option "plan" is not an array of 1 to 100 percentages')
    if any(type(step) not in (int, float) or not 0.01 <= step <= 100 for step in plan):
        raise InvalidArgument('a step of option "plan" is not a percentage from 0.01 to 100')
    steps = [round(step * 100) for step in plan]
    if steps != sorted(set(steps)):
        raise InvalidArgument('the steps of option "plan" do not ascend')
    # Whoever passes the last step is promoted, so that no plan ends in the middle.
    return steps if steps[-1] == ALL else [*steps, ALL]
