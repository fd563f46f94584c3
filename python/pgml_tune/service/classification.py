"""Texts to labels."""

from __future__ import annotations

from pgml_tune.db import Session
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument
from pgml_tune.service.calls import Call, Calls
from pgml_tune.service.inputs import encoded, refuse_cut
from pgml_tune.service.routing import Router
from pgml_tune.service.runtime import Runtimes

TASK = "classification"


class Classification:
    """What the functions of sql/functions/classification.sql do, for one session."""

    def __init__(self, runtimes: Runtimes, calls: Calls, router: Router) -> None:
        self._runtimes = runtimes
        self._calls = calls
        self._router = router

    def classify(self, db: Session, text: str, model: str | None, top_k: int | None) -> list[tuple[str, float]]:
        """The most probable labels of a text with their probabilities, most probable first; equal ones in their order.

        There are as many as `top_k` says, or as the model has if those are fewer.
        """
        if top_k is None or top_k < 1:
            raise InvalidArgument("top_k is not 1 or more", hint="SELECT * FROM classify('text', 'model', 3)")
        call = self._calls.begin(db, "classify", model, TASK)
        with self._calls.measuring(db, call):
            call.text, call.sizes = text, (len(encoded(text, call.limits)),)
            self._router.send(db, call, text)
            found = self._router.answer(call, lambda: self._classify(db, call, text, top_k))
            call.output_count, call.answer = len(found), found[0][0]
        return found

    def _classify(self, db: Session, call: Call, text: str, top_k: int) -> list[tuple[str, float]]:
        digest, threads = call.target.digest, call.limits.threads
        call.work = work = Work()
        found, max_tokens = self._runtimes.run(
            lambda runtime: runtime.classify(digest, text, top_k, threads, work, db.checkpoint)
        )
        refuse_cut(work, call.limits, max_tokens)
        return found
