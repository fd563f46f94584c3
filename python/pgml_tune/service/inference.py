"""Texts to vectors: session cache, table cache, engine, in this order."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson

from pgml_tune.db import Database
from pgml_tune.engine.artifact import bound_digest
from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.embedder import Work, check_vectors
from pgml_tune.errors import InvalidArgument, LimitExceeded, ObjectNotFound
from pgml_tune.records import KINDS, ModelReference, check_name
from pgml_tune.service.counters import Count, Counters
from pgml_tune.service.models import Models
from pgml_tune.service.resolution import Target, resolve
from pgml_tune.service.session_cache import SessionCache, entry_key
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import Limits
from pgml_tune.store.cache import CacheEntry
from pgml_tune.store.transaction import checkpoint

COMPUTE_TEXTS = 2048  # computed and cached before the next are taken up
_PINNED_LIMITS = Limits.from_rows({})  # embed_pinned() reads no table, so it runs under the defaults
_CALL_ID_BITS = 24


class Inference:
    """What the functions of sql/functions/embedding.sql do, for one session."""

    def __init__(
        self,
        model_root: Path,
        secret: bytes,
        vectors: SessionCache,
        table: TableCache,
        counters: Counters,
        current_role: Callable[[], int],
    ) -> None:
        self._model_root = model_root
        self._secret = secret
        self._vectors = vectors
        self._table = table
        self._counters = counters
        self._current_role = current_role
        self._models = Models(model_root)
        self._pinned: dict[ModelReference, str] = {}
        self._next_call_id = secrets.randbits(63 - _CALL_ID_BITS) << _CALL_ID_BITS
        self.last_call_id: int | None = None

    def embed(self, db: Database, texts: Sequence[str], model: str | None, kind: str | None) -> tuple[list[str], int]:
        """The vectors of texts, in the text form of type vector, and how many texts were cut."""
        target = resolve(db, model)
        kind = _check_kind(kind)
        limits = target.limits
        if len(texts) > limits.max_batch_texts:
            raise LimitExceeded(
                f"array has {len(texts)} texts, the limit is {limits.max_batch_texts}",
                hint=f"SELECT configure('max_batch_texts', '{len(texts)}')",
            )
        role = self._current_role()
        scope = f"{target.digest}:{kind}:{limits.long_input}:{role if limits.cache_scope == 'role' else 'shared'}"
        keys = [self._key(scope, text, limits) for text in texts]
        vectors, missing = self._from_session(keys, texts, target)
        count = self._counters.of(target.model_version_id)
        count.calls += 1
        count.texts += len(texts)
        count.session_hits += len(texts) - len(missing)
        truncated = 0
        if missing:
            uses_table = limits.table_cache == "on" and target.cache_preference == "on"
            if uses_table:
                self._from_table(db, vectors, missing, target, count)
            if missing:
                truncated = self._compute(db, vectors, missing, target, kind, role if uses_table else None, count)
        self._table.flush_if_due(db, limits)
        self._finish_call()
        return [vectors[key] for key in keys], truncated

    def embed_pinned(self, text: str, model: str, version: str, kind: str | None) -> str:
        """The vector of a text under an immutable version, found by file name: no SQL, so it runs anywhere."""
        kind = _check_kind(kind)
        digest = self._pinned_digest(model, version)
        key = self._key(f"{digest}:{kind}:pinned:{self._current_role()}", text, _PINNED_LIMITS)
        vector = self._vectors.get(key)
        if vector is None:
            # Alone, whatever the version: this function must give one result for one text.
            computed = self._models.get(digest, None).embed([text], kind, Work())
            vector = _text_form(computed[0])
            self._vectors.put(key, vector, _PINNED_LIMITS.session_cache_bytes)
        self._finish_call()
        return vector

    def similarity(self, db: Database, a: str, b: str, model: str | None) -> float:
        """The cosine of the vectors of two texts, -1 to 1."""
        forms, _ = self.embed(db, [a, b], model, "passage")
        left, right = (np.array(orjson.loads(form), np.float64) for form in forms)
        cosine = float(left @ right / np.sqrt((left @ left) * (right @ right)))
        return max(-1.0, min(1.0, cosine))

    def count_tokens(self, db: Database, text: str, model: str | None) -> int:
        """The tokens of a text, special tokens included and nothing cut."""
        target = resolve(db, model)
        _check_size(text.encode(), target.limits)
        return self._models.get(target.digest, target.limits.threads).count_tokens(text)

    def _key(self, scope: str, text: str, limits: Limits) -> bytes:
        content = text.encode()
        _check_size(content, limits)
        return entry_key(self._secret, scope, content)

    def _from_session(
        self, keys: list[bytes], texts: Sequence[str], target: Target
    ) -> tuple[dict[bytes, str], dict[bytes, str]]:
        """The vectors this session remembers, and the texts that are left to do."""
        vectors: dict[bytes, str] = {}
        missing: dict[bytes, str] = {}
        remembers = target.cache_preference != "off"
        for key, text in zip(keys, texts, strict=True):
            vector = self._vectors.get(key) if remembers else None
            if vector is None:
                missing[key] = text
            else:
                vectors[key] = vector
        return vectors, missing

    def _from_table(
        self, db: Database, vectors: dict[bytes, str], missing: dict[bytes, str], target: Target, count: Count
    ) -> None:
        for key, content in self._table.lookup(db, list(missing)).items():
            if len(content) != 4 * target.dimensions:
                continue
            vector = np.frombuffer(content, "<f4")
            check_vectors(vector[None])
            self._remember(vectors, key, _text_form(vector), target)
            del missing[key]
            count.table_hits += 1

    def _compute(
        self,
        db: Database,
        vectors: dict[bytes, str],
        missing: dict[bytes, str],
        target: Target,
        kind: str,
        table_role: int | None,
        count: Count,
    ) -> int:
        """Run the model on what no cache had; vectors also go to the table cache if `table_role` is given."""
        embedder = self._models.get(target.digest, target.limits.threads)
        keys, texts, work = list(missing), list(missing.values()), Work()
        for start in range(0, len(texts), COMPUTE_TEXTS):
            group = slice(start, start + COMPUTE_TEXTS)
            computed = embedder.embed(texts[group], kind, work, lambda: checkpoint(db))
            if work.truncated and target.limits.long_input == "error":
                raise LimitExceeded(
                    f"input is longer than the {embedder.config.max_tokens} tokens the model reads",
                    detail="Setting long_input is error.",
                    hint="SELECT configure('long_input', 'truncate')",
                )
            for key, vector in zip(keys[group], computed, strict=True):
                self._remember(vectors, key, _text_form(vector), target)
            if table_role is not None:
                version_id = target.model_version_id
                for key, vector in zip(keys[group], computed, strict=True):
                    self._table.add(db, CacheEntry(key, version_id, table_role, vector.tobytes()), target.limits)
        count.tokens += work.tokens
        count.truncated += work.truncated
        count.compute_ms += work.seconds * 1000
        return work.truncated

    def _remember(self, vectors: dict[bytes, str], key: bytes, vector: str, target: Target) -> None:
        vectors[key] = vector
        if target.cache_preference != "off":
            self._vectors.put(key, vector, target.limits.session_cache_bytes)

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

    def _finish_call(self) -> None:
        self.last_call_id = self._next_call_id
        self._next_call_id += 1


def _text_form(vector: VectorArray) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _check_size(content: bytes, limits: Limits) -> None:
    if len(content) > limits.max_input_bytes:
        raise LimitExceeded(
            f"input has {len(content)} bytes, the limit is {limits.max_input_bytes}",
            hint=f"SELECT configure('max_input_bytes', '{len(content)}')",
        )


def _check_kind(kind: str | None) -> str:
    if kind not in KINDS:
        raise InvalidArgument("kind is neither passage nor query", hint="SELECT embed('text', kind => 'query')")
    return kind
