"""cache_purge() deletes what is old, seldom found, or too much; the statistics tell what there is."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

ENTRIES = "SELECT count(*) FROM pgml_tune._cache_entries"
FACTS = "SELECT entries, bytes, table_hits, hits, saved_seconds FROM pgml_tune.stat_cache WHERE version = 'v1'"


@pytest.fixture
def cached(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A hundred entries, the first of which is one minute old, the second two, and so on."""
    db.execute(
        "INSERT INTO pgml_tune.cache_entry_0 SELECT sha256(int4send(g)), 1, 10, convert_to(repeat('x', 1500), 'UTF8'),"
        " now() - g * interval '1 minute' FROM generate_series(1, 100) AS g"
    )
    return db


def test_old_vectors_are_deleted(cached: psycopg.Connection[Any]) -> None:
    assert fetch_value(cached, "SELECT cache_purge(older_than => '2 hours')") == 0
    assert fetch_value(cached, "SELECT cache_purge('minilm@v1-int8', older_than => '1 hour')") == 0
    assert fetch_value(cached, "SELECT cache_purge('minilm@v1', older_than => '1 hour')") == 41
    assert fetch_value(cached, ENTRIES) == 59


def test_the_oldest_vectors_are_deleted_until_the_rest_fits(cached: psycopg.Connection[Any]) -> None:
    size = fetch_value(cached, "SELECT sum(bytes)::bigint FROM pgml_tune._cache_entries")
    assert fetch_value(cached, "SELECT cache_purge(max_bytes => %s)", (size,)) == 0
    assert fetch_value(cached, "SELECT cache_purge(max_bytes => %s)", (size * 3 // 4,)) == 25
    oldest = "SELECT now() - min(cached_at) < interval '76 minutes' FROM pgml_tune.cache_entry_0"
    assert fetch_value(cached, oldest)
    assert fetch_value(cached, "SELECT cache_purge('minilm@v1-int8', max_bytes => 0)") == 0
    assert fetch_value(cached, "SELECT cache_purge(max_bytes => 0)") == 75


def test_vectors_that_no_session_has_found_again_are_deleted(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    for number in (1, 2, 2):
        session = connect()
        session.execute("SELECT embed(%s)", (f"text {number}",))
        session.close()
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT array_agg(hits ORDER BY hits) FROM pgml_tune.cache_hit") == [1, 2]
    assert fetch_value(db, "SELECT cache_purge(min_hits => 0)") == 0
    assert fetch_value(db, "SELECT cache_purge(min_hits => 1)") == 254
    assert fetch_value(db, "SELECT cache_purge(min_hits => 2)") == 1
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT array_agg(hits) FROM pgml_tune.cache_hit") == [2]


def test_a_condition_that_makes_no_sense_is_refused(db: psycopg.Connection[Any]) -> None:
    for call in ("min_hits => -1", "max_bytes => -1"):
        with refused("22023"):
            db.execute(f"SELECT cache_purge({call})")


def test_the_cache_tells_entries_bytes_and_saved_time(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    other = connect()
    other.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    other.execute("SELECT embed('text 1')")
    entries, size, table_hits, hits, _ = other.execute(FACTS).fetchone() or ()
    assert (entries, table_hits, hits) == (256, 256, 257)
    assert 256 * 1536 < size < 256 * 2048
    db.execute("SELECT embed('text 1')")
    *_, hits, saved = db.execute(FACTS).fetchone() or ()
    assert hits >= 1 and saved > 0


def test_stat_reset_begins_all_counts_anew(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT embed('counted')")
    assert fetch_value(db, "SELECT sum(texts) FROM pgml_tune.stat_inference") == 1
    with refused("42501"):
        connect("olga").execute("SELECT stat_reset()")
    before = fetch_value(db, "SELECT stats_reset_at FROM pgml_tune.stat_log")
    connect("adam").execute("SELECT stat_reset()")
    db.execute("SELECT stat_reset()")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.stat_inference") == 0
    assert fetch_value(db, "SELECT stats_reset_at > %s FROM pgml_tune.stat_log", (before,))
    db.execute("SELECT embed('counted again')")
    assert fetch_value(db, "SELECT sum(texts) FROM pgml_tune.stat_inference WHERE stats_since >= %s", (before,)) == 1
