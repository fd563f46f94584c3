"""Sessions that write beside each other, beside a fill and beside ALTER TABLE, and sessions with odd settings."""

import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from collection_state import assert_exact, model_does
from conditions import fetch_value, refused
from conftest import Connect

ROWS = 400
WRITES = 50  # transactions of each session
OF_THE_TABLE = {"23505", "40001", "40P01"}  # two sessions want one key, or each other's rows
SETTINGS = (
    "search_path = ''",
    "search_path = evil, pg_catalog",
    "standard_conforming_strings = off",
    "bytea_output = escape",
    "datestyle = 'German, DMY'",
    "intervalstyle = sql_standard",
    "extra_float_digits = 0",
    "work_mem = '64kB'",
    "jit = on",
    "jit_above_cost = 0",
    "enable_hashjoin = off",
    "enable_nestloop = off",
    "enable_seqscan = off",
    "enable_indexscan = off",
    "plan_cache_mode = force_generic_plan",
    "max_parallel_workers_per_gather = 4",
    "force_parallel_mode = on",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "row_security = off",
    "check_function_bodies = off",
    "client_encoding = LATIN1",
    "default_text_search_config = 'german'",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "transform_null_equals = on",
    "default_tablespace = ''",
    "default_table_access_method = heap",
    "temp_buffers = 100",
    "pgml_tune.cache = 'session'",
    "hnsw.ef_search = 1",
    "plpgsql.variable_conflict = use_variable",
    "plpgsql.extra_errors = 'all'",
)


@pytest.fixture
def doc(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on a table with rows."""
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
    db.execute(f"INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, {ROWS}) AS g")
    return db


class Writer(threading.Thread):
    """Runs statements made at random, until it is through; the errors of the table itself are no failures."""

    def __init__(self, session: psycopg.Connection[Any], number: int, make: Callable[[random.Random], str]) -> None:
        super().__init__()
        self.session, self.make = session, make
        self.choose = random.Random(number)
        self.failures: list[psycopg.Error] = []
        session.execute("SET deadlock_timeout = '50ms'")
        session.execute("SELECT embed('the model is loaded')")

    def run(self) -> None:
        for _ in range(WRITES):
            try:
                with self.session.transaction():
                    for _ in range(self.choose.randint(1, 2)):
                        self.session.execute(self.make(self.choose))
            except psycopg.Error as error:
                if error.sqlstate not in OF_THE_TABLE:
                    self.failures.append(error)


def one_row(choose: random.Random) -> str:
    """A write of one row; the sessions take the rows in turns."""
    key, text = choose.randint(1, ROWS), f"text {choose.randint(1, 1000)} of a writer"
    return choose.choice(
        [
            f"UPDATE doc SET body = '{text}' WHERE id = {key}",
            f"UPDATE doc SET body = NULL WHERE id = {key}",
            f"UPDATE doc SET id = id + {choose.choice([1000, -1000])} WHERE id = {key}",
            f"DELETE FROM doc WHERE id = {key}",
            f"INSERT INTO doc VALUES ({key}, '{text}') ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            f"INSERT INTO doc VALUES ({choose.randint(10_000, 1_000_000)}, '{text}')",
        ]
    )


def rows_of_others(choose: random.Random) -> str:
    """A write of several rows, which meets those of the other sessions."""
    first = choose.randint(1, 40)
    rows, text = f"BETWEEN {first} AND {first + choose.randint(0, 8)}", f"text {choose.randint(1, 30)}"
    series = f"generate_series({first}, {first + 6}) AS g"
    return choose.choice(
        [
            f"UPDATE doc SET body = '{text}' WHERE id {rows}",
            f"UPDATE doc SET body = NULL WHERE id {rows}",
            f"UPDATE doc SET id = id + {choose.choice([50, -50, 1, -1])} WHERE id {rows}",
            f"DELETE FROM doc WHERE id {rows}",
            f"INSERT INTO doc SELECT g, '{text}' FROM {series} ON CONFLICT DO NOTHING",
            f"INSERT INTO doc SELECT g, '{text}' FROM {series} ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            f"MERGE INTO doc USING {series} ON doc.id = g WHEN MATCHED AND g % 2 = 0 THEN DELETE"
            f" WHEN MATCHED THEN UPDATE SET body = 'merged {text}' WHEN NOT MATCHED THEN INSERT VALUES (g, '{text}')",
            f"WITH gone AS (DELETE FROM doc WHERE id {rows} RETURNING *)"
            " INSERT INTO doc SELECT id, body || '!' FROM gone",
        ]
    )


def test_fill_beside_writers_ends_exact(doc: psycopg.Connection[Any], connect: Connect) -> None:
    writers = [Writer(connect(), number, one_row) for number in range(3)]
    for writer in writers:
        writer.start()
    doc.execute("CALL auto_embed('doc', 'body', options => '{\"batch_size\": 20, \"index\": \"hnsw\"}')")
    for writer in writers:
        writer.join()
        assert writer.failures == []
    assert_exact(doc)
    with model_does(doc, 0):
        doc.execute("CALL auto_embed('doc', 'body')")


def test_transactions_that_meet_on_the_same_rows_end_exact(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("DELETE FROM doc WHERE id > 50")
    doc.execute("CALL auto_embed('doc', 'body')")
    writers = []
    for number, level in enumerate(("read committed", "read committed", "repeatable read", "serializable")):
        writers.append(Writer(connect(), number, rows_of_others))
        writers[-1].session.execute("SELECT set_config('default_transaction_isolation', %s, false)", (level,))
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.failures == []
    assert_exact(doc)


def test_truncate_takes_along_what_its_snapshot_does_not_see(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("CALL auto_embed('doc', 'body')")
    doc.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert fetch_value(doc, "SELECT count(*) FROM doc") == ROWS
    connect().execute("INSERT INTO doc VALUES (10000, 'written meanwhile')")
    doc.execute("TRUNCATE doc")
    doc.execute("INSERT INTO doc VALUES (1, 'the only one')")
    doc.execute("COMMIT")
    assert assert_exact(doc)["rows"] == 1


def test_one_fill_at_a_time(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("BEGIN")
    doc.execute("CALL auto_embed('doc', 'body')")
    other = connect()
    other.execute("SET lock_timeout = '100ms'")
    with refused("55P03", "42710"):
        other.execute("CALL auto_embed('doc', 'body')")
    doc.execute("COMMIT")
    other.execute("CALL auto_embed('doc', 'body')")
    assert_exact(doc)


def test_other_sessions_follow_what_alter_table_did(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("CALL auto_embed('doc', 'body', collection => 'mine')")
    other = connect()
    name, key, column = "doc", "id", "body"
    for number, change in enumerate(
        (
            ("RENAME TO paper", "paper", key, column),
            ("RENAME id TO paper_id", "paper", "paper_id", column),
            ("RENAME body TO content", "paper", "paper_id", "content"),
            ("ADD COLUMN body text DEFAULT 'not this one'", "paper", "paper_id", "content"),
            ("ADD COLUMN id bigint DEFAULT 7", "paper", "paper_id", "content"),
        )
    ):
        # Plans of both sessions are old when the next change comes.
        for session in (other, doc):
            session.execute(f"UPDATE {name} SET {column} = {column} || ' {number}' WHERE {key} = {number + 1}")
        doc.execute(f"ALTER TABLE {name} {change[0]}")
        _, name, key, column = change
    other.execute(f"UPDATE {name} SET {column} = 'the last' WHERE {key} = 1")
    other.execute(f"UPDATE {name} SET {key} = {key} + 1000 WHERE {key} = 2")
    other.execute(f"DELETE FROM {name} WHERE {key} = 3")
    assert assert_exact(doc, "mine", (key,))["rows"] == ROWS - 1
    doc.execute("SELECT drop_auto_embed('mine')")
    other.execute(f"UPDATE {name} SET {column} = 'nobody embeds this'")


def test_statements_of_one_transaction_call_the_model_once_each(doc: psycopg.Connection[Any]) -> None:
    # The planner knows nothing yet of tables that have just grown from nothing.
    doc.execute("TRUNCATE doc")
    doc.execute("CALL auto_embed('doc', 'body')")
    doc.execute("BEGIN")
    for start, count in ((0, 300), (1000, 300), (2000, 150)):
        with model_does(doc, 1, min(count, 50)):
            doc.execute(
                "INSERT INTO doc SELECT %s + g, 'text ' || %s || g %% 50 FROM generate_series(1, %s) AS g",
                (start, start, count),
            )
    with model_does(doc, 1, 150):
        doc.execute("UPDATE doc SET body = body || ' again'")
    doc.execute("COMMIT")
    assert_exact(doc)


def test_settings_of_a_session_change_no_vector(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("DELETE FROM doc WHERE id > 5")
    doc.execute("UPDATE doc SET body = 'Ärger im Café: ' || body")
    doc.execute("CREATE SCHEMA evil")
    for function in ("sha256(bytea) RETURNS bytea", "convert_to(text, name) RETURNS bytea"):
        doc.execute(f"CREATE FUNCTION evil.{function} LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$")
    doc.execute("CALL auto_embed('doc', 'body', options => '{\"text_search\": \"english\"}')")
    session = connect()
    for number, setting in enumerate(SETTINGS, 10):
        session.execute("RESET ALL")
        try:
            session.execute(f"SET {setting}")
        except psycopg.errors.UndefinedObject:
            continue  # not in this version of PostgreSQL
        session.execute("INSERT INTO public.doc VALUES (%s, %s)", (number, f"geschrieben für {setting}"))
        session.execute("UPDATE public.doc SET body = body || ' é', id = id + 1000 WHERE id = %s", (number,))
        session.execute("DELETE FROM public.doc WHERE id = %s", (number + 999,))
    assert fetch_value(doc, "SELECT count(*) FROM doc") > 5
    assert_exact(doc)


def test_cancelled_statement_leaves_table_and_vectors_as_they_were(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL auto_embed('doc', 'body')")
    doc.execute("SET statement_timeout = '200ms'")
    with refused("57014"):
        doc.execute("UPDATE doc SET body = repeat(body || ' and so on', 40)")
    doc.execute("RESET statement_timeout")
    assert fetch_value(doc, "SELECT count(*) FROM doc WHERE body LIKE '%so on%'") == 0
    assert_exact(doc)
