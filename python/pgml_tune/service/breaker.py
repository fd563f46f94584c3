"""When a session stops trying a candidate that keeps failing."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.records import Exposure


@dataclass(slots=True)
class _Failures:
    """Failures in a row within one phase of a rollout."""

    phase: int
    count: int
    sqlstate: str  # of the last one


class Breaker:
    """Counts in a row what candidates fail at; a new phase of a rollout begins with a new count."""

    def __init__(self) -> None:
        self._failures: dict[int, _Failures] = {}

    def refuses(self, exposure: Exposure, most_failures: int) -> str | None:
        """The last SQLSTATE of a candidate that has failed so often that it is not tried again; None: try it."""
        failures = self._failures.get(exposure.rollout_id)
        if failures is None or failures.phase != exposure.phase or failures.count < most_failures:
            return None
        return failures.sqlstate

    def failed(self, exposure: Exposure, sqlstate: str) -> None:
        """Count a call that the candidate failed and the serving version answered."""
        failures = self._failures.get(exposure.rollout_id)
        if failures is None or failures.phase != exposure.phase:
            failures = self._failures[exposure.rollout_id] = _Failures(exposure.phase, 0, sqlstate)
        failures.count += 1
        failures.sqlstate = sqlstate

    def succeeded(self, exposure: Exposure) -> None:
        """Begin to count anew."""
        self._failures.pop(exposure.rollout_id, None)
