"""Questions to SQL that the server takes and the asker may run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pgml_tune.db import Session
from pgml_tune.engine.generator import Generator
from pgml_tune.errors import InvalidArgument, LimitExceeded, NotSupported, ReadOnlyTransaction
from pgml_tune.service import readable as readables
from pgml_tune.service.calls import Call, Calls
from pgml_tune.service.inputs import encoded
from pgml_tune.service.own_settings import own_settings, settings_of_caller
from pgml_tune.service.readable import Place, Readable
from pgml_tune.service.routing import Router
from pgml_tune.service.sql_check import HIDDEN, check
from pgml_tune.service.sql_generation import SqlGeneration
from pgml_tune.service.sql_text import mask, mask_reason, names_unknown, parsed, tidy, words
from pgml_tune.service.value_correction import corrected
from pgml_tune.settings import Limits, parse_cache_preference
from pgml_tune.store import schema as store
from pgml_tune.store.filling import Settings

MOST_CANDIDATES = 32
_LONGEST_SHOWN = 500  # characters of a refused statement
_ASK = "SELECT text_to_sql('how many orders are there')"
_ASK_ALL = "SELECT * FROM text_to_sql_candidates('question')"


@dataclass(frozen=True, slots=True)
class Candidate:
    """SQL that may answer a question, and what the server says of it; of a refused one what its asker may see."""

    sql: str
    score: float  # log probability per token, or ln of the similarity of a verified question: 0 is certain
    error: str | None = None  # None: it is accepted
    cost: float | None = None


class Example(Protocol):
    """A question whose SQL somebody has verified, and how near it is."""

    @property
    def sql(self) -> str: ...
    @property
    def similarity(self) -> float: ...


# Those that answer the question of a caller: (db, question, name of the model, place, limits).
FindExamples = Callable[[Session, str, str, Place, Limits], Sequence[Example]]


class TextToSql:
    """What the functions of sql/functions/text_to_sql.sql do, for one session."""

    def __init__(self, generation: SqlGeneration, calls: Calls, router: Router, examples: FindExamples) -> None:
        self._generation = generation
        self._calls = calls
        self._router = router
        self._examples = examples

    def answer(self, db: Session, question: str, model: str | None, tables: Sequence[str | None] | None) -> str:
        """The first candidate that the server accepts."""
        return self._ask(db, question, model, tables, None)[-1].sql

    def candidates(
        self, db: Session, question: str, model: str | None, tables: Sequence[str | None] | None, k: int | None
    ) -> list[Candidate]:
        """What answer() would try, with `k` texts of the model."""
        if k is None or k < 1:
            raise InvalidArgument("k is not 1 or more", hint=_ASK_ALL)
        if k > MOST_CANDIDATES:
            raise LimitExceeded(f"k is {k}, the limit is {MOST_CANDIDATES}")
        return self._ask(db, question, model, tables, k)

    def _ask(
        self, db: Session, question: str, model: str | None, tables: Sequence[str | None] | None, k: int | None
    ) -> list[Candidate]:
        """The candidates for a question; without `k` up to the first that is accepted, and an error without one."""
        transaction = db.transaction()
        if transaction.is_read_only or transaction.is_standby:
            raise ReadOnlyTransaction(
                "text_to_sql() cannot work in a read-only transaction",
                detail="The server checks SQL as the query of a view, which is rolled back.",
            )
        if transaction.keeps_snapshot:
            raise NotSupported(
                "text_to_sql() cannot work in a REPEATABLE READ or SERIALIZABLE transaction",
                detail="SQL would be judged by the definitions of views as they were, and run by those of now.",
                hint="BEGIN ISOLATION LEVEL READ COMMITTED",
            )
        if not question.strip():
            raise InvalidArgument("question is empty", hint=_ASK)
        place = readables.find_place(db, tables)
        preference = parse_cache_preference(db.preference(b"pgml_tune.cache"))
        with own_settings(db) as settings:
            call = self._calls.begin(db, "text_to_sql", model, Generator.task)
            with self._calls.measuring(db, call):
                call.text, call.sizes = question, (len(encoded(question, call.limits)),)
                self._router.send(db, call, question)
                readable = readables.read(db, place, with_values=False)
                inquiry = _Inquiry(db, settings, call, question, preference, readable, shows_texts=k is not None)
                found = self._find(inquiry, k)
                call.output_count = len(found)
                if k is None and (not found or found[-1].error is not None):
                    raise _no_answer(found)
        return found

    def _find(self, inquiry: _Inquiry, k: int | None) -> list[Candidate]:
        attempts = inquiry.call.limits.sql_attempts
        found: list[Candidate] = []
        for sql, score, is_verified in self._written(inquiry, k or attempts):
            candidate = inquiry.judge(sql, score)
            # A verified question may be about tables as they were, or of others.
            if not is_verified or candidate.error is None:
                found.append(candidate)
            if k is None and (candidate.error is None or len(found) >= attempts):
                break
        return found

    def _written(self, inquiry: _Inquiry, k: int) -> Iterator[tuple[str, float, bool]]:
        """All different statements that may answer, the best first, with scores and whether somebody has verified them.

        The model writes none where those before are enough.
        """
        db, call, question, readable = inquiry.db, inquiry.call, inquiry.question, inquiry.readable
        seen: set[str] = set()
        for example in self._examples(db, question, call.target.model, readable.place, call.limits):
            seen.add(example.sql)
            yield example.sql, math.log(max(example.similarity, 1e-9)), True
        written = self._router.answer(
            call, lambda: self._generation.write(db, call, inquiry.preference, question, readable, k)
        )
        if inquiry.shows_texts:
            inquiry.said = [question, *written.values]
        for draft in written.drafts:
            sql = tidy(draft.text)
            for text in (corrected(sql, readable.schema, inquiry.values_beside), sql):
                if text and text not in seen and "\0" not in text and (text.isascii() or db.can_hold(text)):
                    seen.add(text)
                    yield text, draft.score, False


@dataclass(slots=True)
class _Inquiry:
    """A question on its way to SQL."""

    db: Session
    settings: Settings  # of the asker
    call: Call
    question: str
    preference: str  # on | session | off
    readable: Readable
    shows_texts: bool  # of the asker; not in an error, which the server logs
    said: list[str] = field(default_factory=list)  # the question, and the values that it names, where they are shown
    _beside: dict[tuple[str, str, str], list[str] | None] = field(default_factory=dict)
    _check_seconds: float = 0.0  # that the server has spent so far

    def values_beside(self, table: str, column: str, text: str) -> list[str] | None:
        """The values of a column in which a text does not stand; None if it does, or nobody may look."""
        key = table, column, text
        if key not in self._beside:
            self._beside[key] = self.readable.values_beside(self.db, table, column, text)
        return self._beside[key]

    def judge(self, sql: str, score: float) -> Candidate:
        """What the server says of a statement."""
        schema = self.readable.schema
        if self.readable.place.tables is not None and (parsed(sql) is None or names_unknown(sql, schema)):
            return self._refused(sql, score, "it names a table or column that is not among those given")
        if self._check_seconds > self.call.limits.sql_seconds:
            return self._refused(sql, score, "there was no time left to check it")
        started = time.monotonic()
        with settings_of_caller(self.db, self.settings):
            verdict = check(self.db, sql, self.call.limits)
        self._check_seconds += time.monotonic() - started
        if verdict.error is None:
            return Candidate(verdict.sql, score, None, verdict.cost)
        # Whether there is such a table shall not be told by what else is wrong with the statement.
        return self._refused(sql, score, HIDDEN if names_unknown(sql, schema) else verdict.error)

    def _refused(self, sql: str, score: float, reason: str) -> Candidate:
        schema = self.readable.schema
        said = [*self.said, *store.server_names(self.db, words(sql))]
        return Candidate(mask(sql, schema, said), score, mask_reason(reason, schema, said))


def _no_answer(refused: Sequence[Candidate]) -> InvalidArgument:
    lines = (f"{place}. {one.sql[:_LONGEST_SHOWN]}: {one.error}" for place, one in enumerate(refused, 1))
    return InvalidArgument(
        "no SQL was found for this question that the server accepts",
        detail="\n".join(lines) or "The model has written nothing that could be SQL.",
        hint=_ASK_ALL,
    )
