"""Collections in mode queue: writers only note keys, the worker makes the vectors true."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from collection_parts import parts
from collection_state import COLLECTION, assert_exact, collection_row, found, model_does
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from dumping import restored_copy
from job_workers import Installation, Workers, workers_of
from queue_parts import wait_until_fed, waiting
from spaces import MODEL, register_spaces, wrong_rows

CREATE = "CREATE TABLE doc (id bigint PRIMARY KEY, body text, note text)"
MODE_CHANGES = 6
PUT = "INSERT INTO doc VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
KILLS = int(os.environ.get("PGML_TUNE_QUEUE_KILLS", "4"))
COUNTED = """
SELECT calls, errors, texts, computed, tokens > texts, compute_time BETWEEN 0.1 AND total_exec_time
FROM pgml_tune.stat_inference WHERE version = 'v1'
"""
EMBED = "CALL auto_embed('doc', 'body', mode => 'queue')"


@pytest.fixture
def workers(server_home: Path, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    with workers_of(Installation(server_home), db) as started:
        yield started


@pytest.fixture
def doc(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on a table in mode queue, none of whose rows has been embedded."""
    db.execute(CREATE)
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g, 'n' FROM generate_series(1, 20) AS g")
    db.execute("INSERT INTO doc VALUES (21, NULL, 'n')")
    db.execute(EMBED)
    return db


def test_triggers_only_note_keys_of_rows_whose_text_changes(doc: psycopg.Connection[Any], connect: Connect) -> None:
    writes = (
        ("INSERT INTO doc VALUES (30, 'a', 'n'), (31, NULL, 'n')", ["30"]),
        ("UPDATE doc SET note = 'other'", []),
        ("UPDATE doc SET body = 'b' WHERE id IN (30, 31)", ["30", "31"]),
        ("UPDATE doc SET body = body || '' WHERE id = 30", []),
        ("UPDATE doc SET id = 40 WHERE id = 30", ["30", "40"]),
        ("UPDATE doc SET body = NULL WHERE id = 40", ["40"]),
        ("DELETE FROM doc WHERE id IN (31, 40)", ["31", "40"]),
        ("INSERT INTO doc VALUES (1, 'c') ON CONFLICT (id) DO UPDATE SET body = 'c'", ["1"]),
    )
    with model_does(doc, 0):
        for statement, keys in writes:
            doc.execute("DELETE FROM pgml_tune.queue")
            doc.execute(statement)
            assert waiting(doc) == [(key,) for key in keys], statement
    doc.execute("DELETE FROM pgml_tune.queue")
    with refused("P0001"), doc.transaction():
        doc.execute("INSERT INTO doc VALUES (50, 'never')")
        doc.execute("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    assert waiting(doc) == []


def test_worker_makes_a_collection_whole_and_keeps_it_so(doc: psycopg.Connection[Any], workers: Workers) -> None:
    with refused("55000"):
        found(doc, "text number 3")
    workers.serve()
    wait_until_fed(doc)
    assert assert_exact(doc)["rows"] == 20
    assert found(doc, "text number 3", k=1) == [{"id": 3}]
    doc.execute("INSERT INTO doc SELECT g, 'more ' || g % 7 FROM generate_series(100, 140) AS g")
    doc.execute("UPDATE doc SET body = 'a red herring' WHERE id = 3")
    doc.execute("UPDATE doc SET id = 1000 WHERE id = 4")
    doc.execute("UPDATE doc SET body = NULL WHERE id = 5")
    doc.execute("DELETE FROM doc WHERE id = 6")
    wait_until_fed(doc)
    assert assert_exact(doc)["rows"] == 59
    assert found(doc, "a red herring", k=1) == [{"id": 3}]
    doc.execute("TRUNCATE doc")
    doc.execute("INSERT INTO doc VALUES (3, 'after all')")
    wait_until_fed(doc)
    assert assert_exact(doc)["rows"] == 1


def test_what_the_worker_embeds_is_counted_as_calls_of_its_version(
    doc: psycopg.Connection[Any], workers: Workers
) -> None:
    workers.serve()
    wait_until_fed(doc)
    assert doc.execute(COUNTED).fetchone() == (1, 0, 20, 20, True, True)
    doc.execute("UPDATE doc SET body = 'another' WHERE id < 3; DELETE FROM doc WHERE id = 3")
    wait_until_fed(doc)
    assert (doc.execute(COUNTED).fetchone() or ())[1:4] == (0, 22, 22)


def test_chunks_and_other_options_are_those_of_triggers(db: psycopg.Connection[Any], workers: Workers) -> None:
    db.execute(CREATE)
    db.execute("INSERT INTO doc SELECT g, repeat('the brown fox ' || g || '. ', g) FROM generate_series(1, 30) AS g")
    options = '{"chunk_tokens": 32, "chunk_overlap": 8, "storage": "halfvec", "text_search": "english"}'
    db.execute("CALL auto_embed('doc', 'body', mode => 'queue', options => %s)", (options,))
    workers.serve()
    wait_until_fed(db)
    assert assert_exact(db)["rows"] == 30
    db.execute("UPDATE doc SET body = 'short' WHERE id > 20")
    wait_until_fed(db)
    assert assert_exact(db)["rows"] == 30


def test_rows_that_wait_are_shown_and_doctor_tells_that_no_worker_runs(doc: psycopg.Connection[Any]) -> None:
    doc.execute("INSERT INTO doc VALUES (30, 'a')")
    row = doc.execute(
        "SELECT kind, model, steps_total, metric, metric_value >= 0 FROM pgml_tune.stat_progress"
    ).fetchall()
    assert row == [("queue", "minilm@v1", 1, "lag_seconds", True)]
    assert fetch_value(doc, "SELECT status FROM doctor() WHERE check_name = 'queue'") == "warn"


ODD_KEYS = """
CREATE TYPE mood AS ENUM ('so so', 'fine');
CREATE DOMAIN code AS varchar(20) COLLATE "C" CHECK (VALUE <> '');
CREATE TABLE doc (
    a timestamptz, b bytea, c uuid, d mood, e code, f numeric(10, 2), g text[], h interval, i char(5), j boolean,
    k float8, l int4range, body text, PRIMARY KEY (a, b, c, d, e, f, g, h, i, j, k, l)
)
"""
ODD_ROWS = r"""
INSERT INTO doc SELECT '2026-03-29 01:59:59.123456+01', '\x00ff5c', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'so so',
    E'q"\'\\,{}', g + 0.25, ARRAY['x,y', NULL, '', '"'], '1 mon -1 day 00:00:00.5', 'ab', g % 2 = 0, 0.1 + g / 3.0,
    int4range(1, g + 5), 'text ' || g FROM generate_series(1, 5) AS g
"""


def test_keys_of_any_type_come_back_as_they_were(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers
) -> None:
    db.execute(ODD_KEYS)
    db.execute(EMBED)
    odd = connect()
    odd.execute("SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET bytea_output = 'escape'")
    odd.execute("SET extra_float_digits = -3; SET TimeZone = 'Asia/Kathmandu'")
    odd.execute(ODD_ROWS)
    workers.serve()
    wait_until_fed(db)
    keys = tuple("abcdefghijkl")
    assert assert_exact(db, keys=keys)["rows"] == 5
    odd.execute("UPDATE doc SET body = body || ' again', f = f + 1")
    odd.execute("DELETE FROM doc WHERE j")
    wait_until_fed(db)
    assert assert_exact(db, keys=keys)["rows"] == 3


def test_a_row_that_cannot_be_embedded_keeps_no_other_waiting_and_is_given_up(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect
) -> None:
    doc.execute("SELECT configure('max_input_bytes', '1000')")
    doc.execute("UPDATE doc SET body = repeat('long ', 300) WHERE id IN (7, 13)")
    workers.serve()
    embedded = "SELECT embedded FROM pgml_tune.embedding_collections"
    wait_until(lambda: fetch_value(doc, embedded) == 18, 60)

    def are_given_up() -> bool:
        doc.execute("UPDATE pgml_tune.queue SET due_at = NULL")  # as if the time had come
        return bool(fetch_value(doc, "SELECT count(*) = 2 FROM pgml_tune.queue_failures"))

    wait_until(are_given_up, 60)
    counted = doc.execute(COUNTED).fetchone()
    assert counted is not None and counted[1] >= 10 and counted[2] == 18
    failures = "SELECT key ->> 'id', sqlstate, tries, source::text FROM pgml_tune.queue_failures ORDER BY 1"
    assert doc.execute(failures).fetchall() == [("13", "54000", 5, "doc"), ("7", "54000", 5, "doc")]
    wait_until_fed(doc)
    assert collection_row(doc)["state"] == "ready"
    assert 7 not in [key["id"] for key in found(doc, "long long", k=30)]
    assert fetch_value(doc, "SELECT status FROM doctor() WHERE check_name = 'queue'") == "warn"
    # A text that can be embedded mends one of them, a limit that lets it pass the other.
    doc.execute("UPDATE doc SET body = 'short' WHERE id = 7")
    wait_until(lambda: fetch_value(doc, "SELECT count(*) FROM pgml_tune.queue_failures") == 1, 30)
    doc.execute("SELECT configure('max_input_bytes', NULL)")
    assert fetch_value(doc, "SELECT requeue_failed('public.doc.body')") == 1
    wait_until_fed(doc)
    assert assert_exact(doc)["rows"] == 20
    assert fetch_value(doc, "SELECT status FROM doctor() WHERE check_name = 'queue'") == "ok"


def test_only_owners_queue_rows_and_see_and_requeue_failures(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    db.execute("CREATE SCHEMA app AUTHORIZATION olga; SET ROLE olga")
    db.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text); GRANT INSERT ON app.doc TO stranger")
    db.execute("CALL auto_embed('app.doc', 'body', collection => 'olgas', mode => 'queue')")
    db.execute("RESET ROLE; GRANT USAGE ON SCHEMA app TO stranger")
    connect("stranger").execute("INSERT INTO app.doc VALUES (1, 'by a stranger')")
    assert waiting(db) == [("1",)]
    for role in ("stranger", "mallory", "alice"):
        session = connect(role)
        for sql in (
            "INSERT INTO pgml_tune.queue (collection_id, key) SELECT collection_id, '{2}' FROM pgml_tune.collection",
            "INSERT INTO pgml_tune.queue (collection_id, key) VALUES (1, '{2}')",
            "INSERT INTO pgml_tune.queue (collection_id, key) VALUES (99, '{2}')",
            "SELECT * FROM pgml_tune.queue",
            "DELETE FROM pgml_tune.queue",
            "SELECT * FROM pgml_tune.queue_failure",
        ):
            with refused("42501"):
                session.execute(sql)
    db.execute(
        "INSERT INTO pgml_tune.queue_failure (collection_id, key, tries, sqlstate, message, enqueued_at)"
        " SELECT collection_id, '{1}', 5, '54000', 'too long', now() FROM pgml_tune.collection"
    )
    db.execute("SELECT grant_operate('bob')")
    bob, olga, adam = connect("bob"), connect("olga"), connect("adam")
    seen = "SELECT count(*) FROM pgml_tune.queue_failures"
    assert [fetch_value(session, seen) for session in (bob, olga, adam)] == [0, 1, 1]
    assert fetch_value(bob, "SELECT requeue_failed()") == 0
    with refused("42501"):
        bob.execute("SELECT requeue_failed('olgas')")
    with refused("42704"):
        olga.execute("SELECT requeue_failed('nothing')")
    assert fetch_value(olga, "SELECT requeue_failed()") == 1
    assert fetch_value(olga, seen) == 0


def test_what_an_owner_queues_that_is_no_key_keeps_nobody_waiting(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers
) -> None:
    db.execute("CREATE SCHEMA app AUTHORIZATION olga; SET ROLE olga")
    db.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text)")
    db.execute("CALL auto_embed('app.doc', 'body', collection => 'olgas', mode => 'queue')")
    db.execute("RESET ROLE")
    db.execute(CREATE)
    db.execute(EMBED)
    number = fetch_value(db, "SELECT collection_id FROM pgml_tune.collection WHERE name = 'olgas'")
    olga, queue_it = connect("olga"), "INSERT INTO pgml_tune.queue (collection_id, key) VALUES (%s, %s::text[])"
    for key in ("{}", "{{1,2},{3,4}}"):
        with refused("23514"):
            olga.execute(queue_it, (number, key))
    for key in ("{no number}", "{1,2}", "{NULL}", "{no,number}", "[5:6]={1,2}"):
        olga.execute(queue_it, (number, key))
    olga.execute("INSERT INTO app.doc VALUES (1, 'hers')")
    db.execute("INSERT INTO doc VALUES (1, 'of somebody else')")
    workers.serve()
    wait_until_fed(db)

    def are_given_up() -> bool:
        db.execute("UPDATE pgml_tune.queue SET due_at = NULL")  # as if the time had come
        return bool(fetch_value(db, "SELECT count(*) = 2 FROM pgml_tune.queue_failures"))

    wait_until(are_given_up, 60)
    wait_until_fed(db, "olgas")
    failed = "SELECT key::text FROM pgml_tune.queue_failures ORDER BY 1"
    assert db.execute(failed).fetchall() == [('["no", "number"]',), ('{"id": "no number"}',)]
    assert assert_exact(db)["rows"] == assert_exact(db, "olgas")["rows"] == 1


def test_no_more_of_large_texts_is_looked_into_than_is_taken(db: psycopg.Connection[Any]) -> None:
    db.execute(CREATE)
    db.execute("INSERT INTO doc SELECT g, repeat('long ', 600000) FROM generate_series(1, 4) AS g")
    db.execute("INSERT INTO doc VALUES (5, repeat('long ', 4000000))")
    db.execute(EMBED)
    read = """
    SELECT r.key_no, octet_length(r.content), r.text_sha256 IS NULL
    FROM pgml_tune.collection AS c, pgml_tune._read_queued(c.collection_id, %s::text[]) AS r
    """
    found = db.execute(read, ([["1"], ["2"], ["3"], ["4"]],)).fetchall()
    assert found == [(1, 3000000, False), (2, 3000000, False), (3, None, True), (4, None, True)]
    assert db.execute(read, ([["5"], ["1"]],)).fetchall() == [(1, 4194305, True), (2, None, True)]


def test_the_mode_of_a_collection_is_changed_by_naming_another(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect
) -> None:
    doc.execute("CALL auto_embed('doc', 'body')")
    assert collection_row(doc)["mode"] == "queue"
    doc.execute("CALL auto_embed('doc', 'body', mode => 'trigger')")
    assert waiting(doc) == []
    doc.execute("UPDATE doc SET body = 'at once' WHERE id < 3; DELETE FROM doc WHERE id = 4")
    assert waiting(doc) == []
    assert (assert_exact(doc)["rows"], collection_row(doc)["mode"]) == (19, "trigger")
    with refused("42501"):
        connect("olga").execute(EMBED)
    doc.execute(EMBED)
    with model_does(doc, 0):
        doc.execute("UPDATE doc SET body = 'later' WHERE id = 1")
    assert ("1",) in waiting(doc)
    workers.serve()
    wait_until_fed(doc)
    assert (assert_exact(doc)["rows"], collection_row(doc)["mode"]) == (19, "queue")


def test_changes_of_the_mode_under_writers_and_a_worker_lose_no_row(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect
) -> None:
    stop, errors = threading.Event(), []

    def write(number: int) -> None:
        session, turn = connect(), 0
        try:
            while not stop.is_set():
                turn += 1
                with session.transaction():
                    session.execute("UPDATE doc SET body = %s WHERE id = %s", (f"{number} {turn}", turn % 20 + 1))
                    session.execute(PUT, (1000 * number + turn % 30, f"own {turn}"))
                    session.execute("DELETE FROM doc WHERE id = %s", (1000 * number + (turn + 7) % 30,))
        except psycopg.errors.DeadlockDetected:
            write(number)
        except Exception as error:
            errors.append(error)

    workers.serve()
    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    for turn in range(MODE_CHANGES):
        stop.wait(random.uniform(0.2, 1.0))
        doc.execute("CALL auto_embed('doc', 'body', mode => %s)", (("trigger", "queue")[turn % 2],))
    stop.set()
    for writer in writers:
        writer.join()
    assert not errors
    doc.execute("CALL auto_embed('doc', 'body', mode => 'trigger')")
    assert waiting(doc) == []
    assert_exact(doc)


def test_renames_are_followed_and_a_drop_leaves_nothing(doc: psycopg.Connection[Any], workers: Workers) -> None:
    doc.execute("INSERT INTO doc VALUES (30, 'before')")
    doc.execute("ALTER TABLE doc RENAME id TO number; ALTER TABLE doc RENAME body TO \"the text\"")
    doc.execute("ALTER TABLE doc RENAME TO paper")
    doc.execute("INSERT INTO paper VALUES (31, 'after')")
    workers.serve()
    wait_until_fed(doc)
    assert assert_exact(doc, keys=("number",))["rows"] == 22
    doc.execute("INSERT INTO paper SELECT g, 'x' || g FROM generate_series(100, 200) AS g")
    doc.execute(f"SELECT drop_auto_embed('{COLLECTION}')")
    wait_until(lambda: waiting(doc) == [], 30)
    left = "SELECT count(*) FROM pg_proc WHERE proname ~ '^_(sync|keep|feed)_[0-9]'"
    assert fetch_value(doc, left) == 0
    doc.execute("INSERT INTO paper VALUES (300, 'nobody cares')")
    assert waiting(doc) == []


def test_column_dropped_with_cascade_leaves_the_table_writable(doc: psycopg.Connection[Any], workers: Workers) -> None:
    workers.serve()
    wait_until_fed(doc)
    doc.execute("ALTER TABLE doc DROP body CASCADE")
    doc.execute("INSERT INTO doc (id) VALUES (30)")
    doc.execute("DELETE FROM doc WHERE id < 3")
    doc.execute("TRUNCATE doc")
    assert waiting(doc) == []


def test_transaction_from_before_the_collection_is_refused(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute(CREATE)
    old = connect()
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM doc")
    old.execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
    db.execute(EMBED)
    with refused("40001"):
        old.execute("INSERT INTO doc VALUES (1, 'a')")
    old.execute("ROLLBACK")


def test_partitions_written_attached_detached_and_truncated(db: psycopg.Connection[Any], workers: Workers) -> None:
    db.execute(
        "CREATE TABLE doc (region text, id bigint, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region)"
    )
    db.execute("CREATE TABLE doc_eu PARTITION OF doc FOR VALUES IN ('eu')")
    db.execute("CREATE TABLE doc_us PARTITION OF doc FOR VALUES IN ('us')")
    db.execute("CREATE TABLE doc_asia (body text, id bigint NOT NULL, region text NOT NULL)")
    db.execute("INSERT INTO doc_asia SELECT 'asia ' || g, g, 'asia' FROM generate_series(1, 5) AS g")
    db.execute("INSERT INTO doc SELECT 'eu', g, 'europe ' || g FROM generate_series(1, 5) AS g")
    db.execute(EMBED)
    workers.serve()
    wait_until_fed(db)
    db.execute("INSERT INTO doc_us SELECT 'us', g, 'america ' || g FROM generate_series(1, 5) AS g")
    db.execute("UPDATE doc SET region = 'us', id = 10 WHERE region = 'eu' AND id = 1")
    db.execute("ALTER TABLE doc ATTACH PARTITION doc_asia FOR VALUES IN ('asia')")
    db.execute("CALL maintain()")
    wait_until_fed(db)
    assert assert_exact(db, keys=("region", "id"))["rows"] == 15
    db.execute("TRUNCATE doc_us")
    db.execute("ALTER TABLE doc DETACH PARTITION doc_eu")
    db.execute("CALL maintain()")
    db.execute("DELETE FROM doc_asia WHERE id = 1")
    wait_until_fed(db)
    assert assert_exact(db, keys=("region", "id"))["rows"] == 4


def test_row_security_hides_vectors_as_rows(db: psycopg.Connection[Any], connect: Connect, workers: Workers) -> None:
    db.execute("CREATE SCHEMA vault AUTHORIZATION olga; GRANT USAGE ON SCHEMA vault TO PUBLIC; SET ROLE olga")
    db.execute("CREATE TABLE vault.doc (id integer PRIMARY KEY, body text, tenant name)")
    db.execute("GRANT SELECT ON vault.doc TO alice; ALTER TABLE vault.doc ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY own ON vault.doc USING (tenant = current_user)")
    db.execute(
        "INSERT INTO vault.doc SELECT g, 'text ' || g, CASE g % 2 WHEN 0 THEN 'alice' ELSE 'bob' END"
        " FROM generate_series(1, 10) AS g"
    )
    db.execute("CALL auto_embed('vault.doc', 'body', collection => 'vault', mode => 'queue')")
    db.execute("RESET ROLE")
    workers.serve()
    wait_until_fed(db, "vault")
    alice = connect("alice")
    assert fetch_value(alice, f"SELECT count(*) FROM {parts(db, 'vault')['side']}") == 5
    assert len(found(alice, "text", "vault")) == 5


def test_a_new_owner_of_the_table_is_followed(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers
) -> None:
    db.execute("CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO olga, adam; SET ROLE olga")
    db.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text)")
    db.execute("CALL auto_embed('app.doc', 'body', collection => 'inherited', mode => 'queue')")
    db.execute("INSERT INTO app.doc VALUES (1, 'of olga'); RESET ROLE")
    workers.serve()
    wait_until_fed(db, "inherited")
    db.execute("ALTER TABLE app.doc OWNER TO adam")
    adam = connect("adam")
    adam.execute("INSERT INTO app.doc VALUES (2, 'before maintain()')")
    assert waiting(db) == [("2",)]
    db.execute("CALL maintain()")
    adam.execute("INSERT INTO app.doc VALUES (3, 'afterwards')")
    wait_until_fed(db, "inherited")
    assert assert_exact(db, "inherited")["rows"] == 3


@pytest.mark.parametrize("dump_format", ["plain", "custom"])
def test_a_dump_takes_rows_that_wait_along(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect, tmp_path: Path, dump_format: str
) -> None:
    worker = workers.serve()
    wait_until_fed(doc)
    worker.end()
    doc.execute("UPDATE doc SET body = 'changed' WHERE id = 2; DELETE FROM doc WHERE id = 3")
    with restored_copy(doc, connect, tmp_path, dump_format) as copy:
        assert waiting(copy) == [("2",), ("3",)]
        copy.execute("INSERT INTO doc VALUES (30, 'in the copy')")
        with workers_of(workers.installation, copy) as others:
            others.serve()
            wait_until_fed(copy)
            assert assert_exact(copy)["rows"] == 20


def test_twins_are_fed_like_what_they_stand_beside(
    db: psycopg.Connection[Any], server_home: Path, workers: Workers
) -> None:
    register_spaces(db, Installation(server_home))
    db.execute(CREATE)
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 40) AS g")
    db.execute(f"CALL auto_embed('doc', 'body', '{MODEL}', mode => 'queue')")
    worker = workers.serve()
    wait_until_fed(db)
    db.execute(f"CALL prepare_rollout('{MODEL}', 'v2')")
    with refused("55000"):
        db.execute("CALL auto_embed('doc', 'body', mode => 'trigger')")
    db.execute("UPDATE doc SET body = body || ' again' WHERE id % 3 = 0; DELETE FROM doc WHERE id % 7 = 0")
    db.execute("INSERT INTO doc VALUES (100, 'new')")
    wait_until_fed(db)
    assert wrong_rows(db, COLLECTION, "v1") == wrong_rows(db, COLLECTION, "v2") == []
    worker.end()
    db.execute("UPDATE doc SET body = 'while no worker runs' WHERE id = 1")
    db.execute(f"CALL prepare_rollout('{MODEL}', 'v2')")
    db.execute(f"SELECT rollout_model('{MODEL}', 'v2')")
    workers.serve()
    wait_until_fed(db)
    assert wrong_rows(db, COLLECTION, "v1") == wrong_rows(db, COLLECTION, "v2") == []
    assert found(db, "while no worker runs", k=1) == [{"id": 1}]


@contextmanager
def writers(connect: Connect, *statements: str) -> Iterator[list[Exception]]:
    """Sessions that write all the time, each one statement with a number in it; gives what went wrong."""
    stop, errors = threading.Event(), list[Exception]()

    def write(statement: str) -> None:
        session, turn = connect(), 0
        try:
            while not stop.wait(0.005):
                turn += 1
                session.execute(statement, {"turn": turn})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(statement,)) for statement in statements]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in threads:
            thread.join()


CHANGES = (
    "UPDATE doc SET body = 'one ' || %(turn)s WHERE id %% 20 = %(turn)s %% 10",
    "UPDATE doc SET body = 'two ' || %(turn)s WHERE id %% 20 = 10 + %(turn)s %% 10",
    "INSERT INTO doc VALUES (1000 + %(turn)s, 'new ' || %(turn)s)",
)


def test_a_version_is_prepared_and_rolled_out_while_others_write(
    db: psycopg.Connection[Any], server_home: Path, workers: Workers, connect: Connect
) -> None:
    register_spaces(db, Installation(server_home))
    db.execute(CREATE)
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 400) AS g")
    db.execute(f"CALL auto_embed('doc', 'body', '{MODEL}', mode => 'queue')")
    workers.serve()
    wait_until_fed(db)
    with writers(connect, *CHANGES) as errors:
        db.execute(f"CALL prepare_rollout('{MODEL}', 'v2')")
        db.execute(f"SELECT rollout_model('{MODEL}', 'v2')")
        db.execute("CALL maintain()")
    assert errors == []
    wait_until_fed(db)
    assert wrong_rows(db, COLLECTION, "v1") == wrong_rows(db, COLLECTION, "v2") == []


def test_the_mode_changes_while_others_write(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect
) -> None:
    workers.serve()
    wait_until_fed(doc)
    with writers(connect, *CHANGES) as errors:
        for mode in ("trigger", "queue") * 3:
            doc.execute("CALL auto_embed('doc', 'body', mode => %s)", (mode,))
            marked = fetch_value(doc, "SELECT max(id) FROM doc")
            wait_until(lambda seen=marked: fetch_value(doc, "SELECT max(id) > %s FROM doc", (seen,)), 30)
    assert errors == []
    wait_until_fed(doc)
    assert_exact(doc)


def test_side_table_with_code_of_its_owner_is_not_written_to(
    db: psycopg.Connection[Any], workers: Workers
) -> None:
    db.execute("CREATE SCHEMA app AUTHORIZATION olga; GRANT CREATE ON SCHEMA public TO olga; SET ROLE olga")
    db.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text)")
    db.execute("CALL auto_embed('app.doc', 'body', collection => 'olgas', mode => 'queue')")
    side = str(fetch_value(db, "SELECT embeddings::text FROM pgml_tune.embedding_collections"))
    db.execute(
        "CREATE FUNCTION app.evil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN EXECUTE 'ALTER ROLE olga SUPERUSER'; RETURN NEW; END$$"
    )
    db.execute(f"CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON {side} DEFERRABLE INITIALLY DEFERRED"
               " FOR EACH ROW EXECUTE FUNCTION app.evil()")  # fmt: skip
    db.execute("INSERT INTO app.doc VALUES (1, 'a')")
    db.execute("RESET ROLE")
    worker = workers.serve()
    wait_until(lambda: "left for a while" in worker.log.read_text(), 30)
    assert waiting(db) == [("1",)]
    assert fetch_value(db, "SELECT rolsuper FROM pg_roles WHERE rolname = 'olga'") is False
    db.execute(f"DROP TRIGGER evil ON {side}")
    wait_until_fed(db, "olgas")


TRAP = """
CREATE TABLE app.trap (x integer);
CREATE FUNCTION app.spring() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO app.mark VALUES (current_user); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON app.trap DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION app.spring();
CREATE FUNCTION app.lay() RETURNS integer LANGUAGE plpgsql AS $$BEGIN {attack}; RETURN 1; END$$;
CREATE FUNCTION app.calm(x integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN IF session_user = 'postgres' AND current_user = 'olga' THEN RETURN app.lay(); END IF; RETURN x; END$$;
CREATE INDEX ON app.doc ((app.calm(1) + id));
"""
ATTACKS = {
    "INSERT INTO app.trap VALUES (1)": False,
    "PERFORM set_config('search_path', 'app, pg_catalog', false)": True,
    "EXECUTE 'SET ROLE postgres'; INSERT INTO app.mark VALUES (current_user)": False,
    "EXECUTE 'PREPARE _pg3_0 AS SELECT app.lay()'": False,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_of_an_owner_that_planning_runs_does_not_become_the_worker(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers, attack: str
) -> None:
    db.execute("CREATE SCHEMA app AUTHORIZATION olga")
    olga = connect("olga")
    olga.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text); CREATE TABLE app.mark (role name)")
    # In front of the server's own, should its place in the search path ever be taken.
    olga.execute(
        "CREATE FUNCTION app.same(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO app.mark VALUES (current_user); RETURN a OPERATOR(pg_catalog.=) b; END$$;"
        "CREATE OPERATOR app.= (leftarg = bigint, rightarg = bigint, function = app.same)"
    )
    olga.execute("CALL auto_embed('app.doc', 'body', collection => 'olgas', mode => 'queue')")
    olga.execute(TRAP.format(attack=attack))
    olga.execute("INSERT INTO app.doc VALUES (1, 'a'), (2, 'b')")
    worker = workers.serve()
    if ATTACKS[attack]:
        wait_until_fed(db, "olgas")
        olga.execute("UPDATE app.doc SET body = 'c'")
        wait_until_fed(db, "olgas")
    else:
        wait_until(lambda: "left for a while" in worker.log.read_text(), 60)
    assert olga.execute("SELECT DISTINCT role FROM app.mark WHERE role <> 'olga'").fetchall() == []
    assert fetch_value(olga, "SELECT count(*) FROM app.trap") == 0


def test_a_worker_takes_more_than_one_session_only_where_a_queue_is(
    db: psycopg.Connection[Any], workers: Workers
) -> None:
    sessions = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'pgml-tune worker'"
    )
    worker = workers.serve()
    wait_until(lambda: "serves this database" in worker.log.read_text(), 30)
    db.execute(CREATE)
    db.execute("CALL auto_embed('doc', 'body')")
    db.execute("INSERT INTO doc VALUES (1, 'a')")
    wait_until(lambda: fetch_value(db, sessions) == 1, 10)
    db.execute(EMBED)
    db.execute("INSERT INTO doc VALUES (2, 'b')")
    wait_until_fed(db)
    wait_until(lambda: fetch_value(db, sessions) == 3, 10)
    db.execute(f"SELECT drop_auto_embed('{COLLECTION}')")
    wait_until(lambda: fetch_value(db, sessions) == 1, 30)


def test_a_worker_that_is_told_to_stop_does_not_wait_for_what_it_builds(
    db: psycopg.Connection[Any], connect: Connect, workers: Workers
) -> None:
    db.execute("CREATE SCHEMA app AUTHORIZATION olga")
    olga = connect("olga")
    olga.execute("CREATE TABLE app.doc (id integer PRIMARY KEY, body text)")
    olga.execute("CALL auto_embed('app.doc', 'body', collection => 'olgas', mode => 'queue')")
    olga.execute(
        "CREATE FUNCTION app.rest() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN"
        " IF session_user = 'postgres' THEN PERFORM pg_sleep(600); END IF; RETURN 1; END$$;"
        "CREATE INDEX ON app.doc ((app.rest() + id))"
    )
    worker = workers.serve()
    asleep = (
        "SELECT count(*) > 0 FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'pgml-tune worker' AND wait_event = 'PgSleep'"
    )
    wait_until(lambda: fetch_value(db, asleep), 60)
    assert worker.end(20) == 0
    wait_until(lambda: not fetch_value(db, asleep), 20)


def test_workers_killed_under_load_lose_no_row(
    doc: psycopg.Connection[Any], workers: Workers, connect: Connect
) -> None:
    stop = threading.Event()
    errors: list[Exception] = []

    def write(number: int) -> None:
        session, turn = connect(), 0
        try:
            while not stop.is_set():
                turn += 1
                key = number * 1000 + turn % 25
                session.execute(PUT, (key, f"writer {number} turn {turn}"))
                session.execute("UPDATE doc SET body = %s WHERE id = %s", (f"shared {number} {turn}", turn % 5 + 1))
                if turn % 7 == 0:
                    session.execute("DELETE FROM doc WHERE id = %s", (key,))
                stop.wait(0.005)
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, 4)]
    for writer in writers:
        writer.start()
    try:
        steady = workers.serve()
        for _ in range(KILLS):
            victim = workers.serve()
            wait_until(lambda log=victim.log: "serves this database" in log.read_text(), 30)
            stop.wait(random.uniform(0.2, 2.0))
            victim.process.kill()
            victim.process.wait()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not errors
    assert steady.process.poll() is None
    wait_until_fed(doc)
    assert_exact(doc)
