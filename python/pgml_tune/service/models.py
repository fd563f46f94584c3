"""The models a session has loaded."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.embedder import Embedder

MAX_LOADED = 3


class Models:
    """The most recently used models, by digest."""

    def __init__(self, model_root: Path) -> None:
        self._model_root = model_root
        self._loaded: OrderedDict[str, tuple[int, Embedder]] = OrderedDict()

    def get(self, digest: str, threads: int | None) -> Embedder:
        """The model of this artifact on so many threads, loaded if it is not; None takes it as it is, or one thread."""
        known = self._loaded.get(digest)
        if known is not None and threads in (known[0], None):
            self._loaded.move_to_end(digest)
            return known[1]
        self._loaded.pop(digest, None)
        while len(self._loaded) >= MAX_LOADED:
            self._loaded.popitem(last=False)
        embedder = Embedder(Artifact(self._model_root, digest), threads or 1)
        self._loaded[digest] = (threads or 1, embedder)
        return embedder
