"""prepare_rollout() makes the vectors of another space while the table is used, and measures them."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from collection_state import found
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation
from spaces import MODEL, missing_steps, notices_of, register_spaces, side_table, wrong_rows

ROWS = 120
DOC = "public.doc.body"
PREPARE = """CALL prepare_rollout('t', 'v2', '{"sample": 10}')"""
GOLDEN_OPTION = "jsonb_build_object('sample', 10, 'golden_query', %s::text)"
SLOWLY = """CALL prepare_rollout('t', 'v2', '{"rows_per_second": 40, "batch_size": 20}')"""


@pytest.fixture
def doc(db: psycopg.Connection[Any], server_home: Path) -> psycopg.Connection[Any]:
    """A session on a collection that v1 answers."""
    register_spaces(db, Installation(server_home))
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, %s) AS g", (ROWS,))
    db.execute("UPDATE doc SET body = NULL WHERE id = 8")
    db.execute(f"CALL auto_embed('doc', 'body', '{MODEL}')")
    return db


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def validation(db: psycopg.Connection[Any], collection: str = DOC, version: str = "v2") -> dict[str, Any]:
    sql = "SELECT validation FROM pgml_tune.embedding_collections WHERE collection = %s AND version = %s"
    return dict(fetch_value(db, sql, (collection, version)))


def prepared(db: psycopg.Connection[Any]) -> int:
    """How many vectors of v2 are committed; 0 before there is a place for them."""
    sql = "SELECT max(embeddings::text) FROM pgml_tune.embedding_collections WHERE version = 'v2'"
    table = fetch_value(db, sql)
    return 0 if table is None else int(fetch_value(db, f"SELECT count(*) FROM {table}"))


def test_each_row_gets_its_vector_of_the_other_space_while_searches_stay(doc: psycopg.Connection[Any]) -> None:
    before = found(doc, "text number 17")
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    doc.execute("CALL prepare_rollout('t', 'v2')")
    assert wrong_rows(doc, DOC, "v2") == []
    assert wrong_rows(doc, DOC, "v1") == []
    assert found(doc, "text number 17") == before
    assert missing_steps(doc, "v2") == []
    figures = validation(doc)
    assert (figures["rows"], figures["missing"], figures["stale"]) == (ROWS - 1, 0, 0)
    assert figures["passed"] is True
    assert figures["sample"] == ROWS - 1
    assert figures["recall_at_10"] == 1
    assert 0 < figures["overlap_at_10"] <= 1


def test_view_and_query_function_stay_those_of_the_version_that_answers(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    shown = "SELECT version, role, view_name::text FROM pgml_tune.embedding_collections ORDER BY 1"
    assert doc.execute(shown).fetchall() == [("v1", "serving", "doc_body_embedding"), ("v2", "prepared", None)]
    assert fetch_value(doc, "SELECT vector_dims(embedding) FROM doc_body_embedding LIMIT 1") == 32


def test_writes_after_it_feed_both_spaces(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("INSERT INTO doc VALUES (1000, 'new'), (1001, NULL)")
    doc.execute("UPDATE doc SET body = body || '!' WHERE id < 50")
    doc.execute("UPDATE doc SET id = 2000 WHERE id = 60")
    doc.execute("DELETE FROM doc WHERE id BETWEEN 100 AND 110")
    assert wrong_rows(doc, DOC, "v1") == wrong_rows(doc, DOC, "v2") == []


def write(session: psycopg.Connection[Any], seed: int, is_over: Event) -> int:
    """Inserts, updates and deletes rows until it is over; how often."""
    chance = random.Random(seed)
    count = 0
    while not is_over.is_set():
        number = chance.randrange(1, 2 * ROWS)
        session.execute(
            chance.choice(
                [
                    "INSERT INTO doc VALUES (%s, 'new') ON CONFLICT (id) DO UPDATE SET body = excluded.body || doc.id",
                    "UPDATE doc SET body = 'changed ' || id || random() WHERE id %% 40 = %s %% 40",
                    "DELETE FROM doc WHERE id = %s",
                ]
            ),
            (number,),
        )
        count += 1
    return count


def test_writers_go_on_meanwhile_and_nothing_is_lost(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    is_over = Event()
    writers = [background.submit(write, connect(), seed, is_over) for seed in range(4)]
    try:
        doc.execute("""CALL prepare_rollout('t', 'v2', '{"batch_size": 10, "rows_per_second": 200, "sample": 10}')""")
    finally:
        is_over.set()
    assert all(writer.result() > 0 for writer in writers)
    assert wrong_rows(doc, DOC, "v1") == wrong_rows(doc, DOC, "v2") == []
    assert validation(doc)["passed"] is True


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_what_was_done_stays_when_it_is_ended_and_the_next_call_goes_on(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor, end: str
) -> None:
    worker = connect()
    running = background.submit(worker.execute, SLOWLY)
    done = wait_until(lambda: prepared(doc))
    doc.execute(f"SELECT {end}(%s)", (worker.info.backend_pid,))
    with refused("57014", "57P01"):
        running.result()
    assert done <= prepared(doc) < ROWS - 1
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    kept = f"SELECT key_1, ctid, xmin FROM {side_table(doc, DOC, 'v2')} ORDER BY 1"
    before = set(doc.execute(kept).fetchall())
    doc.execute(PREPARE)
    assert before <= set(doc.execute(kept).fetchall())
    assert wrong_rows(doc, DOC, "v2") == []
    assert missing_steps(doc, "v2") == []


def test_a_second_call_finds_all_done(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    heard = notices_of(doc)
    doc.execute(PREPARE)
    assert [message for _, message in heard] == [f'collection "{DOC}": prepared already']


def test_it_is_held_to_a_rate_and_seen_by_whoever_may(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    seen = "SELECT kind, model, phase, steps_total, steps_done FROM pgml_tune.stat_progress"
    worker, admin, other = connect(), connect("adam"), connect("olga")
    running = background.submit(worker.execute, SLOWLY)
    row = wait_until(lambda: (rows := admin.execute(seen + " WHERE steps_done > 0").fetchall()) and rows[0])
    assert row[:4] == ("prepare_rollout", "t@v2", f'filling collection "{DOC}"', ROWS - 1)
    assert row[4] <= 200, "four seconds of forty rows each"
    assert other.execute(seen).fetchall() == []
    worker.cancel()
    with refused("57014"):
        running.result()
    assert admin.execute(seen).fetchall() == []
    doc.execute(PREPARE)
    assert admin.execute(seen).fetchall() == []
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.preparation") <= 1, "of the session that was cancelled"


def test_a_version_of_the_same_space_needs_nothing(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("CALL auto_embed('doc', 'body', 'minilm@v1')")
    db.execute("CALL embed_table('doc', 'body', 'embedding', 'minilm@v1')")
    heard = notices_of(db)
    db.execute("CALL prepare_rollout('minilm', 'v1-int8-block')")
    assert [message for _, message in heard] == [f'collection "{DOC}": prepared already']
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.collection") == 1
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.tracked_column") == 1


def test_vectors_that_the_index_does_not_find_may_not_answer(doc: psycopg.Connection[Any]) -> None:
    probe = fetch_value(doc, "SELECT pg_get_functiondef('pgml_tune._probe_vectors'::regproc)")
    doc.execute("""
        CREATE OR REPLACE FUNCTION pgml_tune._probe_vectors(collection_id bigint, sample integer) RETURNS bigint[]
        LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$ SELECT '{100,1000,600,1000,300}'::bigint[] $$
    """)
    with refused("55000"):
        doc.execute(PREPARE)
    figures = validation(doc)
    assert (figures["recall_at_10"], figures["overlap_at_10"], figures["passed"]) == (0.6, 0.3, False)
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    with refused("55000"):
        doc.execute("SELECT rollout_model('t', 'v2', 20)")
    doc.execute(probe)
    doc.execute(PREPARE)
    assert missing_steps(doc, "v2") == []


def test_a_lower_bar_lets_them_pass(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        CREATE OR REPLACE FUNCTION pgml_tune._probe_vectors(collection_id bigint, sample integer) RETURNS bigint[]
        LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$ SELECT '{100,1000,600,1000,300}'::bigint[] $$
    """)
    doc.execute("""CALL prepare_rollout('t', 'v2', '{"min_recall": 0.6, "sample": 10}')""")
    assert validation(doc)["passed"] is True


def test_rows_without_vectors_fail_and_the_next_call_mends_them(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("UPDATE pgml_tune.collection SET validation = NULL")
    doc.execute("ALTER TABLE doc DISABLE TRIGGER USER; INSERT INTO doc VALUES (900, 'unseen')")
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    doc.execute("ALTER TABLE doc ENABLE TRIGGER USER")
    doc.execute(PREPARE)
    assert wrong_rows(doc, DOC, "v2") == []
    assert missing_steps(doc, "v2") == []


def test_golden_questions_measure_both_sides(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE TABLE golden (question text, answer integer)")
    doc.execute("INSERT INTO golden SELECT body, id FROM doc WHERE id BETWEEN 20 AND 29")
    for query in (
        "SELECT question, answer FROM golden;",
        "SELECT question, jsonb_build_object('id', answer) FROM golden -- all of them",
    ):
        doc.execute(f"CALL prepare_rollout('t', 'v2', {GOLDEN_OPTION})", (query,))
        golden = validation(doc)["golden"]
        assert golden["questions"] == 10
        assert golden["mrr_at_10"] == golden["ndcg_at_10"] == {"serving": 1, "candidate": 1}


GOLDEN = {
    "no_query": ("22023", ""),
    "syntax": ("42601", "SELEC"),
    "two_statements": ("42601", "SELECT body, id FROM doc; SELECT 1"),
    "break_out": ("42601", "SELECT 'a', 1) AS q (a, b); DROP TABLE doc; --"),
    "no_select": ("42601", "DELETE FROM doc RETURNING body, id"),
    "one_column": ("42804", "SELECT body FROM doc"),
    "three_columns": ("42804", "SELECT body, id, 1 FROM doc"),
    "no_text": ("42804", "SELECT id, id FROM doc"),
    "null_key": ("42804", "SELECT 'a', NULL"),
    "no_rows": ("22023", "SELECT body, id FROM doc LIMIT 0"),
    "too_many": ("54000", "SELECT 'q' || g, g FROM generate_series(1, 1001) AS g"),
    "writes": ("25006", "SELECT 'a', writes()"),
    "unknown": ("42P01", "SELECT a, b FROM nowhere"),
}


def test_a_golden_query_that_is_none_is_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE FUNCTION writes() RETURNS integer LANGUAGE sql AS 'INSERT INTO doc VALUES (-1) RETURNING id'")
    for state, query in GOLDEN.values():
        with refused(state):
            doc.execute(f"CALL prepare_rollout('t', 'v2', {GOLDEN_OPTION})", (query,))
    assert fetch_value(doc, "SELECT count(*) FROM doc") == ROWS
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.collection") == 1


OPTIONS = [
    "[]", "null", '"a"', '{"sampel": 1}', '{"batch_size": 0}', '{"batch_size": 1.5}', '{"batch_size": 100001}',
    '{"batch_size": "10"}', '{"batch_size": true}', '{"rows_per_second": 0}', '{"rows_per_second": -1}',
    '{"rows_per_second": 1e400}', '{"sample": 0}', '{"sample": 10001}', '{"min_recall": 1.01}', '{"min_recall": "NaN"}',
    '{"min_recall": -0.1}', '{"golden_query": 1}', '{"golden_query": " "}', '{"golden_query": {}}',
    '{"drop": 1}', '{"__class__": 1}',
]  # fmt: skip


def test_an_option_that_is_none_is_refused(db: psycopg.Connection[Any]) -> None:
    for options in OPTIONS:
        with refused("22023"):
            db.execute("CALL prepare_rollout('minilm', 'v1', %s::text::jsonb)", (options,))


NAMES = [
    ("22023", None, "v1"), ("22023", "minilm", None), ("22023", "", "v1"), ("22023", "minilm", ""),
    ("42704", "nothing", "v1"), ("42704", "minilm", "v99"), ("22023", "minilm@v1", "v1"), ("22023", "MiniLM", "v1"),
    ("22023", "../minilm", "v1"), ("22023", "minilm", "v1; DROP TABLE doc"), ("22023", "minilm", "😀"),
    ("22023", "x" * 10_000, "v1"), ("22023", "minilm", "v1@v1"),
]  # fmt: skip


def test_a_version_that_is_none_is_refused(db: psycopg.Connection[Any]) -> None:
    for state, name, version in NAMES:
        with refused(state):
            db.execute("CALL prepare_rollout(%s, %s)", (name, version))


def test_a_read_only_session_is_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("SET default_transaction_read_only = on")
    with refused("25006"):
        doc.execute(PREPARE)


def test_a_transaction_block_does_all_at_once_or_nothing(doc: psycopg.Connection[Any]) -> None:
    heard = notices_of(doc)
    doc.execute("BEGIN")
    doc.execute(PREPARE)
    assert any("transaction block" in message for _, message in heard)
    assert wrong_rows(doc, DOC, "v2") == []
    doc.execute("ROLLBACK")
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.collection") == 1


@pytest.fixture
def shared(doc: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A second collection of the model, over a table of olga's."""
    doc.execute("CREATE SCHEMA hers AUTHORIZATION olga")
    doc.execute("SET ROLE olga")
    doc.execute("CREATE TABLE hers.note (id integer PRIMARY KEY, body text)")
    doc.execute("INSERT INTO hers.note SELECT g, 'note ' || g FROM generate_series(1, 30) AS g")
    doc.execute("CALL auto_embed('hers.note', 'body', 't')")
    doc.execute("RESET ROLE")
    return doc


def test_an_owner_prepares_his_own_and_is_told_of_the_others(
    shared: psycopg.Connection[Any], connect: Connect
) -> None:
    olga = connect("olga")
    heard = notices_of(olga)
    olga.execute(PREPARE)
    warnings = [message for severity, message in heard if severity == "WARNING"]
    assert len(warnings) == 1
    assert DOC in warnings[0]
    assert "postgres" in warnings[0]
    assert wrong_rows(shared, "hers.note.body", "v2", "hers.note") == []
    assert missing_steps(shared, "v2") == [("collection", DOC)]


def test_whoever_owns_nothing_of_it_is_refused(shared: psycopg.Connection[Any], connect: Connect) -> None:
    shared.execute("SELECT grant_operate('bob')")
    with refused("42501"):
        connect("bob").execute(PREPARE)
    with refused("42501"):
        connect("alice").execute(PREPARE)
    assert fetch_value(shared, "SELECT count(*) FROM pgml_tune.collection") == 2


def test_a_superuser_prepares_what_belongs_to_others(shared: psycopg.Connection[Any]) -> None:
    shared.execute(PREPARE)
    assert wrong_rows(shared, "hers.note.body", "v2", "hers.note") == []
    sql = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %s::regclass"
    assert fetch_value(shared, sql, (side_table(shared, "hers.note.body", "v2"),)) == "olga"


def test_nobody_takes_the_place_of_anothers_vectors(shared: psycopg.Connection[Any], connect: Connect) -> None:
    olga = connect("olga")
    row = """
        INSERT INTO pgml_tune.collection (name, source, source_column, model_version_id, model_reference, dimensions,
            index_method, storage, chunk_overlap, batch_size, is_twin)
        SELECT %s, 'hers.note', 'body', model_version_id, 't@v2', 16, 'none', 'vector', 0, 100, true
        FROM pgml_tune.model_version WHERE version = 'v2'
    """
    with refused("42501"):
        olga.execute(row, (DOC,))
    # What a superuser adds by hand is not taken for vectors of the table, either.
    shared.execute("SET ROLE postgres")
    shared.execute(row, (DOC,))
    assert missing_steps(shared, "v2") == [("collection", "hers.note.body"), ("collection", DOC)]
    for column in ("is_ready", "is_filled", "embeddings", "name", "is_twin"):
        with refused("42501"):
            olga.execute(f"UPDATE pgml_tune.collection SET {column} = {column}")
    with refused("42501"):
        olga.execute("""UPDATE pgml_tune.collection SET validation = '{"passed": true}'""")


KINDS = {
    "chunks": ("CREATE TABLE doc (id integer PRIMARY KEY, body text)", '{"chunk_tokens": 12, "chunk_overlap": 4}'),
    "halfvec": ("CREATE TABLE doc (id integer PRIMARY KEY, body text)", '{"storage": "halfvec", "index": "hnsw"}'),
    "graph": ("CREATE TABLE doc (id integer PRIMARY KEY, body text)", '{"index": "hnsw"}'),
    "unlogged": ("CREATE UNLOGGED TABLE doc (id integer PRIMARY KEY, body text)", "{}"),
    "two_keys": ("CREATE TABLE doc (id integer, place text DEFAULT 'x', body text, PRIMARY KEY (id, place))", "{}"),
    "partitions": (
        "CREATE TABLE doc (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id);"
        " CREATE TABLE doc1 PARTITION OF doc FOR VALUES FROM (0) TO (100); CREATE TABLE doc2 PARTITION OF doc DEFAULT",
        "{}",
    ),
    "row_security": (
        "CREATE TABLE doc (id integer PRIMARY KEY, body text); ALTER TABLE doc ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY even ON doc TO alice USING (id % 2 = 0); GRANT SELECT ON doc TO alice",
        "{}",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_collection_can_be_prepared(
    db: psycopg.Connection[Any], server_home: Path, connect: Connect, kind: str
) -> None:
    register_spaces(db, Installation(server_home))
    table, options = KINDS[kind]
    db.execute(table)
    db.execute("INSERT INTO doc (id, body) SELECT g, repeat('word ', g % 40) || g FROM generate_series(1, 90) AS g")
    db.execute("CALL auto_embed('doc', 'body', 't', options => %s)", (options,))
    db.execute(PREPARE)
    db.execute("UPDATE doc SET body = 'changed ' || id WHERE id % 10 = 0")
    db.execute("DELETE FROM doc WHERE id = 77")
    assert validation(db)["passed"] is True
    assert missing_steps(db, "v2") == []
    counted = "SELECT rows, embedded, stale, index_state FROM pgml_tune.embedding_collections ORDER BY version"
    first, second = db.execute(counted).fetchall()
    assert first == second == (89, 89, 0, "hnsw" if "hnsw" in options else "none")
    sizes = [fetch_value(db, f"SELECT count(*) FROM {side_table(db, DOC, version)}") for version in ("v1", "v2")]
    assert sizes[0] == sizes[1]
    if kind != "chunks":
        assert wrong_rows(db, DOC, "v2", keys=("id", "place") if kind == "two_keys" else ("id",)) == []
    if kind == "row_security":
        db.execute("SELECT rollout_model('t', 'v2')")
        keys = [row["id"] for row in found(connect("alice"), "text", k=100)]
        assert keys
        assert all(key % 2 == 0 for key in keys)


def test_a_partition_attached_meanwhile_is_not_forgotten(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE TABLE part (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    doc.execute("CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10)")
    doc.execute("INSERT INTO part VALUES (1, 'one')")
    doc.execute("CALL auto_embed('part', 'body', 't')")
    doc.execute(PREPARE)
    doc.execute("CREATE TABLE part2 (id integer PRIMARY KEY, body text); INSERT INTO part2 VALUES (20, 'twenty')")
    doc.execute("ALTER TABLE part ATTACH PARTITION part2 FOR VALUES FROM (10) TO (30)")
    doc.execute("CALL maintain()")
    assert wrong_rows(doc, "public.part.body", "v2", "part") == []
    assert missing_steps(doc, "v2") == []


def test_chunks_longer_than_the_version_reads_are_refused(db: psycopg.Connection[Any], server_home: Path) -> None:
    register_spaces(db, Installation(server_home))
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("SELECT register_model('minilm', %s, 'embedding', 'short')", (Installation(server_home).build_tiny(),))
    db.execute("""CALL auto_embed('doc', 'body', 'minilm@v1', options => '{"chunk_tokens": 100}')""")
    with refused("54000"):
        db.execute("CALL prepare_rollout('minilm', 'short')")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.collection") == 1


def test_a_long_transaction_holds_nobody_up(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    long, worker = connect(), connect()
    long.execute("BEGIN")
    long.execute("UPDATE doc SET body = 'long' WHERE id = 1")
    heard = notices_of(worker)
    running = background.submit(worker.execute, PREPARE)
    wait_until(lambda: any("in use" in message for _, message in heard))
    doc.execute("SET statement_timeout = '3s'")
    for number in range(5):
        doc.execute("UPDATE doc SET body = 'short' WHERE id = %s", (100 + number,))
    long.execute("COMMIT")
    running.result()
    doc.execute("RESET statement_timeout")
    assert wrong_rows(doc, DOC, "v2") == []


def test_two_calls_at_once_do_no_harm(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    calls = [background.submit(connect().execute, PREPARE) for _ in range(3)]
    for call in calls:
        failure = call.exception()
        assert failure is None or getattr(failure, "sqlstate", "") in ("55P03", "55000", "40P01"), failure
    doc.execute(PREPARE)
    assert wrong_rows(doc, DOC, "v2") == []
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.collection") == 2


def test_writers_do_not_wait_while_the_graph_is_made(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    worker = connect()
    # The graph is made in an instant here, so it is held up.
    is_worker = f"pg_backend_pid() = {worker.info.backend_pid}"
    doc.execute(f"""
        CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN IF {is_worker} THEN PERFORM pg_advisory_xact_lock(4711); END IF; END $$;
        CREATE EVENT TRIGGER gate ON ddl_command_end WHEN tag IN ('CREATE INDEX') EXECUTE FUNCTION gate();
    """)
    doc.execute("UPDATE pgml_tune.collection SET index_method = 'hnsw'")
    doc.execute("SELECT pg_advisory_lock(4711)")
    running = background.submit(worker.execute, PREPARE)
    waiting = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    wait_until(lambda: fetch_value(doc, waiting))
    doc.execute("SET lock_timeout = '2s'")
    doc.execute("UPDATE doc SET body = body || ' changed' WHERE id < 30")
    doc.execute("UPDATE doc SET id = 3000 WHERE id = 31")
    doc.execute("UPDATE doc SET body = NULL WHERE id = 32")
    doc.execute("DELETE FROM doc WHERE id = 33")
    doc.execute("INSERT INTO doc VALUES (4000, 'new')")
    doc.execute("RESET lock_timeout")
    doc.execute("SELECT pg_advisory_unlock(4711)")
    running.result()
    doc.execute("UPDATE doc SET body = body || ' once more' WHERE id < 20")
    assert wrong_rows(doc, DOC, "v1") == wrong_rows(doc, DOC, "v2") == []
    assert validation(doc)["passed"] is True


def test_a_call_ended_while_the_graph_is_made_loses_nothing(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE query_canceled; END $$;
        CREATE EVENT TRIGGER fail ON ddl_command_end WHEN tag IN ('CREATE INDEX') EXECUTE FUNCTION fail();
    """)
    doc.execute("UPDATE pgml_tune.collection SET index_method = 'hnsw'")
    with refused("57014"):
        doc.execute(PREPARE)
    doc.execute("DROP EVENT TRIGGER fail")
    doc.execute("UPDATE doc SET body = body || ' changed' WHERE id < 30; DELETE FROM doc WHERE id = 33")
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    doc.execute(PREPARE)
    doc.execute("UPDATE doc SET body = body || ' once more' WHERE id < 20")
    assert wrong_rows(doc, DOC, "v1") == wrong_rows(doc, DOC, "v2") == []
    assert missing_steps(doc, "v2") == []


def test_what_was_prepared_can_be_given_up(doc: psycopg.Connection[Any]) -> None:
    drop = """CALL prepare_rollout('t', 'v2', '{"drop": true}')"""
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 't')")
    before = fetch_value(doc, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'doc'::regclass")
    doc.execute(PREPARE)
    doc.execute("SELECT rollout_model('t', 'v2', 20)")
    doc.execute(drop)
    assert missing_steps(doc, "v2") == [("column", "public.doc.embedding")], "searches may go to the vectors"
    doc.execute("SELECT rollback_model('t')")
    doc.execute(drop)
    doc.execute(drop)
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.collection") == 1
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_column") == 1
    assert fetch_value(doc, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'doc'::regclass") == before
    doc.execute("UPDATE doc SET body = body || '!'")
    assert wrong_rows(doc, DOC, "v1") == []
    doc.execute(PREPARE)
    assert wrong_rows(doc, DOC, "v2") == []


def test_vectors_that_were_lost_are_not_taken_for_prepared(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute(f"ALTER TABLE {side_table(doc, DOC, 'v2')} ADD COLUMN extra text DEFAULT 'x'")
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    with refused("55000"):
        doc.execute(PREPARE)
    doc.execute(f"DROP TABLE {side_table(doc, DOC, 'v2')} CASCADE")
    assert missing_steps(doc, "v2") == [("collection", DOC)]
    doc.execute("""CALL prepare_rollout('t', 'v2', '{"drop": true}')""")
    doc.execute(PREPARE)
    assert wrong_rows(doc, DOC, "v2") == []


def test_dropping_the_collection_ends_both_spaces(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("SELECT drop_auto_embed(%s)", (DOC,))
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.collection") == 0
    assert fetch_value(doc, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'doc'::regclass") == 0
    assert fetch_value(doc, "SELECT count(*) FROM pg_class WHERE relname ~ '^embedding_[0-9]+_'") == 0


@pytest.mark.usefixtures("doc")
def test_a_search_path_of_the_caller_changes_nothing(connect: Connect) -> None:
    session = connect()
    session.execute("""
        CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.equals(text, text) RETURNS boolean LANGUAGE plpgsql
            AS $$ BEGIN RAISE division_by_zero; END $$;
        CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equals);
        CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE plpgsql
            AS $$ BEGIN RAISE division_by_zero; END $$;
    """)
    session.execute("SET search_path = hostile, pg_catalog")
    session.execute("CALL public.prepare_rollout('t', 'v2')")
    session.execute("RESET search_path")
    assert wrong_rows(session, DOC, "v2") == []


