"""A search as it is measured: from its question to its rows, which SQL finds in between."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Session
from pgml_tune.engine.embedder import Embedder
from pgml_tune.errors import InvalidArgument
from pgml_tune.records import Exposure
from pgml_tune.service.assignment import BUCKETS, CANDIDATE, SERVING
from pgml_tune.service.calls import Call, Calls
from pgml_tune.service.routing import Router, is_candidate
from pgml_tune.service.vectors import Vectors, encoded_alone

_LONGEST_COLLECTION = 200  # characters
_BELOW = {"rollout_id": 1 << 63, "phase": 1 << 31, "share": BUCKETS + 1, "unit": 1 << 60}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a search goes, as pgml_tune._open_collection() has found it."""

    collection: str
    exposure: Exposure | None  # None: no rollout runs
    is_fallback: bool

    @classmethod
    def parse(cls, text: str) -> Route:
        # Whoever may search may call the function itself, with whatever he likes.
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise _not_a_route() from None
        if type(values) is not dict:
            raise _not_a_route()
        collection, is_fallback = values.pop("collection", None), values.pop("is_fallback", False)
        if type(collection) is not str or len(collection) > _LONGEST_COLLECTION or type(is_fallback) is not bool:
            raise _not_a_route()
        exposure = _exposure(values) if values else None
        return cls(collection, exposure, is_fallback)


class Searches:
    """What pgml_tune._embed_question() and pgml_tune._end_search() do, for one session."""

    def __init__(self, vectors: Vectors, calls: Calls, router: Router) -> None:
        self._vectors = vectors
        self._calls = calls
        self._router = router

    def begin(self, db: Session, query: str, reference: str, route_json: str) -> str | None:
        """The vector of a question; None where the candidate fails, and the serving version is to be asked."""
        route = Route.parse(route_json)
        if not route.is_fallback:
            self._calls.close(db)
            call = self._calls.begin(db, "search", reference, Embedder.task)
            with self._calls.checking(db, call):
                vector = self._ask(db, call, query, route)
        else:
            call = self._failed_call(route)
            with self._calls.checking(db, call):
                call.begin_anew(self._calls.begin(db, "search", reference, Embedder.task).target)
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

    def _ask(self, db: Session, call: Call, query: str, route: Route) -> str | None:
        call.collection = route.collection
        if call.limits.log_text == "on":  # else no text of a user outlives the function
            call.text = query
        call.sizes = (len(encoded_alone(query)),)
        if route.exposure is not None:
            self._calls.expose(db, call, [route.exposure])
        if is_candidate(call):
            return self._router.attempt(call, lambda: self._embed(db, call, query))
        return self._embed(db, call, query)

    def _embed(self, db: Session, call: Call, query: str) -> str:
        return self._vectors.alone(call.target.digest, query, "query", db.role(), call)

    def _failed_call(self, route: Route) -> Call:
        call = self._calls.reopen()
        if call is None or call.failure is None or call.exposures[0][1] != route.exposure:
            raise InvalidArgument("no candidate has failed for this search")
        return call


def _exposure(values: dict[str, Any]) -> Exposure:
    variant = values.pop("variant", None)
    if variant not in (SERVING, CANDIDATE) or set(values) != set(_BELOW):
        raise _not_a_route()
    if any(type(values[name]) is not int or not 0 <= values[name] < limit for name, limit in _BELOW.items()):
        raise _not_a_route()
    return Exposure(variant=variant, **values)


def _not_a_route() -> InvalidArgument:
    return InvalidArgument("route is not one that a search makes", hint="SELECT * FROM semantic_search(...)")
