"""Whether prepared vectors are complete and found again by their index, and how searches with them differ."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Session
from pgml_tune.errors import DatatypeMismatch, InvalidArgument, LimitExceeded
from pgml_tune.store import job
from pgml_tune.store import preparation as store

MAX_GOLDEN_ROWS = 1000
DEPTH = 10

Key = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Golden:
    """A question and the keys of the rows that answer it."""

    question: str
    expected: list[Any]  # keys as semantic_search() gives them; of a key of one column also its value


@dataclass(frozen=True, slots=True)
class Measure:
    """How well the first ten rows answer questions, from 0 to 1."""

    mrr: float
    ndcg: float


def read_golden(db: Session, query: str) -> list[Golden]:
    """The questions of a query of the caller, which is run as he would run it."""
    columns = job.query_columns(db, query)
    foreign = job.foreign_types(db, [type_id for _, type_id in columns])
    if len(columns) != 2 or foreign:
        raise DatatypeMismatch(
            "golden_query does not return a question and a key",
            detail="It needs two columns of types of PostgreSQL itself.",
            hint="Use SELECT question, jsonb_build_object('id', id) FROM ...",
        )
    lines = store.golden_rows(db, query, MAX_GOLDEN_ROWS)
    if len(lines) > MAX_GOLDEN_ROWS:
        raise LimitExceeded(f"golden_query returns more than {MAX_GOLDEN_ROWS:,} rows", hint="Add a LIMIT.")
    expected: dict[str, list[Any]] = {}
    for line in lines:
        row = json.loads(line)
        if type(row["question"]) is not str or row["expected"] is None:
            raise DatatypeMismatch("golden_query returns a question that is no text, or one without a key")
        expected.setdefault(row["question"], []).append(row["expected"])
    if not expected:
        raise InvalidArgument("golden_query returns no rows")
    return [Golden(question, keys) for question, keys in expected.items()]


def measure(questions: Sequence[Golden], found: Sequence[Sequence[Key]]) -> Measure:
    """Mean reciprocal rank and nDCG of the first ten keys found for each question."""
    reciprocal = gain = 0.0
    for question, keys in zip(questions, found, strict=True):
        hits = [_is_expected(key, question.expected) for key in keys[:DEPTH]]
        reciprocal += 1 / (hits.index(True) + 1) if True in hits else 0.0
        best = sum(_discount(place) for place in range(min(len(question.expected), DEPTH)))
        gain += sum(_discount(place) for place, is_hit in enumerate(hits) if is_hit) / best
    return Measure(reciprocal / len(questions), gain / len(questions))


def _discount(place: int) -> float:
    return 1 / math.log2(place + 2)


def _is_expected(key: Key, expected: Sequence[Any]) -> bool:
    return key in expected or (len(key) == 1 and next(iter(key.values())) in expected)


def validate(
    db: Session, twin_id: int, serving_id: int, sample: int, min_recall: float, golden: Sequence[Golden]
) -> dict[str, Any]:
    """Every figure of the vectors of a collection, and whether they may answer searches."""
    waiting = store.count_waiting(db, twin_id)
    figures: dict[str, Any] = {what: store.count_rows(db, twin_id, what) for what in ("rows", "missing", "stale")}
    # Of mode queue: what changes while it is counted is no fault of the vectors.
    figures["waiting"] = max(waiting, store.count_waiting(db, twin_id))
    questions, nearest, recalled, compared, same = store.probe(db, twin_id, sample)
    figures["sample"] = questions
    figures["recall_at_10"] = _ratio(recalled, nearest)
    figures["overlap_at_10"] = _ratio(same, compared)
    figures["min_recall"] = min_recall
    if golden:
        figures["golden"] = _compare(db, twin_id, serving_id, golden)
    is_whole = max(figures["missing"], figures["stale"]) <= figures["waiting"]
    figures["passed"] = is_whole and (nearest == 0 or recalled / nearest >= min_recall)
    return figures


def _compare(db: Session, twin_id: int, serving_id: int, golden: Sequence[Golden]) -> dict[str, Any]:
    sides = {"serving": (serving_id, True), "candidate": (twin_id, False)}
    figures: dict[str, Any] = {"questions": len(golden), "mrr_at_10": {}, "ndcg_at_10": {}}
    for side, (collection_id, is_serving) in sides.items():
        found = [store.nearest_keys(db, collection_id, is_serving, question.question) for question in golden]
        measured = measure(golden, found)
        figures["mrr_at_10"][side] = round(measured.mrr, 4)
        figures["ndcg_at_10"][side] = round(measured.ndcg, 4)
    return figures


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def describe(figures: dict[str, Any]) -> str:
    """The figures in a line."""
    parts = [f"{figures['rows'] - figures['missing']:,} of {figures['rows']:,} rows have their vectors"]
    if figures["stale"]:
        parts.append(f"{figures['stale']:,} of them are of another text")
    if figures["waiting"]:
        parts.append(f"{figures['waiting']:,} rows wait for the worker")
    if figures["recall_at_10"] is not None:
        parts.append(f"recall@10 {figures['recall_at_10']:.3f}")
    if figures["overlap_at_10"] is not None:
        parts.append(f"overlap@10 with the answers of now {figures['overlap_at_10']:.3f}")
    if golden := figures.get("golden"):
        ndcg = golden["ndcg_at_10"]
        parts.append(f"nDCG@10 of golden_query {ndcg['serving']:.3f} -> {ndcg['candidate']:.3f}")
    return ", ".join(parts)
