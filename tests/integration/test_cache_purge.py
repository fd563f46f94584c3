"""cache_purge() deletes what is old, seldom found, or too much; the statistics tell what there is."""

from typing import Any

import psycopg
from conditions import fetch_value, refused
from conftest import Connect

ENTRIES = "SELECT count(*) FROM pgml_tune._cache_entries"
FACTS = "SELECT entries, bytes, table_hits, hits, saved_seconds FROM pgml_tune.stat_cache WHERE version = 'v1'"


def test_old_vectors_are_deleted(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    assert fetch_value(db, ENTRIES) == 256
    assert fetch_value(db, "SELECT cache_purge(older_than => '1 hour')") == 0
    db.execute("UPDATE pgml_tune.cache_entry_0 SET cached_at = now() - interval '2 hours' WHERE ctid < '(5,0)'")
    old = fetch_value(db, "SELECT count(*) FROM pgml_tune.cache_entry_0 WHERE cached_at < now() - interval '1 hour'")
    assert 0 < old < 256
    assert fetch_value(db, "SELECT cache_purge('minilm', older_than => '1 hour')") == old
    assert fetch_value(db, ENTRIES) == 256 - old


def test_vectors_that_no_session_has_found_again_are_deleted(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    for number in (1, 1, 2, 2, 2):
        session = connect()
        session.execute("SELECT embed(%s)", (f"text {number}",))
        session.close()
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT array_agg(hits ORDER BY hits) FROM pgml_tune.cache_hit") == [2, 3]
    assert fetch_value(db, "SELECT cache_purge(min_hits => 0)") == 0
    assert fetch_value(db, "SELECT cache_purge(min_hits => 1)") == 254
    assert fetch_value(db, "SELECT cache_purge(min_hits => 3)") == 1
    assert fetch_value(db, ENTRIES) == 1
    db.execute("CALL maintain()")
    assert fetch_value(db, "SELECT array_agg(hits) FROM pgml_tune.cache_hit") == [3]


def test_the_oldest_vectors_are_deleted_until_the_rest_fits(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT embed(ARRAY(SELECT 'text ' || g FROM generate_series(1, 256) AS g))")
    db.execute("UPDATE pgml_tune.cache_entry_0 SET cached_at = now() - (ctid::text::point)[0] * interval '1 minute'")
    size = fetch_value(db, "SELECT sum(bytes)::bigint FROM pgml_tune._cache_entries")
    newest = "SELECT min(cached_at) FROM pgml_tune.cache_entry_0"
    before = fetch_value(db, newest)
    assert fetch_value(db, "SELECT cache_purge(max_bytes => %s)", (size,)) == 0
    deleted = fetch_value(db, "SELECT cache_purge(max_bytes => %s)", (size // 2,))
    assert 120 <= deleted <= 140
    assert fetch_value(db, "SELECT sum(bytes)::bigint FROM pgml_tune._cache_entries") <= size // 2
    assert fetch_value(db, newest) > before
    assert fetch_value(db, "SELECT cache_purge('minilm@v1-int8', max_bytes => 0)") == 0
    assert fetch_value(db, "SELECT cache_purge(max_bytes => 0)") == 256 - deleted


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
