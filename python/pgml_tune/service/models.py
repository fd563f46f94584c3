"""The models a session has loaded."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TypeVar

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.encoder import Encoder

MAX_LOADED = 3
_Encoder = TypeVar("_Encoder", bound=Encoder)


class Models:
    """The most recently used models, by what they do and digest."""

    def __init__(self, model_root: Path) -> None:
        self._model_root = model_root
        self.load_count = 0  # models that this session has loaded so far
        self._loaded: OrderedDict[tuple[type[Encoder], str], tuple[int, Encoder]] = OrderedDict()

    def get(self, kind: type[_Encoder], digest: str, threads: int | None) -> _Encoder:
        """The model of this artifact on so many threads, loaded if it is not; None takes it as it is, or one thread."""
        key = kind, digest
        known = self._loaded.get(key)
        if known is not None and threads in (known[0], None) and isinstance(known[1], kind):
            self._loaded.move_to_end(key)
            return known[1]
        self._loaded.pop(key, None)
        while len(self._loaded) >= MAX_LOADED:
            self._loaded.popitem(last=False)
        self.load_count += 1
        encoder = kind(Artifact(self._model_root, digest), threads or 1)
        self._loaded[key] = (threads or 1, encoder)
        return encoder
