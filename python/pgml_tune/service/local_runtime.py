"""Models in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import orjson

from pgml_tune.engine.classifier import Classifier
from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.sketch import sketch
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.work import Work
from pgml_tune.service.models import Models
from pgml_tune.service.runtime import Computed, How


class LocalRuntime:
    """Runs the models that the session has loaded."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def embed(
        self, digest: str, texts: Sequence[str], how: How, work: Work, checkpoint: Callable[[], None] | None
    ) -> Computed:
        embedder = self._embedder(digest, how.threads)
        rows = embedder.embed(texts, how.kind, work, checkpoint or _go_on)
        return Computed(
            forms=[orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in rows],
            raws=[row.tobytes() for row in rows] if how.has_raws else [],
            total=rows.sum(axis=0).tobytes() if how.has_total else b"",
            max_tokens=embedder.config.max_tokens,
        )

    def classify(
        self, digest: str, text: str, top_k: int, threads: int | None, work: Work, checkpoint: Callable[[], None]
    ) -> tuple[list[tuple[str, float]], int]:
        classifier = self._models.get(Classifier, digest, threads)
        return classifier.best([text], top_k, work, checkpoint)[0], classifier.config.max_tokens

    def sketch(self, digest: str, total: bytes) -> str:
        return sketch(np.frombuffer(total, np.float32), self._embedder(digest).config.space_id)

    def count_tokens(self, digest: str, text: str) -> int:
        return self._embedder(digest).count_tokens(text)

    def longest_text(self, digest: str, kind: str) -> int:
        return self._embedder(digest).longest_text(kind)

    def spans(self, digest: str, text: str, checkpoint: Callable[[], None]) -> Spans:
        return self._embedder(digest).spans(text, checkpoint)

    def _embedder(self, digest: str, threads: int | None = None) -> Embedder:
        return self._models.get(Embedder, digest, threads)


def _go_on() -> None:
    pass
