"""Makes vectors in the process of the worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.encoder import Work
from pgml_tune.service.chunking import check_sizes, cut
from pgml_tune.service.inputs import refuse_cut
from pgml_tune.service.models import Models
from pgml_tune.settings import Limits

_KIND = "passage"


@dataclass(slots=True)
class LocalPassages:
    """The models that the queues of all databases need; one call at a time."""

    model_root: Path
    stopping: threading.Event
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _models: Models = field(init=False)
    _threads: int = field(init=False)

    def __post_init__(self) -> None:
        self._models = Models(self.model_root)
        self._threads = len(os.sched_getaffinity(0))

    def chunks(self, digest: str, text: str, chunk_tokens: int, chunk_overlap: int) -> list[str]:
        """A text in pieces of at most so many tokens."""
        with self._lock:
            embedder = self._models.get(Embedder, digest, self._threads)
            check_sizes(chunk_tokens, chunk_overlap, embedder.longest_text(_KIND))
            spans = embedder.spans(text, self._checkpoint)
        return [text[begin:end] for begin, end in cut(text, spans, chunk_tokens, chunk_overlap)]

    def embed(self, digest: str, texts: Sequence[str], limits: Limits) -> list[str]:
        """The vectors of texts in the text form of type vector."""
        work = Work()
        with self._lock:
            embedder = self._models.get(Embedder, digest, self._threads)
            vectors = embedder.embed(texts, _KIND, work, self._checkpoint)
        refuse_cut(work, limits, embedder.config.max_tokens)
        return [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in vectors]

    def _checkpoint(self) -> None:
        if self.stopping.is_set():
            raise ConnectionError("the worker ends")
