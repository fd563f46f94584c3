"""Where a model runs: in this process, or in the worker that serves models. No runtime is loaded here."""

from __future__ import annotations

import contextlib
import operator
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import orjson

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.generator import Generator
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.work import Work
from pgml_tune.errors import NotSupported, SystemFault
from pgml_tune.ipc.client import WorkerLost, WorkerSilent
from pgml_tune.settings import parse_runtime_preference

_SHUN_SECONDS = 15.0  # by then a worker that stands still has been replaced
_KEEP_SECONDS = 60.0  # that a session keeps its own models after the worker has answered again
_FLOAT = "f"  # numbers of a vector, as arrays call them
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class How:
    """What is wanted of texts that are embedded."""

    kind: str
    threads: int | None = None  # in this process; None: as many as the model has, or one
    is_alone: bool = False  # no other text may be in the batch
    has_raws: bool = False
    has_total: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """The vectors of texts in their order."""

    forms: list[str]  # as the input of type vector takes them
    raws: list[bytes]  # the same numbers as 32-bit floats, if they were wanted
    total: bytes  # the sum of all, if it was wanted
    max_tokens: int  # that the model reads of a text


class Runtime(Protocol):
    """Runs the models of artifacts, which it loads when they are asked for."""

    def embed(
        self, digest: str, texts: Sequence[str], how: How, work: Work, checkpoint: Callable[[], None] | None
    ) -> Computed: ...

    def classify(
        self, digest: str, text: str, top_k: int, threads: int | None, work: Work, checkpoint: Callable[[], None]
    ) -> tuple[list[tuple[str, float]], int]:
        """The most probable labels with their probabilities, and how many tokens the model reads of a text."""
        ...

    def sketch(self, digest: str, total: bytes) -> str:
        """Where the mean of vectors lies whose sum this is."""
        ...

    def count_tokens(self, digest: str, text: str) -> int: ...

    def longest_text(self, digest: str, kind: str) -> int: ...

    def spans(self, digest: str, text: str, checkpoint: Callable[[], None]) -> Spans: ...


class Remote(Runtime, Protocol):
    """The worker."""

    load_count: int  # how many loads the session has waited for

    def load(self, digest: str) -> None: ...

    def generator(self, artifact: Artifact) -> Generator: ...


class Held(Protocol):
    """The models in this process."""

    load_count: int
    most_sessions: int

    def let_go(self) -> None: ...


class Runtimes:
    """Chooses for each call where its model runs."""

    def __init__(
        self, local: Callable[[], Runtime], remote: Remote, preference: Callable[[], str | None], models: Held
    ) -> None:
        self._open_local = local
        self._local: Runtime | None = None
        self._remote = remote
        self._preference = preference
        self._models = models
        self._ran_here_at: float | None = None  # None: it has let go of what that took
        self._shunned_until = 0.0  # by time.monotonic(): whoever stands still keeps a session waiting once only

    @property
    def load_count(self) -> int:
        """Models that this session has waited for, wherever they were loaded."""
        return self._remote.load_count + self._models.load_count

    def bound(self, most_sessions: int) -> None:
        """Let only so many sessions hold models of their own."""
        self._models.most_sessions = most_sessions

    def load(self, digest: str) -> None:
        """Let the worker load a model before calls go to it; where there is none, each session loads its own."""
        if parse_runtime_preference(self._preference()) != "in_process":
            with contextlib.suppress(WorkerLost, NotSupported):
                self._remote.load(digest)

    def run(self, use: Callable[[Runtime], Result]) -> Result:
        """What comes of a call, in the worker if it is there and may be asked, else in this process."""
        return self.choose(use, lambda: use(self._local_runtime()))

    def choose(self, there: Callable[[Remote], Result], here: Callable[[], Result]) -> Result:
        """What comes of a call that is made otherwise in the worker than in this process."""
        preference = parse_runtime_preference(self._preference())
        if preference != "in_process":
            try:
                if preference == "worker" or time.monotonic() >= self._shunned_until:
                    result = there(self._remote)
                    self._leave_to_worker()
                    return result
            except WorkerLost as lost:
                if isinstance(lost, WorkerSilent):
                    self._shunned_until = time.monotonic() + _SHUN_SECONDS
                if preference == "worker":
                    raise SystemFault(
                        "the worker does not answer",
                        detail=f"It is asked because pgml_tune.runtime is worker: {lost}.",
                        hint="Start it: pgml-tune worker. Or: SET pgml_tune.runtime = 'auto'",
                    ) from None
        self._ran_here_at = time.monotonic()
        return here()

    def _leave_to_worker(self) -> None:
        """Keep no model that the worker has, too, so that its next absence finds memory and a place."""
        if self._ran_here_at is not None and time.monotonic() - self._ran_here_at > _KEEP_SECONDS:
            self._ran_here_at = None
            self._models.let_go()

    def _local_runtime(self) -> Runtime:
        if self._local is None:
            self._local = self._open_local()
        return self._local


def text_form(raw: bytes) -> str:
    """A vector of 32-bit floats as the input of type vector takes it."""
    return orjson.dumps(array(_FLOAT, raw).tolist()).decode()


def added(one: bytes, other: bytes) -> bytes:
    """The sum of two vectors of 32-bit floats; none is like zeros."""
    if not one or not other:
        return one or other
    return array(_FLOAT, map(operator.add, array(_FLOAT, one), array(_FLOAT, other))).tobytes()
