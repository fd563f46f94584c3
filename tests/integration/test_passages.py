"""Embedding texts in chunks."""

import time
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused

PASSAGES = "SELECT text_no, chunk_no, embedding FROM pgml_tune._embed_passages(%s::text[], 'minilm', %s, %s)"
SENTENCES = "The first sentence is about tables. The second one is about indexes. The third is about locks. "


def test_a_text_without_chunks_has_the_vector_of_embed(db: psycopg.Connection[Any]) -> None:
    texts = ["a", "", None, "如何删除字符串", "a"]
    rows = db.execute(PASSAGES, (texts, None, None)).fetchall()
    embedded = fetch_value(db, "SELECT embed(%s::text[], 'minilm')", (texts,))
    assert [row[:2] for row in rows] == [(1, 1), (2, 1), (4, 1), (5, 1)]
    assert "NULL" in embedded
    for text_no, _, vector in rows:
        assert vector == fetch_value(db, "SELECT (embed(%s::text[], 'minilm'))[%s]", (texts, text_no))


def test_chunks_are_numbered_in_each_text_and_hold_its_sentences(db: psycopg.Connection[Any]) -> None:
    rows = db.execute(PASSAGES, (["short", SENTENCES, None, ""], 8, 0)).fetchall()
    assert [row[:2] for row in rows] == [(1, 1), (2, 1), (2, 2), (2, 3), (4, 1)]
    second = " The second one is about indexes."
    assert rows[2][2] == fetch_value(db, "SELECT (embed(ARRAY['a', %s], 'minilm'))[2]", (second,))


def test_chunks_of_one_call_are_one_call_of_the_model(db: psycopg.Connection[Any]) -> None:
    calls = "SELECT calls, texts, truncated FROM pgml_tune.stat_inference WHERE version = 'v1'"
    db.execute(PASSAGES, ([SENTENCES, SENTENCES * 9], 8, 2))
    row = db.execute(calls).fetchone()
    assert row is not None
    assert row[0] == 1 and row[1] > 30 and row[2] == 0


def test_chunks_of_the_greatest_size_are_not_cut(db: psycopg.Connection[Any]) -> None:
    notices: list[Any] = []
    db.add_notice_handler(notices.append)
    text = "".join(f"w{number} 字符串，x{number * 7919}-{number}\n" for number in range(300))
    rows = db.execute(PASSAGES, ([text], 254, 0)).fetchall()
    assert len(rows) > 10
    assert not notices
    db.execute(PASSAGES, ([text], None, None))
    assert len(notices) == 1


@pytest.mark.parametrize("size", [(255, 0), (0, 0), (-1, 0), (10, 6), (10, -1), (2**31 - 1, 2**31 - 1), (1, 1)])
def test_sizes_the_model_cannot_read_are_refused(db: psycopg.Connection[Any], size: tuple[int, int]) -> None:
    with refused("22023") as failure:
        db.execute(PASSAGES, (["a"], *size))
    assert size[0] < 255 or "254" in (failure.value.diag.message_detail or "")


def test_a_limit_of_bytes_holds_for_each_text_and_that_of_texts_does_not(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('max_batch_texts', '3'), configure('max_input_bytes', '10')")
    assert len(db.execute(PASSAGES, (["a"] * 5, 5, 0)).fetchall()) == 5
    with refused("54000"):
        db.execute(PASSAGES, (["a", "a" * 11], 5, 0))


def test_a_cancel_ends_the_cutting_of_a_long_text(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('max_input_bytes', '4194304')")
    db.execute(PASSAGES, (["word"], 200, 0))  # the model is loaded
    db.execute("SET statement_timeout = '50ms'")
    started = time.monotonic()
    with refused("57014"):
        db.execute(PASSAGES, (["word " * 800_000], 200, 0))
    assert time.monotonic() - started < 1
