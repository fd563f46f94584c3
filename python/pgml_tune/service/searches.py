"""A search as it is measured: from its question to its rows, which SQL finds in between."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument
from pgml_tune.records import Exposure
from pgml_tune.service.assignment import CANDIDATE, unit_number, variant_of
from pgml_tune.service.calls import Call, Calls
from pgml_tune.service.inference import TASK
from pgml_tune.service.resolution import preferred_unit
from pgml_tune.service.routing import Router, is_candidate
from pgml_tune.service.vectors import Vectors, encoded_alone
from pgml_tune.store.collection_route import Answering, find_route


@dataclass(frozen=True, slots=True)
class Route:
    """What a search says of itself: the collection, and whether its first try has failed."""

    collection: str
    is_fallback: bool

    @classmethod
    def parse(cls, text: str) -> Route:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise _not_a_route() from None
        if type(values) is not dict:
            raise _not_a_route()
        collection, is_fallback = values.get("collection"), values.get("is_fallback", False)
        if type(collection) is not str or type(is_fallback) is not bool:
            raise _not_a_route()
        return cls(collection, is_fallback)


class Searches:
    """What pgml_tune._embed_question() and pgml_tune._end_search() do, for one session."""

    def __init__(self, vectors: Vectors, calls: Calls, router: Router) -> None:
        self._vectors = vectors
        self._calls = calls
        self._router = router

    def begin(self, db: Session, query: str, reference: str, route_json: str) -> str | None:
        """The vector of a question; None where the candidate fails, and the serving version is to be asked."""
        route = Route.parse(route_json)
        exposure = _check(db, query, reference, route)
        if not route.is_fallback:
            self._calls.close(db)
            call = self._calls.begin(db, "search", reference, TASK)
            call.collection = route.collection
            with self._calls.checking(db, call):
                vector = self._ask(db, call, query, exposure)
        else:
            call = self._failed_call(route, exposure)
            with self._calls.checking(db, call):
                call.begin_anew(self._calls.begin(db, "search", reference, TASK).target)
                vector = self._embed(db, call, query)
                self._router.fell_back(call)
        self._calls.leave_open(db, call)
        return vector

    def end(self, db: Session, result_count: int) -> None:
        """The search that was begun has found so many rows."""
        call = self._calls.reopen()
        if call is not None:
            call.output_count = result_count
            self._calls.end(db, call)

    def _ask(self, db: Session, call: Call, query: str, exposure: Exposure | None) -> str | None:
        if call.limits.log_text == "on":  # else no text of a user outlives the function
            call.text = query
        call.sizes = (len(encoded_alone(query)),)
        if exposure is not None:
            self._calls.expose(db, call, [exposure])
        if is_candidate(call):
            return self._router.attempt(call, lambda: self._embed(db, call, query))
        return self._embed(db, call, query)

    def _embed(self, db: Session, call: Call, query: str) -> str:
        return self._vectors.alone(call.target.digest, query, "query", db.role(), call)

    def _failed_call(self, route: Route, exposure: Exposure | None) -> Call:
        call = self._calls.reopen()
        if (
            call is None
            or call.failure is None
            or call.collection != route.collection
            or call.exposures[0][1] != exposure
        ):
            raise InvalidArgument("no candidate has failed for this search")
        return call


def _check(db: Session, query: str, reference: str, route: Route) -> Exposure | None:
    """What part a search has in a rollout; refused where it is not one of this collection.

    Whoever may search may call the function itself: what a rollout is judged by is read here, not taken from him.
    """
    found = find_route(db, route.collection)
    if found is None:
        raise _not_a_route()
    exposure, answering, split = None, found.serving, found.split
    if split is not None:
        unit = unit_number(split.salt, preferred_unit(db) or query)
        exposure = Exposure(split.rollout_id, split.phase, split.share, unit, variant_of(unit, split.share))
        if exposure.variant == CANDIDATE and not route.is_fallback:
            answering = split.candidate
    if answering != Answering(reference, is_readable=True):
        raise _not_a_route()
    return exposure


def _not_a_route() -> InvalidArgument:
    return InvalidArgument("route is not one that a search makes", hint="SELECT * FROM semantic_search(...)")
