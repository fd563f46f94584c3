"""Which version answers a call while a share of the units goes to a candidate, and who steps in where that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pgml_tune.db import Session
from pgml_tune.errors import QueryCanceled, TuneError
from pgml_tune.records import Exposure
from pgml_tune.service.assignment import CANDIDATE, SERVING, unit_number, variant_of
from pgml_tune.service.breaker import Breaker
from pgml_tune.service.calls import Call, Calls, sqlstate_of
from pgml_tune.service.resolution import preferred_unit
from pgml_tune.store.registry import Split

# What a model can do wrong. A cancel or a timeout is an error of the database, and passes.
_FAILURES = (TuneError, OSError, MemoryError)
_Result = TypeVar("_Result")


class Router:
    """Sends the calls of a session to the versions of their units."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._breaker = Breaker()

    def send(self, db: Session, call: Call, text: str) -> None:
        """Let a call go to the version of its unit, which is its text unless the session has set one."""
        split = call.destination.split
        if split is not None:
            self._send(db, call, split, [unit_number(split.salt, preferred_unit(db) or text)])

    def divide(self, db: Session, call: Call, texts: Sequence[str]) -> Iterator[tuple[Call, Sequence[int]]]:
        """The calls that one with many texts becomes, and the places of their texts: two where texts are the units.

        The second is made when the first has ended.
        """
        split, places = call.destination.split, range(len(texts))
        unit = None if split is None else preferred_unit(db)
        if split is None or not texts:
            yield call, places
        elif unit is not None:
            self._send(db, call, split, [unit_number(split.salt, unit)])
            yield call, places
        else:
            units = [unit_number(split.salt, text) for text in texts]
            for variant in (SERVING, CANDIDATE):
                own = [place for place in places if variant_of(units[place], split.share) == variant]
                if own:
                    part = self._calls.begin_part(call, [call.sizes[place] for place in own])
                    self._send(db, part, split, [units[place] for place in own])
                    yield part, own

    def answer(self, call: Call, compute: Callable[[], _Result]) -> _Result:
        """What the version of a call computes; where that is a candidate and fails, the serving one."""
        if not is_candidate(call):
            return compute()
        found = self.attempt(call, compute)
        if found is None:
            call.begin_anew(call.destination.target)
            found = compute()
            self.fell_back(call)
        return found

    def attempt(self, call: Call, compute: Callable[[], _Result]) -> _Result | None:
        """What a candidate computes; None where it fails or is not tried any more, and the call knows why."""
        exposure = call.exposures[0][1]
        call.failure = self._breaker.refuses(exposure, call.limits.candidate_failures)
        if call.failure is not None:
            return None
        try:
            found = compute()
        except QueryCanceled:
            raise
        except _FAILURES as error:
            call.failure = sqlstate_of(error)
            return None
        self._breaker.succeeded(exposure)
        return found

    def fell_back(self, call: Call) -> None:
        """Count against the candidate that the serving version has answered: the input was not to blame."""
        if call.failure is not None:
            self._breaker.failed(call.exposures[0][1], call.failure)

    def _send(self, db: Session, call: Call, split: Split, units: Sequence[int]) -> None:
        variant = variant_of(units[0], split.share)
        if variant == CANDIDATE:
            call.target = split.candidate
        exposures = (Exposure(split.rollout_id, split.phase, split.share, unit, variant) for unit in units)
        self._calls.expose(db, call, exposures)


def is_candidate(call: Call) -> bool:
    """Whether a call belongs to the candidate of a rollout, by its unit."""
    return bool(call.exposures) and call.exposures[0][1].variant == CANDIDATE
