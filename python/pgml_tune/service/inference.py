"""What embed() and its kin do."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from pgml_tune.db import Session
from pgml_tune.engine.artifact import bound_digest
from pgml_tune.engine.spans import Spans
from pgml_tune.errors import InvalidArgument, LimitExceeded, ObjectNotFound
from pgml_tune.records import KINDS, ModelReference, check_name
from pgml_tune.service.calls import Call, Calls
from pgml_tune.service.chunking import check_sizes, cut
from pgml_tune.service.inputs import encoded, raise_limit
from pgml_tune.service.routing import Router
from pgml_tune.service.runtime import Runtimes
from pgml_tune.service.vectors import Terms, Vectors
from pgml_tune.settings import Limits, parse_cache_preference

TASK = "embedding"


class Inference:
    """What the functions of sql/functions/embedding.sql do, for one session."""

    def __init__(self, model_root: Path, calls: Calls, router: Router, vectors: Vectors, runtimes: Runtimes) -> None:
        self._model_root = model_root
        self._calls = calls
        self._router = router
        self._vectors = vectors
        self._runtimes = runtimes
        self._pinned: dict[ModelReference, str] = {}

    def embed(self, db: Session, text: str, model: str | None, kind: str | None) -> str:
        """The vector of a text, in the text form of type vector."""
        terms, call = self._begin(db, "embed", model, kind)
        with self._calls.measuring(db, call):
            content = encoded(text, call.limits)
            call.text, call.sizes = text, (len(content),)
            self._router.send(db, call, text)
            return self._router.answer(call, lambda: self._vectors.of_text(db, call, terms, text, content))

    def embed_many(
        self, db: Session, texts: Sequence[str], model: str | None, kind: str | None
    ) -> tuple[list[str], int]:
        """The vectors of texts in their order, and how many texts were cut."""
        terms, call = self._begin(db, "batch", model, kind)
        with self._calls.checking(db, call):
            if len(texts) > call.limits.max_batch_texts:
                raise LimitExceeded(
                    f"array has {len(texts)} texts, the limit is {call.limits.max_batch_texts}",
                    hint=raise_limit("max_batch_texts", len(texts)),
                )
            call.sizes = _sizes(texts, call.limits)
        vectors: dict[int, str] = {}
        truncated = 0
        for part, places in self._router.divide(db, call, texts):
            found = self._embed_part(db, part, terms, [texts[place] for place in places])
            vectors.update(zip(places, found, strict=True))
            truncated += part.truncated
        return [vectors[place] for place in range(len(texts))], truncated

    def embed_passages(
        self, db: Session, texts: Sequence[str], model: str | None, chunk_tokens: int | None, chunk_overlap: int
    ) -> tuple[list[tuple[int, int, str]], int]:
        """The number of a text, of a chunk in it, and the vector of each chunk in order; and how many were cut.

        Without chunk_tokens each text is one chunk. Texts and chunks count from 1.
        """
        terms, call = self._begin(db, "passages", model, "passage")
        with self._calls.measuring(db, call):
            _sizes(texts, call.limits)
            places: list[tuple[int, int]] = []
            passages: list[str] = []
            for text_no, chunks in enumerate(self._cut(db, call, texts, chunk_tokens, chunk_overlap), 1):
                places.extend((text_no, chunk_no) for chunk_no in range(1, len(chunks) + 1))
                passages.extend(chunks)
            call.sizes = _sizes(passages, call.limits)
            vectors = self._vectors.of_texts(db, call, terms, passages)
        return [(*place, vector) for place, vector in zip(places, vectors, strict=True)], call.truncated

    def longest_chunk(self, db: Session, model: str | None) -> int:
        """The greatest chunk_tokens that the model can take."""
        terms, call = self._begin(db, "passages", model, "passage")
        return self._runtimes.run(lambda runtime: runtime.longest_text(call.target.digest, terms.kind))

    def embed_pinned(self, text: str, model: str, version: str, kind: str | None, role: int) -> str:
        """The vector of a text under an immutable version, found by file name: no SQL, so it runs anywhere."""
        vector = self._vectors.alone(self._pinned_digest(model, version), text, _check_kind(kind), role)
        self._calls.number()
        return vector

    def similarity(self, db: Session, a: str, b: str, model: str | None) -> float:
        """The cosine of the vectors of two texts, -1 to 1."""
        terms, call = self._begin(db, "similarity", model, "passage")
        with self._calls.measuring(db, call):
            call.sizes = _sizes([a, b], call.limits)
            self._router.send(db, call, f"{a}\0{b}")  # no text holds a NUL
            forms = self._router.answer(call, lambda: self._vectors.of_texts(db, call, terms, [a, b]))
        left, right = (orjson.loads(form) for form in forms)
        return max(-1.0, min(1.0, cosine(left, right)))

    def count_tokens(self, db: Session, text: str, model: str | None) -> int:
        """The tokens of a text, special tokens included and nothing cut."""
        _, call = self._begin(db, "passages", model, "passage")
        encoded(text, call.limits)
        return self._runtimes.run(lambda runtime: runtime.count_tokens(call.target.digest, text))

    def _begin(self, db: Session, task: str, model: str | None, kind: str | None) -> tuple[Terms, Call]:
        preference = parse_cache_preference(db.preference(b"pgml_tune.cache"))
        call = self._calls.begin(db, task, model, TASK)
        return Terms(_check_kind(kind), db.role(), preference), call

    def _embed_part(self, db: Session, call: Call, terms: Terms, texts: Sequence[str]) -> list[str]:
        with self._calls.measuring(db, call):
            return self._router.answer(call, lambda: self._vectors.of_texts(db, call, terms, texts))

    def _cut(
        self, db: Session, call: Call, texts: Sequence[str], chunk_tokens: int | None, chunk_overlap: int
    ) -> Iterator[list[str]]:
        if chunk_tokens is None:
            yield from ([text] for text in texts)
        elif texts:
            digest = call.target.digest
            longest = self._runtimes.run(lambda runtime: runtime.longest_text(digest, "passage"))
            check_sizes(chunk_tokens, chunk_overlap, longest)
            for text in texts:
                spans = self._spans(db, digest, text)
                yield [text[begin:end] for begin, end in cut(text, spans, chunk_tokens, chunk_overlap)]

    def _spans(self, db: Session, digest: str, text: str) -> Spans:
        return self._runtimes.run(lambda runtime: runtime.spans(digest, text, db.checkpoint))

    def _pinned_digest(self, model: str, version: str) -> str:
        reference = ModelReference(model, version)
        digest = self._pinned.get(reference)
        if digest is None:
            check_name(model, "model")
            check_name(version, "version")
            digest = bound_digest(self._model_root, reference)
            if digest is None:
                raise ObjectNotFound(
                    f'"{reference}" is not bound to an artifact on this machine',
                    detail="embed_pinned() finds versions in the model root, not in the registry.",
                    hint="SELECT model, version, artifact_sha256 FROM pgml_tune.model_versions",
                )
            self._pinned[reference] = digest
        return digest


def cosine(left: list[float], right: list[float]) -> float:
    """Of two vectors that are not zero."""
    return _dot(left, right) / math.sqrt(_dot(left, left) * _dot(right, right))


def _dot(left: list[float], right: list[float]) -> float:
    return math.fsum(map(operator.mul, left, right))


def _sizes(texts: Sequence[str], limits: Limits) -> list[int]:
    """The bytes of each text, none of which is too large."""
    return [len(encoded(text, limits)) for text in texts]


def _check_kind(kind: str | None) -> str:
    if kind not in KINDS:
        raise InvalidArgument("kind is neither passage nor query", hint="SELECT embed('text', kind => 'query')")
    return kind
