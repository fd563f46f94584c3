"""embed_table() fills a vector column of any table, in batches that stay, beside others who use the table."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from psycopg.sql import SQL, Identifier

TOLERANCE = 1e-5  # of the cosine, fp32
GATE = 4711  # an advisory lock that a trigger waits for
ROWS = 240


@pytest.fixture
def doc(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on a table of texts, one of them empty and one missing."""
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, %s) AS g", (ROWS,))
    db.execute("UPDATE doc SET body = '' WHERE id = 7")
    db.execute("UPDATE doc SET body = NULL WHERE id = 8")
    return db


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def wrong_rows(
    db: psycopg.Connection[Any], table: str = "doc", text: str = "body", vector: str = "embedding"
) -> list[Any]:
    """Rows whose vector is missing, too much, or not that of their text."""
    statement = SQL(
        "SELECT t.ctid FROM {table} AS t"
        " LEFT JOIN (SELECT r.text, r.vector FROM (SELECT array_agg(DISTINCT {text}::text) AS texts FROM {table}) AS a,"
        "     unnest(a.texts, embed(a.texts, 'minilm@v1')) AS r (text, vector)) AS e ON e.text = t.{text}::text"
        " WHERE (t.{vector} IS NULL) <> (t.{text} IS NULL) OR NOT t.{vector}::vector <=> e.vector < {tolerance}"
    ).format(table=SQL(table), text=Identifier(text), vector=Identifier(vector), tolerance=SQL(str(TOLERANCE)))
    return db.execute(statement).fetchall()


def filled(db: psycopg.Connection[Any]) -> int:
    """How many rows have a vector, as others see it."""
    return int(fetch_value(db, "SELECT count(embedding) FROM doc"))


def hold_row(db: psycopg.Connection[Any], number: int, event: str = "UPDATE") -> None:
    """Makes every write of a row wait for the gate."""
    db.execute("CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS"
               f" 'BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NEW; END'")
    db.execute(f"CREATE TRIGGER gate BEFORE {event} ON doc FOR EACH ROW WHEN (NEW.id = {number})"
               " EXECUTE FUNCTION wait_at_gate()")


def is_waiting(observer: psycopg.Connection[Any], backend: int) -> bool:
    """Whether a session stands at the gate."""
    sql = "SELECT count(*) > 0 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
    return bool(fetch_value(observer, sql, (backend,)))


@pytest.fixture
def notices() -> Callable[[psycopg.Connection[Any]], list[str]]:
    """Collects what a session is told from now on."""

    def listen(session: psycopg.Connection[Any]) -> list[str]:
        heard: list[str] = []
        session.add_notice_handler(lambda diagnostic: heard.append(diagnostic.message_primary or ""))
        return heard

    return listen


def add_other_space(db: psycopg.Connection[Any]) -> None:
    """Registers the same files as a model of another embedding space."""
    db.execute("SELECT register_model('other', 'minilm@v1', 'embedding', 'v1')")
    db.execute("ALTER TABLE pgml_tune.model_version DISABLE TRIGGER USER")
    db.execute("UPDATE pgml_tune.model_version SET space_id = 'elsewhere' WHERE model_id ="
               " (SELECT model_id FROM pgml_tune.model WHERE name = 'other')")


def test_every_text_gets_its_vector_in_a_new_column(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert fetch_value(doc, "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                            " WHERE attrelid = 'doc'::regclass AND attname = 'embedding'") == "vector(384)"
    assert filled(doc) == ROWS - 1
    assert wrong_rows(doc) == []


def test_only_rows_without_a_vector_are_touched(doc: psycopg.Connection[Any], counts: Any) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    before = doc.execute("SELECT id, ctid, xmin FROM doc ORDER BY id").fetchall()
    computed = counts(doc)["texts"]
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 'minilm@v1')")
    assert doc.execute("SELECT id, ctid, xmin FROM doc ORDER BY id").fetchall() == before
    assert counts(doc)["texts"] == computed
    doc.execute("UPDATE doc SET embedding = NULL WHERE id IN (1, 100)")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert counts(doc)["texts"] == computed + 2
    assert wrong_rows(doc) == []


def test_vectors_do_not_fill_the_caches(doc: psycopg.Connection[Any], counts: Any) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.cache_entry_0") == 0
    doc.execute("SELECT embed('text number 5')")
    assert counts(doc)["session_hits"] == 0
    assert fetch_value(doc, "SELECT current_setting('pgml_tune.cache', true)") in (None, "")


def test_overwrite_makes_all_vectors_anew(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("UPDATE doc SET body = CASE WHEN id % 3 > 0 THEN 'changed ' || id END")
    doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 50, overwrite => true)")
    assert wrong_rows(doc) == []


@pytest.mark.parametrize("batch_size", [1, 7, 100_000])
def test_any_batch_size_fills_all(doc: psycopg.Connection[Any], batch_size: int) -> None:
    doc.execute("DELETE FROM doc WHERE id > 40")
    doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => %s)", (batch_size,))
    assert wrong_rows(doc) == []


TABLES = {
    "unlogged": "CREATE UNLOGGED TABLE t (body text)",
    "no_columns_but_text": "CREATE TABLE t (body text)",
    "varchar": "CREATE TABLE t (id int, body varchar(200))",
    "char": "CREATE TABLE t (id int, body char(60))",
    "name": "CREATE TABLE t (id int, body name)",
    "domain": "CREATE DOMAIN title AS text CHECK (value <> 'x'); CREATE TABLE t (body title)",
    "generated_text": "CREATE TABLE t (a text, body text GENERATED ALWAYS AS (upper(a)) STORED)",
    "identity": "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, body text)",
    "no_room_for_hot": "CREATE TABLE t (body text) WITH (fillfactor = 100)",
    "index": "CREATE TABLE t (body text, embedding vector(384));"
             " CREATE INDEX ON t USING hnsw (embedding vector_cosine_ops)",
    "untyped": "CREATE TABLE t (body text, embedding vector)",
    "half": "CREATE TABLE t (body text, embedding halfvec(384))",
    "vector_domain": "CREATE DOMAIN place AS vector(384); CREATE TABLE t (body text, embedding place)",
    "partitions": "CREATE TABLE t (id int, body text) PARTITION BY HASH (id);"
                  " CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY RANGE (id);"
                  " CREATE TABLE t00 PARTITION OF t0 DEFAULT;"
                  " CREATE TABLE t1 (body text, gone int, id int); ALTER TABLE t1 DROP COLUMN gone;"
                  " ALTER TABLE t ATTACH PARTITION t1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "empty_partitions": "CREATE TABLE t (id int, body text) PARTITION BY LIST (id);"
                        " CREATE TABLE td PARTITION OF t DEFAULT; CREATE TABLE t1 PARTITION OF t FOR VALUES IN (-1)",
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_any_kind_can_be_filled(db: psycopg.Connection[Any], table: str) -> None:
    db.execute(TABLES[table])
    column = "a" if table == "generated_text" else "body"
    keyed = "id" in TABLES[table].split("body")[0] and table not in ("domain", "identity")
    db.execute(f"INSERT INTO t ({'id, ' if keyed else ''}{column}) SELECT {'g, ' if keyed else ''}"
               "'row ' || g || repeat('.', g % 9) FROM generate_series(1, 60) AS g")
    db.execute("CALL embed_table('t', 'body', 'embedding')")
    tolerance = "1e-3" if table == "half" else "1e-5"
    wrong = f"SELECT body FROM t WHERE (embedding::vector <=> embed(body::text) < {tolerance}) IS NOT TRUE"
    assert db.execute(wrong).fetchall() == []
    assert fetch_value(db, "SELECT count(*) FROM t") == 60


def test_a_partition_can_be_filled_by_itself(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE t (id int, body text, embedding vector(384)) PARTITION BY LIST (id)")
    db.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)")
    db.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    db.execute("CALL embed_table('t2', 'body', 'embedding')")
    assert db.execute("SELECT id FROM t WHERE embedding IS NOT NULL").fetchall() == [(2,)]


def test_an_empty_table_gets_its_column(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE t (body text)")
    db.execute("CALL embed_table('t', 'body', 'embedding')")
    db.execute("CALL embed_table('t', 'body', 'embedding', overwrite => true)")
    assert fetch_value(db, "SELECT count(embedding) FROM t") == 0


HOSTILE = [
    'a"b', "a'b", "a b.c", "Ümlaut", "%I %s %1$s", "$1", "$$", "\\", "😀" * 15, "x" * 63, "select", "A",
    'x"; DROP TABLE victim; --', "x); DROP TABLE victim; --", "ctid ", "t", "l", "locked", "place", "body", "vector",
]  # fmt: skip


def test_names_are_never_sql(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE victim ()")
    for name in HOSTILE:
        vector = name + "2" if len(name.encode()) < 63 else "2"
        place = Identifier(name, name)
        db.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        db.execute(SQL("CREATE TABLE {} ({} text)").format(place, Identifier(name)))
        db.execute(SQL("INSERT INTO {} VALUES ('a text'), (NULL)").format(place))
        source = place.as_string(db)
        for overwrite in (False, True):
            call = "CALL embed_table(%s::text::regclass, %s, %s, overwrite => %s)"
            db.execute(call, (source, name, vector, overwrite))
        db.execute("SELECT track_column(%s::text::regclass, %s, 'minilm@v1')", (source, vector))
        assert db.execute(SQL("SELECT count({}) FROM {}").format(Identifier(vector), place)).fetchone() == (1,), name
    assert fetch_value(db, "SELECT to_regclass('victim') IS NOT NULL")


REFUSED = {
    "no_source": ("42P01", "nowhere", "body", "embedding"),
    "dropped": ("42P01", "999999", "body", "embedding"),
    "none": ("42P01", "-", "body", "embedding"),
    "null_source": ("22023", None, "body", "embedding"),
    "null_column": ("22023", "doc", None, "embedding"),
    "empty_column": ("22023", "doc", "", "embedding"),
    "null_target": ("22023", "doc", "body", None),
    "empty_target": ("22023", "doc", "body", ""),
    "no_column": ("42703", "doc", "nothing", "embedding"),
    "system_column": ("42703", "doc", "ctid", "embedding"),
    "system_target": ("22023", "doc", "body", "xmin"),
    "number": ("42804", "doc", "id", "embedding"),
    "json": ("42804", "odd", "json", "embedding"),
    "array": ("42804", "odd", "texts", "embedding"),
    "enum": ("42804", "odd", "mood", "embedding"),
    "bytes": ("42804", "odd", "bytes", "embedding"),
    "same_column": ("42804", "doc", "body", "body"),
    "other_type": ("42804", "odd", "body", "reals"),
    "other_dimensions": ("42804", "odd", "body", "short"),
    "generated": ("0A000", "odd", "body", "generated"),
    "view": ("42809", "seen", "body", "embedding"),
    "materialized": ("42809", "kept", "body", "embedding"),
    "index": ("42809", "doc_pkey", "body", "embedding"),
    "sequence": ("42809", "numbers", "body", "embedding"),
    "composite_type": ("42809", "pair", "body", "embedding"),
    "foreign": ("42809", "far", "body", "embedding"),
    "temporary": ("42809", "passing", "body", "embedding"),
    "catalog": ("42809", "pg_catalog.pg_description", "description", "embedding"),
    "ours": ("42809", "pgml_tune.model", "name", "embedding"),
    "toast": ("42809", "toast", "chunk_data", "embedding"),
    "partition": ("42809", "part", "body", "embedding"),  # a column is added to all partitions or to none
    "parent": ("0A000", "parent", "body", "embedding"),
}


def test_what_cannot_be_filled_is_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        CREATE TYPE mood AS ENUM ('glad'); CREATE TYPE pair AS (body text);
        CREATE TABLE odd (body text, json jsonb, texts text[], mood mood, bytes bytea, reals real[], short vector(3),
            generated vector(384) GENERATED ALWAYS AS (embed_pinned(body, 'minilm', 'v1')) STORED);
        CREATE VIEW seen AS SELECT body FROM doc; CREATE MATERIALIZED VIEW kept AS SELECT body FROM doc;
        CREATE SEQUENCE numbers; CREATE TEMPORARY TABLE passing (body text);
        CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER far_away FOREIGN DATA WRAPPER nothing;
        CREATE FOREIGN TABLE far (body text) SERVER far_away;
        CREATE TABLE whole (body text) PARTITION BY LIST (body); CREATE TABLE part PARTITION OF whole DEFAULT;
        CREATE TABLE parent (body text); CREATE TABLE child () INHERITS (parent);
    """)
    toast = fetch_value(doc, "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'doc'::regclass")
    for state, source, column, target in REFUSED.values():
        with refused(state):
            values = (toast if source == "toast" else source, column, target)
            doc.execute("CALL embed_table(%s::text::regclass, %s, %s)", values)
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_columns") == 0


def test_an_argument_without_meaning_is_refused(doc: psycopg.Connection[Any]) -> None:
    for arguments, state in [
        ("model => 'nobody'", "42704"),
        ("model => 'minilm@v9'", "42704"),
        ("model => ''", "22023"),
        ("model => 'a/b'", "22023"),
        ("batch_size => 0", "22023"),
        ("batch_size => -1", "22023"),
        ("batch_size => 100001", "22023"),
        ("batch_size => 2147483647", "22023"),
        ("overwrite => NULL", "22023"),
    ]:
        with refused(state):
            doc.execute(f"CALL embed_table('doc', 'body', 'embedding', {arguments})")


def test_a_table_that_is_gone_is_refused(doc: psycopg.Connection[Any]) -> None:
    with refused("42P01"):
        doc.execute("DO $$ DECLARE r regclass := 'doc'; BEGIN DROP TABLE doc;"
                    " CALL embed_table(r, 'body', 'embedding'); END $$")


def test_a_text_beyond_the_limit_stops_the_run_after_what_was_done(doc: psycopg.Connection[Any]) -> None:
    doc.execute("UPDATE doc SET body = repeat('x', 2000000) WHERE id = 200")
    with refused("54000") as failure:
        doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 20)")
    assert fetch_value(doc, "SELECT ctid::text FROM doc WHERE id = 200") in (failure.value.diag.message_detail or "")
    assert filled(doc) > 0
    doc.execute("UPDATE doc SET body = 'short' WHERE id = 200")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(doc) == []


def test_long_texts_are_taken_a_few_at_a_time(doc: psycopg.Connection[Any]) -> None:
    doc.execute("SELECT configure('max_input_bytes', '4194304')")
    doc.execute("UPDATE doc SET body = repeat('word ', 800000) WHERE id <= 20")
    doc.execute("DELETE FROM doc WHERE id > 30")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert filled(doc) == 30


def test_progress_is_told(doc: psycopg.Connection[Any], notices: Any) -> None:
    heard = notices(doc)
    doc.execute("UPDATE doc SET body = repeat('very long ', 400) WHERE id = 3")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert [line for line in heard if line.startswith("public.doc.embedding: 239 rows in ")]
    assert len([line for line in heard if line.startswith("public.doc.embedding: 1 texts were longer")]) == 1


def test_what_is_stored_stays_after_a_cancel_and_the_next_call_does_the_rest(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor, counts: Any
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    hold_row(doc, 200)
    holder, filler = connect(), connect()
    holder.execute("SELECT pg_advisory_lock(%s)", (GATE,))
    ending = background.submit(filler.execute, "CALL embed_table('doc', 'body', 'embedding', batch_size => 20)")
    wait_until(lambda: is_waiting(doc, filler.info.backend_pid))
    assert 0 < filled(doc) < ROWS - 1
    assert fetch_value(doc, "SELECT pg_cancel_backend(%s)", (filler.info.backend_pid,))
    with refused("57014"):
        ending.result()
    holder.execute("SELECT pg_advisory_unlock_all()")
    stayed = doc.execute("SELECT id, ctid FROM doc WHERE embedding IS NOT NULL ORDER BY id").fetchall()
    assert stayed
    computed = counts(filler)["texts"]
    filler.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert counts(filler)["texts"] - computed == ROWS - 1 - len(stayed)
    untouched = doc.execute("SELECT id, ctid FROM doc WHERE id = ANY (%s) ORDER BY id", ([row[0] for row in stayed],))
    assert untouched.fetchall() == stayed
    assert wrong_rows(doc) == []


def test_a_timeout_ends_the_run_and_keeps_what_is_stored(doc: psycopg.Connection[Any]) -> None:
    doc.execute("INSERT INTO doc SELECT g, repeat('many words ', 50) || g FROM generate_series(1000, 6000) AS g")
    doc.execute("SET statement_timeout = '1500'")
    with refused("57014"):
        doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 50)")
    doc.execute("RESET statement_timeout")
    assert filled(doc) > 0


def test_overwriting_that_was_ended_goes_on_without_being_asked_again(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("UPDATE doc SET body = 'changed ' || id")
    hold_row(doc, 200)
    holder, filler = connect(), connect()
    holder.execute("SELECT pg_advisory_lock(%s)", (GATE,))
    ending = background.submit(
        filler.execute, "CALL embed_table('doc', 'body', 'embedding', batch_size => 20, overwrite => true)"
    )
    wait_until(lambda: is_waiting(doc, filler.info.backend_pid))
    assert 0 < filled(doc) < ROWS - 1
    assert fetch_value(doc, "SELECT pg_cancel_backend(%s)", (filler.info.backend_pid,))
    with refused("57014"):
        ending.result()
    holder.execute("SELECT pg_advisory_unlock_all()")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(doc) == []


def test_a_row_that_changes_meanwhile_gets_the_vector_of_its_last_text(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    writer, filler = connect(), connect()
    with writer.transaction():
        writer.execute("UPDATE doc SET body = 'another text' WHERE id = 5")
        ending = background.submit(filler.execute, "CALL embed_table('doc', 'body', 'embedding')")
        wait_until(lambda: filled(doc) == ROWS - 2)  # all but the one that is locked
    ending.result()
    assert wrong_rows(doc) == []


def test_a_row_that_stays_locked_is_left_and_told(
    doc: psycopg.Connection[Any], connect: Connect, notices: Any
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    locker, filler = connect(), connect()
    heard = notices(filler)
    with locker.transaction():
        locker.execute("SELECT FROM doc WHERE id IN (5, 6) FOR UPDATE")
        filler.execute("CALL embed_table('doc', 'body', 'embedding')")
        assert filled(doc) == ROWS - 3
        assert [line for line in heard if ": 2 rows are without a vector" in line]
    filler.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(doc) == []


def change_rows(session: psycopg.Connection[Any], number: int, stop: Event) -> int:
    """Changes, adds and removes rows as an application would that leaves the vectors to embed_table()."""
    changes = 0
    while not stop.is_set():
        key = (changes * 7 + number * 31) % ROWS + 1
        session.execute("UPDATE doc SET body = body || %s, embedding = NULL WHERE id = %s", (f" {changes}", key))
        session.execute("INSERT INTO doc VALUES (%s, 'new')", (1_000_000 * (number + 1) + changes,))
        session.execute("DELETE FROM doc WHERE id = %s", (1_000_000 * (number + 1) + changes - 3,))
        changes += 1
        time.sleep(0.002)  # an application at work, not a wait
    return changes


def test_rows_written_during_the_run_never_keep_the_vector_of_an_old_text(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    stop = Event()
    writers = [background.submit(change_rows, connect(), number, stop) for number in range(2)]
    fillers = [
        background.submit(connect().execute, "CALL embed_table('doc', 'body', 'embedding', batch_size => 30)")
        for _ in range(2)
    ]
    for filler in fillers:
        filler.result()
    stop.set()
    assert all(writer.result() > 20 for writer in writers)
    assert not [
        row for row in doc.execute(
            "SELECT id FROM doc WHERE embedding IS NOT NULL AND NOT embedding <=> embed(body, 'minilm@v1') < 1e-5"
        )
    ]  # fmt: skip
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(doc) == []


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_any_isolation_level_will_do(doc: psycopg.Connection[Any], isolation: str) -> None:
    doc.execute(f"SET default_transaction_isolation = '{isolation}'")
    doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 50)")
    assert wrong_rows(doc) == []


def test_in_a_transaction_block_nothing_is_committed(
    doc: psycopg.Connection[Any], connect: Connect, notices: Any
) -> None:
    heard = notices(doc)
    with doc.transaction(force_rollback=True):
        doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 20)")
        assert wrong_rows(doc) == []
        assert fetch_value(doc, "SHOW search_path") == '"$user", public'
        assert not fetch_value(doc, "SELECT current_setting('pgml_tune.cache', true)")
    assert [line for line in heard if "transaction block" in line]
    assert fetch_value(doc, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'doc'::regclass AND attnum > 0") == 2
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_columns") == 0
    with doc.transaction():
        doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(connect()) == []


def test_a_procedure_that_commits_may_call_it(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("CREATE PROCEDURE nightly() LANGUAGE plpgsql AS"
                " $$ BEGIN CALL embed_table('doc', 'body', 'embedding'); RAISE 'later' USING ERRCODE = 'P0999'; END $$")
    with refused("P0999"):
        doc.execute("CALL nightly()")
    assert wrong_rows(connect()) == []


def test_a_function_that_calls_it_commits_nothing(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE FUNCTION nightly() RETURNS void LANGUAGE plpgsql AS"
                " $$ BEGIN CALL embed_table('doc', 'body', 'embedding'); END $$")
    with doc.transaction(force_rollback=True):
        doc.execute("SELECT nightly()")
        assert wrong_rows(doc) == []
    with refused("42703"):
        filled(doc)


def test_a_read_only_transaction_is_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("UPDATE doc SET embedding = NULL")
    doc.execute("SET default_transaction_read_only = on")
    for target in ("embedding", "new_column"):
        with refused("25006"):
            doc.execute("CALL embed_table('doc', 'body', %s)", (target,))


def test_triggers_and_policies_of_the_table_find_names_as_their_user_does(
    doc: psycopg.Connection[Any], connect: Connect
) -> None:
    doc.execute("""
        CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO olga;
        CREATE TABLE app.audit (id integer); GRANT INSERT ON app.audit TO olga;
        CREATE TABLE app.visible (id integer); INSERT INTO app.visible SELECT generate_series(1, 50);
        GRANT SELECT ON app.visible TO olga;
        CREATE FUNCTION app.remember() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END';
        CREATE FUNCTION app.may_see(wanted integer) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN RETURN EXISTS (SELECT FROM visible WHERE id = wanted); END';
        ALTER TABLE doc ADD COLUMN embedding vector(384);
        CREATE TRIGGER remember BEFORE UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION app.remember();
        ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
        CREATE POLICY visible ON doc USING (app.may_see(id));
        GRANT SELECT, UPDATE (embedding) ON doc TO olga;
    """)
    olga = connect("olga")
    olga.execute("SET search_path = app, public")
    olga.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert filled(doc) == fetch_value(doc, "SELECT count(*) FROM app.audit") == 49
    olga.execute("CALL embed_table('doc', 'body', 'embedding', overwrite => true)")
    assert filled(doc) == 49


def test_a_trigger_that_takes_the_vector_away_does_not_hold_the_run_up(
    doc: psycopg.Connection[Any], notices: Any
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    doc.execute("CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN NEW.embedding := NULL; RETURN NEW; END'")
    doc.execute("CREATE TRIGGER spoil BEFORE UPDATE ON doc FOR EACH ROW WHEN (NEW.id < 5) EXECUTE FUNCTION spoil()")
    heard = notices(doc)
    doc.execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 2)")
    assert filled(doc) == ROWS - 5
    assert [line for line in heard if "rows are without a vector" in line]


@pytest.mark.parametrize("path", ["", "mallory, pg_catalog", "pg_temp"])
def test_no_search_path_leads_it_astray(doc: psycopg.Connection[Any], path: str) -> None:
    doc.execute("""
        CREATE SCHEMA mallory;
        CREATE FUNCTION mallory.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN RAISE ''trapped'' USING ERRCODE = ''P0666''; END';
        CREATE FUNCTION mallory.trap(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN RAISE ''trapped'' USING ERRCODE = ''P0666''; END';
        CREATE FUNCTION mallory.trap(oid, oid) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN RAISE ''trapped'' USING ERRCODE = ''P0666''; END';
        CREATE OPERATOR mallory.= (FUNCTION = mallory.trap, LEFTARG = text, RIGHTARG = text);
        CREATE OPERATOR mallory.= (FUNCTION = mallory.trap, LEFTARG = bigint, RIGHTARG = bigint);
        CREATE OPERATOR mallory.= (FUNCTION = mallory.trap, LEFTARG = oid, RIGHTARG = oid);
        CREATE DOMAIN mallory.tid AS text CHECK (mallory.trap(value, ''));
        CREATE FUNCTION mallory.format(text, text, text) RETURNS text LANGUAGE sql AS 'SELECT ''trapped''';
    """)
    doc.execute("SELECT set_config('search_path', %s, false)", (path,))
    doc.execute("CALL public.embed_table('public.doc', 'body', 'embedding')")
    doc.execute("CALL public.embed_table('public.doc', 'body', 'embedding', overwrite => true)")
    assert fetch_value(doc, "SELECT pg_catalog.current_setting('search_path')") == path
    doc.execute("RESET search_path")
    assert wrong_rows(doc) == []


def test_who_may_not_write_the_column_may_not_fill_it(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("UPDATE doc SET embedding = NULL")
    olga = connect("olga")
    calls = ["CALL embed_table('doc', 'body', 'embedding')", "SELECT track_column('doc', 'embedding', 'minilm@v1')"]
    for rights in ("", "GRANT SELECT ON doc TO olga", "GRANT UPDATE (body) ON doc TO olga"):
        doc.execute(rights)
        for call in calls:
            with refused("42501"):
                olga.execute(call)
    with refused("42501"):
        olga.execute("CALL embed_table('doc', 'body', 'another')")  # only an owner adds columns
    with refused("42501"):
        olga.execute("INSERT INTO pgml_tune.tracked_column (source, target_column, model_version_id, filled_by)"
                     " VALUES ('doc', 'body', 1, 'user'), ('doc', 'embedding', 1, 'user')")
    doc.execute("GRANT UPDATE (embedding) ON doc TO olga")
    for call in calls:
        olga.execute(call)
    assert wrong_rows(doc) == []
    with refused("42501"):
        connect("alice").execute(calls[0])


def test_row_security_hides_rows_from_the_run(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    doc.execute("ALTER TABLE doc ENABLE ROW LEVEL SECURITY")
    doc.execute("CREATE POLICY odd ON doc USING (id % 2 = 1)")
    doc.execute("GRANT SELECT, UPDATE ON doc TO olga")
    connect("olga").execute("CALL embed_table('doc', 'body', 'embedding')")
    assert doc.execute("SELECT DISTINCT id % 2 FROM doc WHERE embedding IS NOT NULL").fetchall() == [(1,)]
    assert filled(doc) == ROWS // 2


@pytest.mark.parametrize("policy", [False, True])
def test_rights_on_a_partitioned_table_suffice(
    db: psycopg.Connection[Any], connect: Connect, policy: bool
) -> None:
    db.execute("CREATE TABLE doc (id int, body text, embedding vector(384)) PARTITION BY HASH (id)")
    for number in range(3):
        db.execute(f"CREATE TABLE d{number} PARTITION OF doc FOR VALUES WITH (MODULUS 3, REMAINDER {number})")
    db.execute("INSERT INTO doc SELECT g, 'text ' || g FROM generate_series(1, 60) AS g")
    db.execute("GRANT SELECT, UPDATE ON doc TO olga")
    if policy:
        db.execute("ALTER TABLE doc ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON doc USING (id <= 30)")
        db.execute("GRANT SELECT, UPDATE ON d0, d1, d2 TO olga")
    connect("olga").execute("CALL embed_table('doc', 'body', 'embedding', batch_size => 10)")
    assert filled(db) == (30 if policy else 60)
    connect("olga").execute("CALL embed_table('doc', 'body', 'embedding', overwrite => true)")
    assert filled(db) == (30 if policy else 60)


def tracked(db: psycopg.Connection[Any]) -> list[Any]:
    """What is recorded."""
    return db.execute("SELECT source::text, target_column, model, version, filled_by, created_by"
                      " FROM pgml_tune.tracked_columns ORDER BY source, target_column").fetchall()


def test_a_column_is_recorded_with_its_version(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert tracked(doc) == [("doc", "embedding", "minilm", "v1", "embed_table", "postgres")]
    doc.execute("SELECT track_column('doc', 'embedding', 'minilm@v1-int8')")
    assert tracked(doc) == [("doc", "embedding", "minilm", "v1-int8", "user", "postgres")]
    doc.execute("CALL embed_table('doc', 'body', 'second', 'minilm@v1-int8-block')")
    assert [row[1:4] for row in tracked(doc)] == [
        ("embedding", "minilm", "v1-int8"),
        ("second", "minilm", "v1-int8-block"),
    ]
    with refused("55000"):
        doc.execute("SELECT drop_model_version('minilm', 'v1-int8')")
    doc.execute("DROP TABLE doc")
    assert tracked(doc) == []


def test_what_cannot_be_recorded_is_refused(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384), ADD COLUMN short vector(3)")
    doc.execute("CREATE VIEW seen AS SELECT * FROM doc")
    for arguments, state in [
        (("doc", "embedding", None), "22023"),
        (("doc", None, "minilm"), "22023"),
        ((None, "embedding", "minilm"), "22023"),
        (("doc", "nothing", "minilm"), "42703"),
        (("doc", "ctid", "minilm"), "22023"),
        (("doc", "body", "minilm"), "42804"),
        (("doc", "short", "minilm"), "42804"),
        (("doc", "embedding", "nobody"), "42704"),
        (("seen", "embedding", "minilm"), "42809"),
        (("pg_catalog.pg_class", "relname", "minilm"), "42809"),
    ]:
        with refused(state):
            doc.execute("SELECT track_column(%s::text::regclass, %s, %s)", arguments)


def test_vectors_of_two_spaces_never_stand_in_one_column(doc: psycopg.Connection[Any]) -> None:
    add_other_space(doc)
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 'other@v1')")
    doc.execute("UPDATE doc SET embedding = NULL WHERE id > 100")
    with refused("55000"):
        doc.execute("CALL embed_table('doc', 'body', 'embedding', 'minilm@v1')")
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 'minilm@v1', overwrite => true)")
    assert wrong_rows(doc) == []
    doc.execute("UPDATE doc SET embedding = NULL")  # an empty column is free for any model
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 'other@v1')")


def test_vectors_of_unknown_origin_are_not_added_to(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    doc.execute("UPDATE doc SET embedding = embed(body) WHERE id < 20")
    with refused("55000"):
        doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("SELECT track_column('doc', 'embedding', 'minilm@v1')")
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    assert wrong_rows(doc) == []


def test_a_run_ends_when_the_column_is_given_to_another_model(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    add_other_space(doc)
    doc.execute("ALTER TABLE doc ADD COLUMN embedding vector(384)")
    hold_row(doc, 60)
    holder, filler, other = connect(), connect(), connect()
    holder.execute("SELECT pg_advisory_lock(%s)", (GATE,))
    ending = background.submit(
        filler.execute, "CALL embed_table('doc', 'body', 'embedding', 'other@v1', batch_size => 20)"
    )
    wait_until(lambda: is_waiting(doc, filler.info.backend_pid))
    taking = background.submit(
        other.execute, "CALL embed_table('doc', 'body', 'embedding', 'minilm@v1', overwrite => true)"
    )
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    wait_until(lambda: fetch_value(doc, blocked, (other.info.backend_pid,)))
    holder.execute("SELECT pg_advisory_unlock_all()")
    with refused("55000"):
        ending.result()
    taking.result()
    assert wrong_rows(doc) == []


def test_maintain_forgets_columns_that_are_gone(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CALL embed_table('doc', 'body', 'embedding')")
    doc.execute("CALL embed_table('doc', 'body', 'second')")
    doc.execute("ALTER TABLE doc DROP COLUMN second")
    doc.execute("CALL maintain()")
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_column") == 1
    doc.execute("DROP TABLE doc")
    doc.execute("CALL maintain()")
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_column") == 0
