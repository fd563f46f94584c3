"""The shape of rows follows their columns, and rows that no job could use are refused with their number."""

import json
from typing import Any

import pytest

from pgml_tune.errors import DatatypeMismatch, InvalidArgument, LimitExceeded, TuneError
from pgml_tune.service.training_rows import RowFacts, examine

SBERT = ("pair_score", "pair_label", "pair", "triplet")
MANY = 12


def facts(columns: list[str], rows: list[tuple[Any, ...]], *shapes: str, part: str = "train") -> RowFacts:
    return examine([json.dumps(dict(zip(columns, row, strict=True))) for row in rows], part, shapes, 1000)


def texts(number: int) -> list[tuple[Any, ...]]:
    return [tuple(f"text {row} {column}" for column in range(number)) for row in range(MANY)]


def with_last(*values: Any) -> list[tuple[Any, ...]]:
    return [(f"a {row}", f"b {row}", values[row % len(values)]) for row in range(MANY)]


@pytest.mark.parametrize(
    ("columns", "rows", "shape"),
    [
        (["a", "b"], texts(2), "pair"),
        (["a", "b", "c"], texts(3), "triplet"),
        (["a", "b", "score"], with_last(0.1, 0.9), "pair_score"),
        (["a", "b", "score"], with_last(0, 1), "pair_score"),
        (["a", "b", "label"], with_last(0, 1), "pair_label"),
        (["a", "b", "c"], with_last(True, False), "pair_label"),
        (["a", "b", "label"], with_last(0.5, 1), "pair_score"),
    ],
)
def test_the_columns_tell_the_shape(columns: list[str], rows: list[tuple[Any, ...]], shape: str) -> None:
    found = facts(columns, rows, *SBERT)
    assert (found.shape, found.columns, found.count) == (shape, columns, MANY)


def test_documents_without_a_query_are_for_retrieval() -> None:
    rows = [*with_last(0, 1, 2), (None, "a document that nobody asks for", None)]
    assert facts(["q", "d", "n"], rows, "pair_score", "retrieval", part="eval").shape == "retrieval"
    assert facts(["q", "d", "grade"], with_last(0, 1, 2), "pair_score", "retrieval", part="eval").shape == "retrieval"
    assert facts(["q", "d", "n"], with_last(0, 1, 2), "pair_score", "retrieval", part="eval").shape == "pair_score"


def test_labels_may_be_numbers() -> None:
    rows = [(f"text {row}", row % 2) for row in range(MANY)]
    assert facts(["t", "l"], rows, "text_label").shape == "text_label"
    with pytest.raises(DatatypeMismatch):
        facts(["t", "l"], [(text, label + 0.5) for text, label in rows], "text_label")


REFUSED: list[tuple[str, list[str], list[tuple[Any, ...]], type[TuneError], str]] = [
    ("no rows", ["a", "b"], [], InvalidArgument, "no rows"),
    ("too few", ["a", "b"], texts(2)[:9], InvalidArgument, "9 rows, at least 10"),
    ("one column", ["a"], texts(1), DatatypeMismatch, "do not fit"),
    ("four columns", list("abcd"), texts(4), DatatypeMismatch, "do not fit"),
    ("a number first", ["a", "b", "c"], [row[::-1] for row in with_last(0.5, 1)], DatatypeMismatch, "do not fit"),
    ("only NULL", ["a", "b"], [(None, None)] * MANY, DatatypeMismatch, "do not fit"),
    ("an object", ["a", "b"], [("x", {"y": 1})] * MANY, DatatypeMismatch, "do not fit"),
    ("a NULL", ["a", "b"], [*texts(2), ("x", None)], InvalidArgument, '1 of 13 rows .* NULL in column "b"'),
    ("a blank", ["a", "b"], [*texts(2), (" \t", "x")], InvalidArgument, '1 of 13 rows .* empty text in column "a"'),
    ("NaN", ["a", "b", "score"], with_last(0.5, 1, "NaN"), InvalidArgument, "4 of 12 rows .* NaN or infinity"),
    ("scores to 5", ["a", "b", "score"], with_last(0, 2.5, 5), InvalidArgument, "goes from 0 to 5"),
    ("one score", ["a", "b", "score"], with_last(0.5), InvalidArgument, "the same value"),
    ("one label", ["a", "b", "label"], with_last(1), InvalidArgument, "the same value"),
    ("a long text", ["a", "b"], [*texts(2), ("x" * 1001, "y")], LimitExceeded, "1001 bytes"),
]


@pytest.mark.parametrize(("what", "columns", "rows", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_rows_that_cannot_be_used_are_refused(
    what: str, columns: list[str], rows: list[tuple[Any, ...]], error: type[TuneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        facts(columns, rows, *SBERT)


def test_a_label_with_one_example_is_refused_and_not_shown() -> None:
    rows = [(f"text {row}", "often") for row in range(MANY)] + [("x", "once"), ("y", "also once")]
    with pytest.raises(InvalidArgument, match="2 of 3 labels") as refusal:
        facts(["t", "l"], rows, "text_label")
    assert "once" not in f"{refusal.value} {refusal.value.detail} {refusal.value.hint}".replace("example", "")
    with pytest.raises(InvalidArgument, match="the same label"):
        facts(["t", "l"], rows[:MANY], "text_label")
    # To measure with, a label may stand alone.
    assert facts(["t", "l"], rows, "text_label", part="eval").count == MANY + 2


def test_long_whole_numbers_are_labels_of_their_own() -> None:
    rows = [(f"text {row}", 2**60 + row % 2) for row in range(MANY)]
    assert facts(["t", "l"], rows, "text_label").shape == "text_label"


@pytest.mark.parametrize("value", ['"a\\ud800"', '"a\\u0000"', "1" + "0" * 400, "9" * 5000, "[" * 5000 + "]" * 5000])
def test_a_value_that_no_text_and_no_number_can_hold_is_refused_with_its_row(value: str) -> None:
    lines = ['{"a": "x", "b": "y", "score": 0.5}'] * 3 + ['{"a": "x", "b": "y", "score": ' + value + "}"]
    with pytest.raises(InvalidArgument, match="row 4 of the train query"):
        examine(lines, "train", SBERT, 1000)
