"""The models a session has loaded."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pgml_tune.engine.artifact import Artifact
from pgml_tune.service.slots import Slots
from pgml_tune.settings import SETTINGS

MAX_LOADED = 3
MOST_SESSIONS = int(SETTINGS["in_process_max_sessions"].default)
_Model = TypeVar("_Model")


@dataclass(frozen=True, slots=True)
class _Loaded:
    threads: int
    model: object
    takes_memory: bool


class Models:
    """The most recently used models, by what opens them and digest."""

    def __init__(self, model_root: Path, slots: Slots) -> None:
        self._model_root = model_root
        self._slots = slots
        self.most_sessions = MOST_SESSIONS  # that may hold models at once
        self.load_count = 0  # models that this session has loaded so far
        self._loaded: OrderedDict[tuple[Callable[[Artifact, int], object], str], _Loaded] = OrderedDict()

    @property
    def digests(self) -> list[str]:
        """The artifacts that are loaded."""
        return [digest for _, digest in self._loaded]

    @property
    def engines(self) -> dict[str, str]:
        """The artifacts that are loaded, and what runs each."""
        return {digest: str(cast(Any, loaded.model).config.engine) for (_, digest), loaded in self._loaded.items()}

    def artifact(self, digest: str) -> Artifact:
        """The files of a model."""
        return Artifact(self._model_root, digest)

    def get(
        self,
        kind: Callable[[Artifact, int], _Model],
        digest: str,
        threads: int | None,
        *,
        takes_memory: bool = True,
    ) -> _Model:
        """The model of this artifact on so many threads, opened if it is not; None takes it as it is, or one thread."""
        key = kind, digest
        known = self._loaded.get(key)
        if known is not None and threads in (known.threads, None):
            self._loaded.move_to_end(key)
            return cast(_Model, known.model)
        if takes_memory:
            self._slots.take(self.most_sessions)
        self._loaded.pop(key, None)
        while len(self._loaded) >= MAX_LOADED:
            self._loaded.popitem(last=False)
        self.load_count += 1
        model = kind(Artifact(self._model_root, digest), threads or 1)
        self._loaded[key] = _Loaded(threads or 1, model, takes_memory)
        return model

    def let_go(self) -> None:
        """Hold no model that takes memory, and no place among those who do."""
        for key in [key for key, loaded in self._loaded.items() if loaded.takes_memory]:
            del self._loaded[key]
        ctypes.CDLL(None).malloc_trim(0)
        self._slots.give_back()
