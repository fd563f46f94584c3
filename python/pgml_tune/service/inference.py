"""Texts to vectors: session cache, table cache, engine, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from pgml_tune.db import Session
from pgml_tune.engine.artifact import bound_digest
from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.embedder import Embedder
from pgml_tune.engine.encoder import Work
from pgml_tune.errors import InvalidArgument, LimitExceeded, ObjectNotFound
from pgml_tune.records import KINDS, ModelReference, check_name
from pgml_tune.service.calls import Calls
from pgml_tune.service.chunking import check_sizes, cut
from pgml_tune.service.inputs import encoded, raise_limit, refuse_cut
from pgml_tune.service.keys import KeyMaker
from pgml_tune.service.models import Models
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import Limits, parse_cache_preference
from pgml_tune.store.cache import CacheEntry
from pgml_tune.store.registry import Target

COMPUTE_TEXTS = 2048  # computed and cached before the next are taken up
_PINNED_LIMITS = Limits.from_rows({})  # embed_pinned() reads no table, so it runs under the defaults


@dataclass(slots=True)
class _Call:
    """One call: what it goes to and under which rules."""

    target: Target
    limits: Limits
    kind: str
    role: int
    preference: str  # on | session | off

    @property
    def uses_session_cache(self) -> bool:
        return self.preference != "off"

    @property
    def uses_table_cache(self) -> bool:
        return self.preference == "on" and self.limits.table_cache == "on"

    def scope(self) -> str:
        """Who shares a cached vector of this call."""
        owner = self.role if self.limits.cache_scope == "role" else "shared"
        return f"{self.target.digest}:{self.kind}:{self.limits.long_input}:{owner}"


class Inference:
    """What the functions of sql/functions/embedding.sql do, for one session."""

    def __init__(
        self,
        model_root: Path,
        models: Models,
        calls: Calls,
        keys: KeyMaker,
        vectors: SessionCache,
        table: TableCache,
    ) -> None:
        self._model_root = model_root
        self._models = models
        self._calls = calls
        self._keys = keys
        self._vectors = vectors
        self._table = table
        self._pinned: dict[ModelReference, str] = {}
        self._session_cache_bytes = _PINNED_LIMITS.session_cache_bytes  # as last seen

    def embed(self, db: Session, text: str, model: str | None, kind: str | None) -> str:
        """The vector of a text, in the text form of type vector."""
        call = self._begin(db, model, kind)
        content = encoded(text, call.limits)
        key = self._keys.key(call.scope(), content) if call.uses_session_cache else b""
        vector = self._vectors.get(key) if call.uses_session_cache else None
        if vector is None:
            vector = self._look_further(db, call, {key: text})[0][key]
        else:
            self._calls.count(call.target).session_hits += 1
        self._finish(db, call, 1)
        return vector

    def embed_many(
        self, db: Session, texts: Sequence[str], model: str | None, kind: str | None
    ) -> tuple[list[str], int]:
        """The vectors of texts in their order, and how many texts were cut."""
        call = self._begin(db, model, kind)
        if len(texts) > call.limits.max_batch_texts:
            raise LimitExceeded(
                f"array has {len(texts)} texts, the limit is {call.limits.max_batch_texts}",
                hint=raise_limit("max_batch_texts", len(texts)),
            )
        vectors, truncated = self._embed_all(db, call, texts)
        self._finish(db, call, len(texts))
        return vectors, truncated

    def embed_passages(
        self, db: Session, texts: Sequence[str], model: str | None, chunk_tokens: int | None, chunk_overlap: int
    ) -> tuple[list[tuple[int, int, str]], int]:
        """The number of a text, of a chunk in it, and the vector of each chunk in order; and how many were cut.

        Without chunk_tokens each text is one chunk. Texts and chunks count from 1.
        """
        call = self._begin(db, model, "passage")
        for text in texts:
            encoded(text, call.limits)
        places: list[tuple[int, int]] = []
        passages: list[str] = []
        for text_no, chunks in enumerate(self._cut(db, call, texts, chunk_tokens, chunk_overlap), 1):
            places.extend((text_no, chunk_no) for chunk_no in range(1, len(chunks) + 1))
            passages.extend(chunks)
        vectors, truncated = self._embed_all(db, call, passages)
        self._finish(db, call, len(passages))
        return [(*place, vector) for place, vector in zip(places, vectors, strict=True)], truncated

    def longest_chunk(self, db: Session, model: str | None) -> int:
        """The greatest chunk_tokens that the model can take."""
        call = self._begin(db, model, "passage")
        return self._embedder(call).longest_text(call.kind)

    def embed_pinned(self, text: str, model: str, version: str, kind: str | None, role: int) -> str:
        """The vector of a text under an immutable version, found by file name: no SQL, so it runs anywhere."""
        digest = self._pinned_digest(model, version)
        kind = _check_kind(kind)
        # No setting reaches this function, so none is proposed.
        content = encoded(text, _PINNED_LIMITS, is_bounded_by_setting=False)
        key = self._keys.key(f"{digest}:{kind}:pinned:{role}", content)
        vector = self._vectors.get(key)
        if vector is None:
            # Alone, whatever the version: this function must give one result for one text.
            vector = _text_form(self._models.get(Embedder, digest, None).embed([text], kind, Work())[0])
            self._vectors.put(key, vector, self._session_cache_bytes)
        self._calls.number()
        return vector

    def similarity(self, db: Session, a: str, b: str, model: str | None) -> float:
        """The cosine of the vectors of two texts, -1 to 1."""
        forms, _ = self.embed_many(db, [a, b], model, "passage")
        left, right = (np.array(orjson.loads(form), np.float64) for form in forms)
        cosine = float(left @ right / np.sqrt((left @ left) * (right @ right)))
        return max(-1.0, min(1.0, cosine))

    def count_tokens(self, db: Session, text: str, model: str | None) -> int:
        """The tokens of a text, special tokens included and nothing cut."""
        call = self._begin(db, model, "passage")
        encoded(text, call.limits)
        return self._embedder(call).count_tokens(text)

    def _cut(
        self, db: Session, call: _Call, texts: Sequence[str], chunk_tokens: int | None, chunk_overlap: int
    ) -> Iterator[list[str]]:
        if chunk_tokens is None:
            yield from ([text] for text in texts)
        elif texts:
            embedder = self._embedder(call)
            check_sizes(chunk_tokens, chunk_overlap, embedder.longest_text(call.kind))
            for text in texts:
                spans = embedder.spans(text, db.checkpoint)
                yield [text[begin:end] for begin, end in cut(text, spans, chunk_tokens, chunk_overlap)]

    def _embedder(self, call: _Call) -> Embedder:
        return self._models.get(Embedder, call.target.digest, call.limits.threads)

    def _begin(self, db: Session, model: str | None, kind: str | None) -> _Call:
        preference = parse_cache_preference(db.preference(b"pgml_tune.cache"))
        target, limits = self._calls.begin(db, model, Embedder.task)
        self._session_cache_bytes = limits.session_cache_bytes
        return _Call(target, limits, _check_kind(kind), db.role(), preference)

    def _finish(self, db: Session, call: _Call, text_count: int) -> None:
        self._calls.finish(db, call.target, text_count)

    def _embed_all(self, db: Session, call: _Call, texts: Sequence[str]) -> tuple[list[str], int]:
        scope = call.scope()
        keys = [self._keys.key(scope, encoded(text, call.limits)) for text in texts]
        vectors: dict[bytes, str] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            vector = self._vectors.get(key) if call.uses_session_cache else None
            if vector is None:
                missing[key] = text
            else:
                vectors[key] = vector
        # A text that stands twice in the array is computed once, so its second place counts as a hit.
        self._calls.count(call.target).session_hits += len(texts) - len(missing)
        truncated = 0
        if missing:
            found, truncated = self._look_further(db, call, missing)
            vectors.update(found)
        return [vectors[key] for key in keys], truncated

    def _look_further(self, db: Session, call: _Call, missing: dict[bytes, str]) -> tuple[dict[bytes, str], int]:
        """The vectors that the session does not remember, from the table cache or the model; and texts cut."""
        vectors: dict[bytes, str] = {}
        if call.uses_table_cache:
            for key, sealed in self._table.lookup(db, list(missing)).items():
                vector = self._keys.unseal(key, sealed, call.target.dimensions)
                if vector is not None:
                    vectors[key] = self._remember(call, key, vector)
            self._calls.count(call.target).table_hits += len(vectors)
        left = {key: text for key, text in missing.items() if key not in vectors}
        return (vectors, 0) if not left else self._compute(db, call, left, vectors)

    def _compute(
        self, db: Session, call: _Call, missing: dict[bytes, str], vectors: dict[bytes, str]
    ) -> tuple[dict[bytes, str], int]:
        embedder = self._embedder(call)
        keys, texts, work = list(missing), list(missing.values()), Work()
        for start in range(0, len(texts), COMPUTE_TEXTS):
            group = slice(start, start + COMPUTE_TEXTS)
            computed = embedder.embed(texts[group], call.kind, work, db.checkpoint)
            refuse_cut(work, call.limits, embedder.config.max_tokens)
            for key, vector in zip(keys[group], computed, strict=True):
                vectors[key] = self._remember(call, key, vector)
                if call.uses_table_cache:
                    entry = CacheEntry(key, call.target.model_version_id, call.role, self._keys.seal(key, vector))
                    self._table.add(db, entry)
        self._calls.count_work(call.target, work)
        return vectors, work.truncated

    def _remember(self, call: _Call, key: bytes, vector: VectorArray) -> str:
        form = _text_form(vector)
        if call.uses_session_cache:
            self._vectors.put(key, form, self._session_cache_bytes)
        return form

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


def _text_form(vector: VectorArray) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _check_kind(kind: str | None) -> str:
    if kind not in KINDS:
        raise InvalidArgument("kind is neither passage nor query", hint="SELECT embed('text', kind => 'query')")
    return kind
