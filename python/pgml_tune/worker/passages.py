"""The vectors of texts that wait in the queue, from whatever runs the models."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from pgml_tune.engine.work import Work
from pgml_tune.errors import SystemFault, TuneError
from pgml_tune.ipc.addresses import socket_file
from pgml_tune.ipc.client import Client
from pgml_tune.service.chunking import check_sizes, cut
from pgml_tune.service.inputs import refuse_cut
from pgml_tune.service.models import Models
from pgml_tune.service.remote_runtime import RemoteRuntime
from pgml_tune.service.runtime import How, Runtime, Runtimes
from pgml_tune.service.slots import Slots
from pgml_tune.settings import Limits, Paths

_KIND = "passage"
_SOUND = "a"  # a text that no model fails on


def open_passages(paths: Paths, stopping: threading.Event, *, is_served: bool) -> Passages:
    """Asks the process that serves models; models are loaded here only where no process of ours serves them."""
    models = Models(paths.model_root, Slots(paths.spool_dir))

    def open_local() -> Runtime:
        from pgml_tune.service.local_runtime import LocalRuntime  # loads the libraries that compute

        return LocalRuntime(models)

    preference = "worker" if is_served else "auto"
    client = Client(socket_file(paths))
    return Passages(Runtimes(open_local, RemoteRuntime(client, is_bulk=True), lambda: preference, models), stopping)


class Passages:
    """Asks one runtime, for one thread."""

    def __init__(self, runtimes: Runtimes, stopping: threading.Event) -> None:
        self._runtimes = runtimes
        self._stopping = stopping

    def chunks(self, digest: str, text: str, chunk_tokens: int, chunk_overlap: int) -> list[str]:
        """A text in pieces of at most so many tokens."""

        def cut_up(runtime: Runtime) -> list[str]:
            check_sizes(chunk_tokens, chunk_overlap, runtime.longest_text(digest, _KIND))
            spans = runtime.spans(digest, text, self._checkpoint)
            return [text[begin:end] for begin, end in cut(text, spans, chunk_tokens, chunk_overlap)]

        return self._runtimes.run(cut_up)

    def embed(self, digest: str, texts: Sequence[str], limits: Limits, work: Work) -> list[bytes]:
        """The vectors of texts as 32-bit floats."""
        how = How(_KIND, threads=len(os.sched_getaffinity(0)), has_raws=True)
        computed = self._runtimes.run(lambda runtime: runtime.embed(digest, texts, how, work, self._checkpoint))
        refuse_cut(work, limits, computed.max_tokens)
        return computed.raws

    def is_well(self, digest: str, limits: Limits) -> bool:
        """Whether the model computes another text now."""
        if self._stopping.is_set():
            return False
        try:
            self.embed(digest, [_SOUND], limits, Work())
        except TuneError:
            return False
        return True

    def _checkpoint(self) -> None:
        if self._stopping.is_set():
            raise SystemFault("the worker ends")
