"""Where vectors come from: session cache, table cache, engine, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgml_tune.db import Session
from pgml_tune.engine.work import Work
from pgml_tune.service.calls import Call
from pgml_tune.service.inputs import encoded, refuse_cut
from pgml_tune.service.keys import KeyMaker
from pgml_tune.service.runtime import Computed, How, Runtimes, added, text_form
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import Limits
from pgml_tune.store.cache import CacheEntry

COMPUTE_TEXTS = 2048  # computed and cached before the next are taken up
PINNED_LIMITS = Limits.from_rows({})  # embed_pinned() reads no table, so it runs under the defaults


@dataclass(slots=True)
class Terms:
    """What kind of vectors a caller wants, and from which caches he takes them."""

    kind: str
    role: int
    preference: str  # on | session | off

    @property
    def use_session_cache(self) -> bool:
        return self.preference != "off"

    def use_table_cache(self, limits: Limits) -> bool:
        return self.preference == "on" and limits.table_cache == "on"

    def scope(self, call: Call) -> str:
        """Who shares a cached vector of a call."""
        owner = self.role if call.limits.cache_scope == "role" else "shared"
        return f"{call.target.digest}:{self.kind}:{call.limits.long_input}:{owner}"


class Vectors:
    """Gives the vectors of texts in the text form of type vector, computing only what no cache has."""

    def __init__(self, runtimes: Runtimes, keys: KeyMaker, session: SessionCache, table: TableCache) -> None:
        self._runtimes = runtimes
        self._keys = keys
        self._session = session
        self._table = table
        self._session_bytes = PINNED_LIMITS.session_cache_bytes  # as last seen

    def of_text(self, db: Session, call: Call, terms: Terms, text: str, content: bytes) -> str:
        """The vector of one text, which reads in UTF-8 as `content`."""
        call.output_count = call.target.dimensions
        key = self._keys.key(terms.scope(call), content) if terms.use_session_cache else b""
        vector = self._session.get(key) if terms.use_session_cache else None
        if vector is None:
            return self._look_further(db, call, terms, {key: text})[key]
        call.session_hits = 1
        return vector

    def of_texts(self, db: Session, call: Call, terms: Terms, texts: Sequence[str]) -> list[str]:
        """The vectors of texts in their order."""
        call.output_count = call.target.dimensions
        scope = terms.scope(call)
        keys = [self._keys.key(scope, encoded(text, call.limits)) for text in texts]
        vectors: dict[bytes, str] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            vector = self._session.get(key) if terms.use_session_cache else None
            if vector is None:
                missing[key] = text
            else:
                vectors[key] = vector
        # A text that stands twice in the array is computed once, so its second place counts as a hit.
        call.session_hits = len(texts) - len(missing)
        if missing:
            vectors.update(self._look_further(db, call, terms, missing))
        return [vectors[key] for key in keys]

    def alone(self, digest: str, text: str, kind: str, role: int, call: Call | None = None) -> str:
        """The vector of a text as embed_pinned() gives it: without SQL, and alone in its batch whatever the version."""
        key = self._keys.key(f"{digest}:{kind}:pinned:{role}", encoded_alone(text))
        vector = self._session.get(key)
        if vector is None:
            how = How(kind, is_alone=True, has_total=call is not None and call.limits.log_sketch == "on")
            work = Work()
            found = self._runtimes.run(lambda runtime: runtime.embed(digest, [text], how, work, None))
            (vector,) = found.forms
            self._session.put(key, vector, self._session_bytes)
            if call is not None:
                self._tell(call, work, found.total)
        elif call is not None:
            call.session_hits = 1
        return vector

    def _look_further(self, db: Session, call: Call, terms: Terms, missing: dict[bytes, str]) -> dict[bytes, str]:
        """The vectors that the session does not remember, from the table cache or the model."""
        self._session_bytes = call.limits.session_cache_bytes
        vectors: dict[bytes, str] = {}
        if terms.use_table_cache(call.limits):
            for key, sealed in self._table.lookup(db, list(missing)).items():
                raw = self._keys.unseal(key, sealed, call.target.dimensions)
                if raw is not None:
                    vectors[key] = self._remember(terms, key, text_form(raw))
            call.table_hits = len(vectors)
        left = {key: text for key, text in missing.items() if key not in vectors}
        if left:
            self._compute(db, call, terms, left, vectors)
        return vectors

    def _compute(
        self, db: Session, call: Call, terms: Terms, missing: dict[bytes, str], vectors: dict[bytes, str]
    ) -> None:
        keys, texts, work, total = list(missing), list(missing.values()), Work(), b""
        how = How(
            terms.kind,
            call.limits.threads,
            has_raws=terms.use_table_cache(call.limits),
            has_total=call.limits.log_sketch == "on",
        )
        for start in range(0, len(texts), COMPUTE_TEXTS):
            group = slice(start, start + COMPUTE_TEXTS)
            found = self._embed(db, call, texts[group], how, work)
            refuse_cut(work, call.limits, found.max_tokens)
            for place, key in enumerate(keys[group]):
                vectors[key] = self._remember(terms, key, found.forms[place])
                if how.has_raws:
                    sealed = self._keys.seal(key, found.raws[place])
                    self._table.add(db, CacheEntry(key, call.target.model_version_id, terms.role, sealed))
            total = added(total, found.total)
        self._tell(call, work, total)

    def _embed(self, db: Session, call: Call, texts: Sequence[str], how: How, work: Work) -> Computed:
        return self._runtimes.run(lambda runtime: runtime.embed(call.target.digest, texts, how, work, db.checkpoint))

    def _tell(self, call: Call, work: Work, total: bytes) -> None:
        """Note what was computed, and where the mean of the vectors lies if that is wanted."""
        call.work = work
        if total:
            call.sketch = self._runtimes.run(lambda runtime: runtime.sketch(call.target.digest, total))

    def _remember(self, terms: Terms, key: bytes, form: str) -> str:
        if terms.use_session_cache:
            self._session.put(key, form, self._session_bytes)
        return form


def encoded_alone(text: str) -> bytes:
    """A text in UTF-8 for embed_pinned(), which no setting reaches: so none is proposed."""
    return encoded(text, PINNED_LIMITS, is_bounded_by_setting=False)
