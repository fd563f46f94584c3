"""From a question to what a model writes for it: prompt, cache, generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from pgml_tune.db import Session
from pgml_tune.engine.generator import ENDPOINT, Generated, Generator, open_generator
from pgml_tune.engine.work import Work
from pgml_tune.errors import LimitExceeded, ObjectNotFound
from pgml_tune.service.calls import Call
from pgml_tune.service.inference import TASK, cosine
from pgml_tune.service.keys import KeyMaker
from pgml_tune.service.models import Models
from pgml_tune.service.prompt import Prompt, PromptFormat, render, restore
from pgml_tune.service.readable import Readable, read
from pgml_tune.service.resolution import Rules
from pgml_tune.service.runtime import Remote, Runtimes
from pgml_tune.service.schema import Schema
from pgml_tune.service.schema_linking import Nearness, largest_fitting, nearest_first
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import TableCache
from pgml_tune.service.value_links import Match, index, link, link_slips, terms
from pgml_tune.service.vectors import Vectors
from pgml_tune.store.cache import CacheEntry

_WELL = 3  # tries of render() that still tell the type of each column


class _TooLong(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Draft:
    """What a model has written, with values in their places."""

    text: str
    score: float  # log probability per token: 0 is certain


@dataclass(frozen=True, slots=True)
class Drafts:
    """What a model has written for a question, the most probable first, and the values that the question names."""

    drafts: list[Draft]
    values: list[str]


class SqlGeneration:
    """Lets models write SQL, with the session's models and caches."""

    def __init__(
        self,
        models: Models,
        runtimes: Runtimes,
        vectors: Vectors,
        keys: KeyMaker,
        session: SessionCache,
        table: TableCache,
    ) -> None:
        self._models = models
        self._runtimes = runtimes
        self._vectors = vectors
        self._keys = keys
        self._session = session
        self._table = table
        self._rules = Rules()

    def write(self, db: Session, call: Call, preference: str, question: str, readable: Readable, k: int) -> Drafts:
        """At most `k` drafts of SQL for a question."""

        def write_with(generator: Generator) -> Drafts:
            return self._write(db, call, preference, question, readable, k, generator)

        digest = call.target.digest
        artifact = self._models.artifact(digest)
        takes_memory = artifact.config().engine != ENDPOINT  # else some server runs it

        def write_here() -> Drafts:
            loaded = self._models.get(open_generator, digest, call.limits.threads, takes_memory=takes_memory)
            return write_with(loaded.using(call.limits.sql_endpoint))

        def write_there(worker: Remote) -> Drafts:
            return write_with(worker.generator(artifact)) if takes_memory else write_here()

        return self._runtimes.choose(write_there, write_here)

    def _write(
        self,
        db: Session,
        call: Call,
        preference: str,
        question: str,
        readable: Readable,
        k: int,
        generator: Generator,
    ) -> Drafts:
        form = PromptFormat.from_json(generator.config.generation.get("prompt", {}))
        if form.schema != "none" and call.limits.sql_values == "on":
            readable = read(db, readable.place, with_values=True)
        matches = _matches(db, question, readable, form, generator)
        slips = [] if matches or form.values == "none" else _slips(db, question, readable, form)
        drafts: list[Draft] = []
        # What is meant by a misspelt value comes before what the words say.
        for named in (slips, matches) if slips else (matches,):
            prompt = self._prompt(db, question, readable, named, form, generator)
            found = self._generate(db, call, preference, readable, prompt, k, generator)
            drafts += [Draft(restore(one.text, prompt), one.score) for one in found]
        values = [match.value for match in (*slips, *matches)]
        return Drafts([draft for draft in drafts if draft.text.strip()], values)

    def _prompt(
        self,
        db: Session,
        question: str,
        readable: Readable,
        matches: Sequence[Match],
        form: PromptFormat,
        generator: Generator,
    ) -> Prompt:
        """The prompt with all tables or, where these do not fit with the types of their columns, the nearest ones."""
        if form.schema == "none":
            return render(question, readable.schema, matches, form, generator.fits)

        def rendered(schema: Schema) -> Prompt | None:
            tries = 0

            def fits(text: str) -> bool:
                nonlocal tries
                tries += 1
                if tries > _WELL:
                    raise _TooLong
                return generator.fits(text)

            try:
                return render(question, schema, matches, form, fits)
            except (_TooLong, LimitExceeded):
                return None

        whole = rendered(readable.schema)
        if whole is not None:
            return whole
        named = {column for match in matches for column in match.columns}
        ordered = nearest_first(question, readable.schema, named, self._nearness(db, question))
        chosen = largest_fitting(ordered.tables, lambda schema: rendered(schema) is not None)
        return render(question, chosen, matches, form, generator.fits)

    def _generate(
        self,
        db: Session,
        call: Call,
        preference: str,
        readable: Readable,
        prompt: Prompt,
        k: int,
        generator: Generator,
    ) -> list[Generated]:
        """What a model writes for a prompt, or has written before for the same role and schema."""
        where = json.dumps([readable.place.path, readable.schema.fingerprint])
        scope = f"{call.target.digest}:text_to_sql:{k}:{db.role()}:{where}"
        key = self._keys.key(scope, prompt.text.encode())
        if preference != "off":
            known = self._session.get(key)
            if known is not None:
                call.session_hits = 1
                return _parsed(self._keys.unseal_text(key, bytes.fromhex(known)) or "[]")
        is_shared = preference == "on" and call.limits.table_cache == "on"
        if is_shared:
            for sealed in self._table.lookup(db, [key]).values():
                text = self._keys.unseal_text(key, sealed)
                if text is not None:
                    call.table_hits = 1
                    self._session.put(key, sealed.hex(), call.limits.session_cache_bytes)
                    return _parsed(text)
        call.work = call.work or Work()
        found = generator.generate(prompt.text, k, call.work, db.checkpoint)
        if preference != "off":
            sealed = self._keys.seal_text(key, json.dumps([[one.text, one.score] for one in found]))
            self._session.put(key, sealed.hex(), call.limits.session_cache_bytes)
            if is_shared:
                self._table.add(db, CacheEntry(key, call.target.model_version_id, db.role(), sealed))
        return found

    def _nearness(self, db: Session, question: str) -> Nearness | None:
        """How near texts are to the question for the default embedding model; None: there is none."""
        try:
            target, _ = self._rules.read(db, None, TASK)
        except ObjectNotFound:
            return None
        role = db.role()

        def vector(text: str, kind: str) -> list[float]:
            db.checkpoint()
            row: list[float] = orjson.loads(self._vectors.alone(target.digest, text, kind, role))
            return row

        asked = vector(question, "query")
        return lambda texts: [cosine(asked, vector(text, "passage")) for text in texts]


def _matches(
    db: Session, question: str, readable: Readable, form: PromptFormat, generator: Generator
) -> list[Match]:
    rows = readable.values_named(db, terms(question, generator.lexicon), form.links)
    return link(question, index(rows), generator.lexicon)


def _slips(db: Session, question: str, readable: Readable, form: PromptFormat) -> list[Match]:
    return link_slips(question, index(readable.all_values(db, form.links)))


def _parsed(written: str) -> list[Generated]:
    return [Generated(text, score) for text, score in json.loads(written)]
