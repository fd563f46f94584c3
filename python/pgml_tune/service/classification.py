"""Texts to labels."""

from __future__ import annotations

import numpy as np

from pgml_tune.db import Session
from pgml_tune.engine.classifier import Classifier
from pgml_tune.engine.encoder import Work
from pgml_tune.errors import InvalidArgument
from pgml_tune.service.calls import Calls
from pgml_tune.service.inputs import encoded, refuse_cut
from pgml_tune.service.models import Models


class Classification:
    """What the functions of sql/functions/classification.sql do, for one session."""

    def __init__(self, models: Models, calls: Calls) -> None:
        self._models = models
        self._calls = calls

    def classify(self, db: Session, text: str, model: str | None, top_k: int | None) -> list[tuple[str, float]]:
        """The most probable labels of a text with their probabilities, most probable first; equal ones in their order.

        There are as many as `top_k` says, or as the model has if those are fewer.
        """
        if top_k is None or top_k < 1:
            raise InvalidArgument("top_k is not 1 or more", hint="SELECT * FROM classify('text', 'model', 3)")
        target, limits = self._calls.begin(db, model, Classifier.task)
        encoded(text, limits)
        classifier, work = self._models.get(Classifier, target.digest, limits.threads), Work()
        (probabilities,) = classifier.classify([text], work, db.checkpoint)
        refuse_cut(work, limits, classifier.config.max_tokens)
        self._calls.count_work(target, work)
        self._calls.finish(db, target, 1)
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
        return [(classifier.config.labels[place], float(probabilities[place])) for place in best]
