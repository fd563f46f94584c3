"""Models in the worker that serves them for all sessions."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.generator import Generator
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.work import Work
from pgml_tune.ipc import operations
from pgml_tune.ipc.client import Client, Reply
from pgml_tune.service.remote_generator import RemoteGenerator
from pgml_tune.service.runtime import Computed, How, added

REQUEST_TEXTS, REQUEST_BYTES = 64, 1 << 20  # of one request, unless a single text is larger
_INTEGER = "q"  # of an array


class RemoteRuntime:
    """Asks the worker; `wait` lets a cancel take effect meanwhile where a call brings nothing for that."""

    def __init__(self, client: Client, wait: Callable[[], None] = lambda: None, *, is_bulk: bool = False) -> None:
        self._client = client
        self._wait = wait
        self._common = {"bulk": True} if is_bulk else {}
        self.load_count = 0
        self._generators: dict[str, RemoteGenerator] = {}

    def embed(
        self, digest: str, texts: Sequence[str], how: How, work: Work, checkpoint: Callable[[], None] | None
    ) -> Computed:
        contents = [text.encode() for text in texts]
        # Texts of about one length go together: padding is what costs.
        order = sorted(range(len(contents)), key=lambda place: len(contents[place]))
        asked = {
            "op": operations.EMBED, "kind": how.kind, "alone": how.is_alone, "raw": how.has_raws,
            "total": how.has_total, **self._common,
        }  # fmt: skip
        requests = ((asked, [contents[place] for place in group]) for group in _groups(order, contents))
        forms, raws, total, max_tokens = [""] * len(texts), [b""] * len(texts), b"", 0
        places = iter(order)
        spent = Work()
        for reply in self._client.call(digest, requests, checkpoint or self._wait):
            self._note(reply, spent)
            max_tokens = reply.values["max_tokens"]
            pieces = iter(reply.pieces)
            for _ in range(reply.values["texts"]):
                place = next(places)
                forms[place] = next(pieces).decode("ascii")
                if how.has_raws:
                    raws[place] = next(pieces)
            if how.has_total:
                total = added(total, next(pieces))
        _add(work, spent)
        return Computed(forms, raws if how.has_raws else [], total, max_tokens)

    def classify(
        self, digest: str, text: str, top_k: int, threads: int | None, work: Work, checkpoint: Callable[[], None]
    ) -> tuple[list[tuple[str, float]], int]:
        reply = self._ask(digest, {"op": operations.CLASSIFY, "top_k": top_k}, text.encode(), checkpoint)
        self._note(reply, work)
        return [(label, score) for label, score in reply.values["labels"]], reply.values["max_tokens"]

    def sketch(self, digest: str, total: bytes) -> str:
        return str(self._ask(digest, {"op": operations.SKETCH}, total).values["sketch"])

    def count_tokens(self, digest: str, text: str) -> int:
        return int(self._ask(digest, {"op": operations.COUNT}, text.encode()).values["tokens"])

    def longest_text(self, digest: str, kind: str) -> int:
        return int(self._ask(digest, {"op": operations.LONGEST, "kind": kind}).values["tokens"])

    def spans(self, digest: str, text: str, checkpoint: Callable[[], None]) -> Spans:
        reply = self._ask(digest, {"op": operations.SPANS}, text.encode(), checkpoint)
        starts, ends = reply.pieces
        return Spans(array(_INTEGER, starts), array(_INTEGER, ends))

    def generator(self, artifact: Artifact) -> Generator:
        """A model that writes SQL there; who asks for it has much to do before it writes."""
        self._client.reach(self._wait)
        known = self._generators.get(artifact.digest)
        if known is None:
            self._generators.clear()  # a session seldom asks several
            known = self._generators[artifact.digest] = RemoteGenerator(artifact, self._client, self._wait)
        return known

    def load(self, digest: str) -> None:
        """Let the worker load a model before somebody needs it."""
        self._ask(digest, {"op": operations.LOAD})

    def _ask(
        self,
        digest: str,
        values: Mapping[str, Any],
        piece: bytes | None = None,
        checkpoint: Callable[[], None] | None = None,
    ) -> Reply:
        pieces = [] if piece is None else [piece]
        return self._client.ask(digest, {**values, **self._common}, pieces, checkpoint or self._wait)

    def _note(self, reply: Reply, work: Work) -> None:
        values = reply.values
        _add(work, Work(values["tokens"], values["unknown"], values["truncated"], values["seconds"]))
        self.load_count += values["loads"]


def _groups(order: Sequence[int], contents: Sequence[bytes]) -> Iterator[list[int]]:
    """Places of texts that go in one request."""
    group: list[int] = []
    size = 0
    for place in order:
        if group and (len(group) == REQUEST_TEXTS or size + len(contents[place]) > REQUEST_BYTES):
            yield group
            group, size = [], 0
        group.append(place)
        size += len(contents[place])
    if group:
        yield group


def _add(work: Work, more: Work) -> None:
    work.tokens += more.tokens
    work.unknown += more.unknown
    work.truncated += more.truncated
    work.seconds += more.seconds
