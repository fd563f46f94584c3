"""A partitioned table stays embedded, whatever part of it is written, and as partitions come and go."""

from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, collection_row, model_does, our_triggers
from conditions import fetch_value, refused

KEYS = ("region", "id")
LEAVES = ("doc_asia", "doc_eu_1", "doc_eu_2", "doc_rest")


@pytest.fixture
def doc(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on an embedded table with partitions on two levels; one has other column numbers than the rest."""
    db.execute(
        "CREATE TABLE doc (region text, id bigint, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region)"
    )
    db.execute("CREATE TABLE doc_eu PARTITION OF doc FOR VALUES IN ('eu') PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE doc_eu_1 PARTITION OF doc_eu FOR VALUES FROM (0) TO (1000)")
    db.execute("CREATE TABLE doc_eu_2 PARTITION OF doc_eu FOR VALUES FROM (1000) TO (2000)")
    db.execute("CREATE TABLE doc_rest PARTITION OF doc DEFAULT")
    db.execute("CREATE TABLE doc_asia (gone text, body text, id bigint NOT NULL, gone_too text, region text NOT NULL)")
    db.execute("ALTER TABLE doc_asia DROP gone, DROP gone_too")
    db.execute("ALTER TABLE doc ATTACH PARTITION doc_asia FOR VALUES IN ('asia')")
    db.execute(
        "INSERT INTO doc SELECT r, g + 1000 * (g / 4), r || ' text ' || g"
        " FROM unnest(ARRAY['eu', 'asia', 'africa']) AS r, generate_series(1, 6) AS g"
    )
    db.execute("CALL auto_embed('doc', 'body')")
    assert assert_exact(db, keys=KEYS)["rows"] == 18
    return db


def write(db: psycopg.Connection[Any], statement: str, calls: int, computed: int) -> None:
    with model_does(db, calls, computed):
        db.execute(statement)
    assert_exact(db, keys=KEYS)


def unfinished(db: psycopg.Connection[Any]) -> list[Any]:
    """What doctor() finds wrong with collections."""
    checks = "SELECT check_name, status, detail FROM doctor() WHERE status <> 'ok' AND check_name LIKE '%collection%'"
    return db.execute(checks).fetchall()


def test_writes_to_the_parent(doc: psycopg.Connection[Any]) -> None:
    write(doc, "INSERT INTO doc VALUES ('eu', 20, 'new'), ('eu', 1020, 'newer'), ('asia', 20, 'other')", 1, 3)
    with model_does(doc, 1, 300), doc.cursor().copy("COPY doc FROM STDIN") as copy:
        for number in range(300):
            copy.write_row((("eu", "asia", "mars")[number % 3], 100 + number, f"copied {number}"))
    assert_exact(doc, keys=KEYS)
    write(doc, "UPDATE doc SET body = body || ' again' WHERE id = 20", 1, 2)
    write(doc, "UPDATE doc SET body = body", 0, 0)
    write(doc, "DELETE FROM doc WHERE id % 10 = 1", 0, 0)
    write(doc, "INSERT INTO doc VALUES ('eu', 20, 'upserted'), ('mars', 20, 'fresh')"
               " ON CONFLICT (region, id) DO UPDATE SET body = excluded.body", 2, 2)  # fmt: skip
    write(doc, "TRUNCATE doc", 0, 0)
    assert collection_row(doc)["rows"] == 0


def test_writes_to_leaves_and_to_a_level_between(doc: psycopg.Connection[Any]) -> None:
    for number, table in enumerate(("doc_eu_1", "doc_eu", "doc_asia", "doc_rest")):
        region = {"doc_asia": "asia", "doc_rest": "africa"}.get(table, "eu")
        write(doc, f"INSERT INTO {table} (region, id, body) VALUES ('{region}', {50 + number}, 'into {table}'),"
                   f" ('{region}', {60 + number}, NULL)", 1, 1)  # fmt: skip
        write(doc, f"UPDATE {table} SET body = 'changed in {table}' WHERE id = {60 + number}", 1, 1)
        write(doc, f"UPDATE {table} SET id = id + 100 WHERE id = {60 + number}", 0, 0)
        write(doc, f"DELETE FROM {table} WHERE id = {50 + number}", 0, 0)
    with doc.cursor().copy("COPY doc_asia (region, body, id) FROM STDIN") as copy:
        for number in range(20):
            copy.write_row(("asia", f"copied {number}", 200 + number))
    assert_exact(doc, keys=KEYS)


def test_rows_that_move_between_partitions_take_their_vectors_along(doc: psycopg.Connection[Any]) -> None:
    write(doc, "UPDATE doc SET region = 'asia', id = id + 100 WHERE region = 'africa'", 0, 0)
    write(doc, "UPDATE doc_eu SET id = id + 1000 WHERE id < 1000", 0, 0)
    write(doc, "UPDATE doc SET region = 'mars', body = body || ' on mars' WHERE region = 'eu'", 1, 6)
    write(doc, "MERGE INTO doc USING (VALUES ('mars', 1001), ('eu', 7)) AS m (region, id)"
               " ON doc.region = m.region AND doc.id = m.id WHEN MATCHED THEN UPDATE SET body = 'merged'"
               " WHEN NOT MATCHED THEN INSERT VALUES (m.region, m.id, 'merged too')", 2, 2)  # fmt: skip
    with refused("23514"):
        doc.execute("UPDATE doc_asia SET region = 'eu'")
    assert_exact(doc, keys=KEYS)


def test_rows_that_merge_moves_between_partitions_are_missed_and_the_next_call_finds_them(
    doc: psycopg.Connection[Any],
) -> None:
    # PostgreSQL itself shows such rows to no statement trigger: to it they are deleted and inserted by a MERGE that
    # has no DELETE and no INSERT.
    doc.execute(
        "MERGE INTO doc USING (VALUES ('africa', 1), ('africa', 2)) AS m (region, id)"
        " ON doc.region = m.region AND doc.id = m.id WHEN MATCHED THEN UPDATE SET region = 'asia', id = m.id + 100"
    )
    row = collection_row(doc)
    assert row["is_complete"] == (row["embedded"] == row["rows"])
    doc.execute("CALL auto_embed('doc', 'body')")
    assert assert_exact(doc, keys=KEYS)["rows"] == 18


def test_truncate_of_a_partition_leaves_the_others(doc: psycopg.Connection[Any]) -> None:
    write(doc, "TRUNCATE doc_asia", 0, 0)
    assert collection_row(doc)["rows"] == 12
    write(doc, "TRUNCATE doc_eu", 0, 0)
    assert collection_row(doc)["rows"] == 6
    doc.execute("BEGIN")
    doc.execute("TRUNCATE doc_rest")
    doc.execute("ROLLBACK")
    assert assert_exact(doc, keys=KEYS)["rows"] == 6


def test_attached_partition_is_reported_and_then_embedded(doc: psycopg.Connection[Any]) -> None:
    assert unfinished(doc) == []
    doc.execute("CREATE TABLE doc_mars (LIKE doc INCLUDING ALL)")
    doc.execute("INSERT INTO doc_mars VALUES ('mars', 1, 'red dust'), ('mars', 2, 'two moons')")
    doc.execute("ALTER TABLE doc ATTACH PARTITION doc_mars FOR VALUES IN ('mars')")
    doc.execute("CREATE TABLE doc_venus PARTITION OF doc FOR VALUES IN ('venus')")
    assert our_triggers(doc, "doc_mars") == []
    # The triggers of the parent see what goes through it.
    doc.execute("INSERT INTO doc VALUES ('venus', 1, 'through the parent')")
    doc.execute("INSERT INTO doc_venus VALUES ('venus', 2, 'past it')")
    row = collection_row(doc)
    assert (row["rows"] - row["embedded"], row["is_complete"]) == (3, False)
    assert unfinished(doc)
    with model_does(doc, 2, 3):  # once for each partition
        doc.execute("CALL maintain()")
    assert_exact(doc, keys=KEYS)
    assert unfinished(doc) == []
    write(doc, "INSERT INTO doc_mars VALUES ('mars', 3, 'thin air')", 1, 1)
    write(doc, "UPDATE doc_venus SET body = 'acid clouds'", 1, 1)
    write(doc, "TRUNCATE doc_mars", 0, 0)
    with model_does(doc, 0):
        doc.execute("CALL maintain()")


def test_detached_and_dropped_partitions_take_their_vectors_along(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE doc DETACH PARTITION doc_asia")
    doc.execute("ALTER TABLE doc_eu DETACH PARTITION doc_eu_2")
    # A table that is no part of the collection is written like any other, also before anybody has tidied up.
    doc.execute("INSERT INTO doc_asia (region, id, body) VALUES ('asia', 77, 'no longer ours')")
    doc.execute("UPDATE doc_eu_2 SET body = 'nor this'")
    doc.execute("DELETE FROM doc_asia WHERE id = 1")
    doc.execute("DROP TABLE doc_rest")
    assert unfinished(doc)
    with model_does(doc, 0):
        doc.execute("CALL maintain()")
    assert assert_exact(doc, keys=KEYS)["rows"] == 3
    assert unfinished(doc) == []
    for table in ("doc_asia", "doc_eu_2"):
        assert our_triggers(doc, table) == []
        with model_does(doc, 0):
            doc.execute(f"INSERT INTO {table} (region, id, body) VALUES ('asia', 78, 'nobody embeds this')")
    # A key that lives on in a detached table may come back in the parent.
    doc.execute("ALTER TABLE doc ATTACH PARTITION doc_asia FOR VALUES IN ('asia')")
    doc.execute("UPDATE doc_asia SET body = 'back, and changed' WHERE id = 2")
    doc.execute("CALL maintain()")
    assert_exact(doc, keys=KEYS)
    doc.execute("SELECT drop_auto_embed('public.doc.body')")
    for table in ("doc", "doc_eu", *LEAVES[:2]):
        assert our_triggers(doc, table) == []
    assert fetch_value(doc, "SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, 'pgml_tune')") == 0
