"""How long one search takes, each with words that nobody has asked for before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from corpus import Collection, Corpus
from plan import Plan, in_turns
from psycopg.types.json import Jsonb
from report import Figure
from server import FP32, connect

_PART = "11. Search: median of one statement, k = 10, new words each time; fp32, 1 thread"
_QUESTIONS = "so_title2sql"  # as people ask them; there are enough that none is asked twice
_SEARCH = "SELECT * FROM {function}(%s, %s, 10, %s)"
_TENTH = {"tenth": 3}
_FEW = {"source": "xquad", "lang": "en"}
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class _Case:
    """A statement, and its arguments before and after the words."""

    what: str
    statement: str
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()


def measure(plan: Plan, corpus: Corpus, collections: Sequence[Collection]) -> list[Figure]:
    name, version = plan.reference(FP32).split("@")
    cases = [_Case("the vector of the words alone", "SELECT embed_pinned(%s, %s, %s, 'query')", (), (name, version))]
    for collection in collections:
        cases += _cases(collection)
    texts = iter([question.text for question in corpus.questions if question.set_name == _QUESTIONS])
    per_round = plan.pick(40, 6)
    with connect() as connection:  # a new one, which remembers no vector
        for case in cases:
            connection.execute(case.statement, (*case.before, next(texts), *case.after)).fetchall()

        def run(case: _Case, _: int) -> list[float]:
            times = []
            for _ in range(per_round):
                args = (*case.before, next(texts), *case.after)
                started = time.perf_counter()
                connection.execute(case.statement, args).fetchall()
                times.append((time.perf_counter() - started) * 1000)
            return times

        rounds = in_turns(cases, _ROUNDS, run)
    figures = []
    for case, values in rounds.items():
        middle, late = np.percentile(values, (50, 95))
        note = f"p95 {late:.1f} ms of {np.size(values)} statements"
        figures.append(Figure(_PART, case.what, float(middle), "ms", note=note))
    return figures


def _cases(collection: Collection) -> list[_Case]:
    filters: dict[str, dict[str, Any] | None] = {"no filter": None, "filter leaves a tenth": _TENTH}
    few = sum(document.scope == tuple(_FEW.values()) for document in collection.documents)
    if few:
        filters[f"filter leaves {few} rows"] = _FEW
    return [
        _Case(
            f"{collection.name}, {len(collection.documents):,} documents, {function}, {name}",
            _SEARCH.format(function=function),
            (collection.name,),
            (None if wanted is None else Jsonb(wanted),),
        )
        for function in ("semantic_search", "hybrid_search")
        for name, wanted in filters.items()
    ]
