"""hybrid_search() fuses meaning and words by reciprocal ranks, and finds what either of them misses."""

import json
import re
from typing import Any

import psycopg
import pytest
from conditions import refused
from conftest import Connect
from library import BODIES, Library, build


@pytest.fixture(scope="module")
def library(connect_shared: Connect) -> Library:
    collections = {"library": ("body", {"index": "none"}), "library_exact": ("same", {"text_search": "none"})}
    return build(connect_shared(), collections)


def test_hybrid_search_finds_the_exact_word_that_meaning_misses(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE part (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO part SELECT g, 'QZ' || 91800 + g FROM generate_series(1, 60) AS g WHERE g <> 17")
    db.execute(
        "INSERT INTO part VALUES (100, 'The minister of agriculture spoke at length about wheat prices, the fertilizer"
        " that farmers lack and the rain of last spring, and in passing about QZ91817, which nobody had ordered.')"
    )
    db.execute("CALL auto_embed('part', 'body', collection => 'part')")
    meaning = db.execute("SELECT (key ->> 'id')::integer FROM semantic_search('part', 'QZ91817')").fetchall()
    assert len(meaning) == 10 and (100,) not in meaning
    both = db.execute("SELECT (key ->> 'id')::integer, document FROM hybrid_search('part', 'QZ91817')").fetchall()
    # First in words, nowhere in meaning: as good as the first in meaning that lacks the word.
    first = {key: document for key, document in both[:2]}
    assert len(both) == 10 and "minister" in first[100]["body"]


def hybrid(library: Library, query: str, k: int, weight: float) -> list[tuple[int, float]]:
    sql = "SELECT (key ->> 'id')::integer, score FROM hybrid_search('library', %s, %s, weight => %s)"
    return library.db.execute(sql, (query, k, weight)).fetchall()


def test_weights_0_and_1_are_words_only_and_meaning_only(library: Library) -> None:
    query = "the old sailor paints the bridge"
    words = hybrid(library, query, 100, 0)
    assert words and "old sailor paints" in BODIES[words[0][0] - 1]
    assert all(re.search("sailor|paints|bridge", BODIES[key - 1]) for key, _ in words)
    assert [score for _, score in words] == pytest.approx([1 / (60 + place) for place in range(1, len(words) + 1)])
    meaning = hybrid(library, query, 10, 1)
    assert [score for _, score in meaning] == pytest.approx([1 / (60 + place) for place in range(1, 11)])
    assert len({key for key, _ in meaning} & {key for key, _ in library.exact(query, 10)}) >= 9


def test_score_is_the_weighted_sum_of_reciprocal_ranks(library: Library) -> None:
    query, weight = "a nurse paints", 0.3
    words = {key: place for place, (key, _) in enumerate(hybrid(library, query, 400, 0), 1)}
    meaning = {key: place for place, (key, _) in enumerate(hybrid(library, query, 400, 1), 1)}
    fused = hybrid(library, query, 400, weight)
    assert len(fused) == len(meaning | words) and words
    for key, score in fused:
        expected = (weight / (60 + meaning[key]) if key in meaning else 0) + (
            (1 - weight) / (60 + words[key]) if key in words else 0
        )
        assert score == pytest.approx(expected, abs=1e-9)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    assert len(hybrid(library, query, 7, weight)) == 7
    by_default = "SELECT (key ->> 'id')::integer, score FROM hybrid_search('library', %s, 7)"
    assert library.db.execute(by_default, (query,)).fetchall() == hybrid(library, query, 7, 0.5)


@pytest.mark.parametrize("weight", ["-0.1", "1.1", "NaN", "Infinity", "-Infinity", "1e308", None])
def test_weight_that_is_no_share_is_refused(library: Library, weight: str | None) -> None:
    with refused("22023"):
        library.db.execute("SELECT * FROM hybrid_search('library', 'x', weight => %s::float8)", (weight,))


def test_hybrid_search_needs_a_text_search_configuration(library: Library) -> None:
    with refused("55000"):
        library.db.execute("SELECT * FROM hybrid_search('library_exact', 'x')")


def test_words_are_those_of_the_configuration(db: psycopg.Connection[Any]) -> None:
    texts = "VALUES (1, 'the running of the bulls'), (2, 'die Häuser der Stadt'), (3, 'nothing')"
    for configuration, word, found in (("english", "run", {1}), ("german", "haus", {2}), ("simple", "run", set())):
        db.execute(f"CREATE TABLE {configuration} (id integer PRIMARY KEY, body text)")
        db.execute(f"INSERT INTO {configuration} {texts}")
        db.execute(
            "CALL auto_embed(%s::text::regclass, 'body', collection => %s, options => %s)",
            (configuration, configuration, json.dumps({"text_search": configuration})),
        )
        rows = db.execute("SELECT key FROM hybrid_search(%s, %s, weight => 0)", (configuration, word)).fetchall()
        assert {key["id"] for (key,) in rows} == found
