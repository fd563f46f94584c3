"""The models that the worker holds: loaded once, kept by use within a budget of memory."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.classifier import Classifier
from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.generator import Generator, open_generator
from pgml_tune.engine.machine import fingerprint
from pgml_tune.engine.machine_memory import free_bytes
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.engine.way import Way
from pgml_tune.errors import ArtifactDamaged, NotSupported, OutOfMemory, QuotaExceeded
from pgml_tune.records import ArtifactConfig
from pgml_tune.serving.choices import Choice

_SPARE_BYTES = 64 << 20
_PINNED_SECONDS = 600.0
_LOADING_SHARE = 2  # memory that loading takes at most, as a multiple of the files
_ENCODERS: dict[str, type[Embedder] | type[Classifier]] = {kind.task: kind for kind in (Embedder, Classifier)}
_libc = ctypes.CDLL(None)
log = logging.getLogger("pgml_tune.serving")


class Model:
    """A loaded model, and what is known of its use."""

    def __init__(self, artifact: Artifact, threads: int, way: Way | None = None) -> None:
        task = artifact.config().task
        before = _resident_bytes()
        self.digest = artifact.digest
        self.way = way  # None: its own engine
        self.choice: Choice | None = None  # that was in force when it was opened
        self.writer = open_generator(artifact, threads) if task == Generator.task else None
        self._encoder = _ENCODERS[task](artifact, 1, way) if task in _ENCODERS else None
        if self._encoder is not None:
            self._encoder.run([[0, 0], [0]])  # the first batch takes longer than those that follow
        self.bytes = max(artifact.size_bytes, _resident_bytes() - before)
        self._tokenizer_file = artifact.path("tokenizer.json")
        self._lock = threading.Lock()
        self.calls = 0
        self.used_at = time.time()
        self.users = 0  # requests on their way

    @property
    def config(self) -> ArtifactConfig:
        return self.encoder.config if self.writer is None else self.writer.config

    @property
    def engine(self) -> str:
        return self.config.engine if self.way is None else self.way.engine

    def most_texts(self, allowed: int) -> int:
        """How many texts a batch of it holds at most."""
        return allowed if self.way is None else min(allowed, self.way.batch_size)

    @property
    def encoder(self) -> Embedder | Classifier:
        """What computes rows; a model that writes has none."""
        assert self._encoder is not None
        return self._encoder

    # Measuring changes a tokenizer for a moment, so it has one of its own.
    @cached_property
    def _measuring(self) -> TextTokenizer:
        return TextTokenizer(self._tokenizer_file, self.config.max_tokens)

    def count_tokens(self, text: str) -> int:
        with self._lock:
            return self._measuring.count(text)

    def longest_text(self, kind: str) -> int:
        with self._lock:
            return self._measuring.longest_text(self.config.prompt(kind))

    def spans(self, text: str) -> Spans:
        with self._lock:
            return self._measuring.spans(text)


@dataclass(slots=True)
class Models:
    """The models in memory; used by one thread, but for `open`."""

    model_root: Path
    budget_bytes: int
    loaded: dict[str, Model] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    opening: dict[str, int] = field(default_factory=dict)  # bytes of those that are being loaded
    choices: Mapping[str, Choice] = field(default_factory=dict)  # by digest; the others run by their own engine

    def get(self, digest: str) -> Model | None:
        """A model, if it is loaded."""
        model = self.loaded.get(digest)
        if model is not None:
            model.used_at = time.time()
        return model

    def make_room(self, digest: str) -> None:
        """Let go of models that were not used for longest until one more fits; refused where it cannot."""
        needed = Artifact(self.model_root, digest).size_bytes
        replaced = self.loaded.get(digest)  # by the same model, opened in another way
        while self._bytes + needed - (0 if replaced is None else replaced.bytes) > self.budget_bytes:
            idle = [model for model in self.loaded.values() if self._may_go(model) and model is not replaced]
            if not idle:
                raise QuotaExceeded(
                    "the models that the worker holds leave no room for one more",
                    detail=f"It takes {needed} bytes of the {self.budget_bytes} in setting serve_memory_bytes.",
                    hint="SELECT * FROM pgml_tune.loaded_models",
                )
            self.drop(min(idle, key=lambda model: (model.digest in self.pins, model.used_at)).digest)
        free = free_bytes()
        if free < _LOADING_SHARE * needed + _SPARE_BYTES:
            raise OutOfMemory(
                "the machine has too little free memory to load the model",
                detail=f"It has {free} bytes, the model takes {needed} and as much again while it is loaded.",
            )
        self.opening[digest] = needed

    @property
    def _bytes(self) -> int:
        staying = (model.bytes for digest, model in self.loaded.items() if digest not in self.opening)
        return sum(staying) + sum(self.opening.values())

    def may_have_room(self, digest: str) -> bool:
        """Whether one more fits as soon as nobody uses, or waits for, those that may go."""
        kept = sum(model.bytes for model in self.loaded.values() if self._is_kept(model))
        return Artifact(self.model_root, digest).size_bytes + kept <= self.budget_bytes

    def _may_go(self, model: Model) -> bool:
        return not model.users and not self._is_kept(model)

    def _is_kept(self, model: Model) -> bool:
        # What serves is kept, but not against a model that somebody asks for while nobody asks for this one.
        return model.digest in self.pins and time.time() - model.used_at < _PINNED_SECONDS

    def open(self, digest: str, threads: int) -> Model:
        """A model from its files, in the way that was chosen if this is the machine for that; takes long."""
        artifact, choice = Artifact(self.model_root, digest), self.choices.get(digest)
        model = None if choice is None else _chosen_model(artifact, threads, choice)
        if model is None:
            model = Model(artifact, threads)
        model.choice = choice
        return model

    def outdated(self) -> list[str]:
        """Loaded models for which another way was chosen since."""
        return sorted(digest for digest, model in self.loaded.items() if model.choice != self.choices.get(digest))

    def give_up(self, digest: str) -> None:
        """Expect a model no longer."""
        self.opening.pop(digest, None)

    def keep(self, model: Model) -> None:
        self.give_up(model.digest)
        before = self.loaded.get(model.digest)
        if before is not None:  # opened in another way: whoever uses the one before still ends here
            model.users, model.calls, model.used_at = before.users, before.calls, before.used_at
        self.loaded[model.digest] = model

    def drop(self, digest: str) -> None:
        """Let go of a model."""
        del self.loaded[digest]
        _libc.malloc_trim(0)

    def pin(self, digests: Iterable[str]) -> list[str]:
        """Keep these whatever else is used, and no others; those of them that are not loaded."""
        self.pins = frozenset(digests)
        return sorted(self.pins - self.loaded.keys())


def _chosen_model(artifact: Artifact, threads: int, choice: Choice) -> Model | None:
    """The model in the way that was chosen; None where this is another machine, or a library is missing."""
    name, here = artifact.digest[:12], fingerprint()
    if choice.machine != here:
        told = "%s runs by its own engine: %s was chosen on (%s), this is (%s)"
        log.warning(told, name, choice.way, choice.machine, here)
        return None
    try:
        return Model(artifact, threads, choice.way.within(threads))
    except (NotSupported, ArtifactDamaged) as error:
        log.warning("%s runs by its own engine, not by %s: %s. %s", name, choice.way, error.message, error.detail)
        return None


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
