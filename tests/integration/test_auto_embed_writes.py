"""After every kind of write a collection holds the vectors of the final texts, for one call of the model."""

from typing import Any

import psycopg
import pytest
from collection_state import COLLECTION, assert_exact, collection_row, ended_prepared, model_does, model_work
from conditions import fetch_value
from conftest import Connect

COPIED, DIFFERENT = 10_000, 2_000  # rows and texts: a text that comes again costs next to nothing


@pytest.fixture
def doc(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on an embedded table of a few rows, one of them without a text."""
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text, note text)")
    db.execute(
        "INSERT INTO doc VALUES (1, 'a cat sleeps', 'n'), (2, 'a dog barks', 'n'), (3, 'shares fell on Monday', 'n'),"
        " (4, NULL, 'n')"
    )
    db.execute("CALL auto_embed('doc', 'body')")
    assert assert_exact(db)["rows"] == 3
    return db


def write(db: psycopg.Connection[Any], statement: str, calls: int, computed: int) -> None:
    """Runs a statement that must make the model do exactly this, and leave the collection exact."""
    with model_does(db, calls, computed):
        db.execute(statement)
    assert_exact(db)


def test_insert_calls_the_model_once(doc: psycopg.Connection[Any]) -> None:
    write(doc, "INSERT INTO doc VALUES (10, 'one row')", 1, 1)
    # An empty and a blank text are texts; NULL is none, and a text that comes twice is computed once.
    write(doc, r"INSERT INTO doc VALUES (11, 'twice'), (12, 'twice'), (13, NULL), (14, ''), (15, '  '), (16, E'\t\n')",
          1, 4)  # fmt: skip
    write(doc, "INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(100, 149) AS g", 1, 50)
    write(doc, "INSERT INTO doc VALUES (200, NULL)", 0, 0)
    write(doc, "INSERT INTO doc SELECT 201, 'nothing' WHERE false", 0, 0)
    doc.execute("CREATE VIEW window_on_doc AS SELECT id, body FROM doc")
    write(doc, "INSERT INTO window_on_doc VALUES (202, 'through a view')", 1, 1)
    doc.execute("PREPARE adding (bigint, text) AS INSERT INTO doc VALUES ($1, $2)")
    write(doc, "EXECUTE adding (203, 'prepared')", 1, 1)


def test_copy_of_10000_rows_calls_the_model_once(doc: psycopg.Connection[Any]) -> None:
    with model_does(doc, 1, DIFFERENT), doc.cursor().copy("COPY doc (id, body) FROM STDIN") as copy:
        for number in range(COPIED):
            copy.write_row((1000 + number, f"row {number % DIFFERENT}"))
    assert assert_exact(doc)["rows"] == 3 + COPIED


def test_update_computes_changed_texts_only(doc: psycopg.Connection[Any]) -> None:
    write(doc, "UPDATE doc SET body = body || ' again'", 1, 3)
    write(doc, "UPDATE doc SET body = CASE id WHEN 2 THEN 'a dog howls' ELSE body END, note = 'm'", 1, 1)
    write(doc, "UPDATE doc SET body = body, id = id", 0, 0)
    write(doc, "UPDATE doc SET note = 'another'", 0, 0)
    write(doc, "UPDATE doc SET body = 'nothing' WHERE false", 0, 0)


def test_update_to_null_and_back(doc: psycopg.Connection[Any]) -> None:
    write(doc, "UPDATE doc SET body = NULL WHERE id = 1", 0, 0)
    assert collection_row(doc)["embedded"] == 2
    write(doc, "UPDATE doc SET body = 'back from nothing' WHERE id IN (1, 4)", 1, 1)
    write(doc, "UPDATE doc SET body = '' WHERE id = 1", 1, 1)
    write(doc, "UPDATE doc SET body = '   ' WHERE id = 1", 1, 1)
    write(doc, "UPDATE doc SET body = NULL", 0, 0)
    assert collection_row(doc)["embedded"] == 0


def test_update_of_the_key_moves_vectors_without_the_model(doc: psycopg.Connection[Any]) -> None:
    write(doc, "UPDATE doc SET id = id + 100", 0, 0)
    write(doc, "UPDATE doc SET id = -id, note = 'm' WHERE id = 101", 0, 0)
    write(doc, "UPDATE doc SET id = id + 1000, body = body || ' and runs' WHERE id <= 102", 1, 2)
    write(doc, "UPDATE doc SET id = id + 5000, body = NULL WHERE id = 103", 0, 0)
    write(doc, "UPDATE doc SET id = id + 5000, body = 'no longer empty' WHERE body IS NULL AND id = 104", 1, 1)


def test_keys_and_texts_that_change_places(doc: psycopg.Connection[Any]) -> None:
    # Rows that lie in falling order take each other's keys in one statement.
    doc.execute("CREATE TABLE chain (id integer PRIMARY KEY, body text)")
    doc.execute("INSERT INTO chain VALUES (4, 'delta'), (3, NULL), (2, 'beta'), (1, 'alpha')")
    doc.execute("CALL auto_embed('chain', 'body')")
    with model_does(doc, 0):
        doc.execute("UPDATE chain SET id = id + 1")
    assert_exact(doc, "public.chain.body")
    with model_does(doc, 1, 1):
        doc.execute("UPDATE chain SET id = id + 1, body = CASE id WHEN 3 THEN 'another beta' ELSE body END")
    assert_exact(doc, "public.chain.body")
    before = model_work(doc)["computed"]
    doc.execute("UPDATE doc AS a SET body = b.body FROM doc AS b WHERE a.id + b.id = 3")
    assert_exact(doc)
    doc.execute("BEGIN")
    for old, new in ((1, 99), (2, 1), (99, 2)):
        doc.execute("UPDATE doc SET id = %s WHERE id = %s", (new, old))
    doc.execute("COMMIT")
    assert model_work(doc)["computed"] - before == 3  # of the check between
    assert_exact(doc)


def test_delete_and_truncate_remove_vectors(doc: psycopg.Connection[Any]) -> None:
    write(doc, "DELETE FROM doc WHERE id = 2", 0, 0)
    write(doc, "DELETE FROM doc WHERE id = 2", 0, 0)
    write(doc, "DELETE FROM doc", 0, 0)
    write(doc, "INSERT INTO doc VALUES (1, 'after the deluge')", 1, 1)
    write(doc, "TRUNCATE doc", 0, 0)
    assert collection_row(doc)["rows"] == 0
    write(doc, "INSERT INTO doc VALUES (1, 'after the second')", 1, 1)
    # A trigger puts rows back, before ours sees the truncation or after.
    doc.execute(
        "CREATE FUNCTION restock() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO doc VALUES (1, 'never empty'), (7, TG_NAME); RETURN NULL; END $$"
    )
    for name in ("a_restock", "zz_restock"):
        doc.execute(f"CREATE TRIGGER {name} AFTER TRUNCATE ON doc FOR EACH STATEMENT EXECUTE FUNCTION restock()")
        write(doc, "TRUNCATE doc", 1, 2)
        doc.execute(f"DROP TRIGGER {name} ON doc")
    doc.execute("BEGIN")
    doc.execute("TRUNCATE doc")
    doc.execute("INSERT INTO doc VALUES (1, 'truncated and filled in one go')")
    assert_exact(doc)
    doc.execute("ROLLBACK")
    assert assert_exact(doc)["rows"] == 2


def test_merge_calls_the_model_once_per_event(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE TABLE change (id bigint, body text)")
    doc.execute("INSERT INTO change VALUES (1, NULL), (2, 'a dog howls'), (3, 'shares fell on Monday'), (9, 'new')")
    write(
        doc,
        "MERGE INTO doc USING change AS c ON doc.id = c.id"
        " WHEN MATCHED AND c.body IS NULL THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET body = c.body"
        " WHEN NOT MATCHED THEN INSERT VALUES (c.id, c.body, 'merged')",
        2,
        2,
    )
    assert doc.execute("SELECT id FROM doc ORDER BY id").fetchall() == [(2,), (3,), (4,), (9,)]


def test_insert_on_conflict_calls_the_model_once_per_event(doc: psycopg.Connection[Any]) -> None:
    upsert = "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
    write(doc, f"INSERT INTO doc VALUES (1, 'a cat purrs'), (10, 'new one') {upsert}", 2, 2)
    write(doc, f"INSERT INTO doc VALUES (1, 'a cat purrs'), (10, 'new one') {upsert}", 0, 0)
    write(doc, "INSERT INTO doc VALUES (1, 'ignored'), (11, 'taken') ON CONFLICT DO NOTHING", 1, 1)
    write(doc, "INSERT INTO doc VALUES (1, 'ignored as well') ON CONFLICT DO NOTHING", 0, 0)
    write(doc, "INSERT INTO doc VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET id = 50, body = 'moved away'", 1, 1)


def test_writable_cte_leaves_the_final_texts(doc: psycopg.Connection[Any]) -> None:
    doc.execute(
        "WITH gone AS (DELETE FROM doc WHERE id <= 2 RETURNING id, body)"
        " INSERT INTO doc SELECT id + 100, body FROM gone"
    )
    assert_exact(doc)
    # A key that is deleted and inserted by one statement: whichever trigger fires last, the row is there.
    doc.execute(
        "WITH gone AS (DELETE FROM doc WHERE id > 100 RETURNING id, body)"
        " INSERT INTO doc SELECT id, body || ' again' FROM gone"
    )
    assert assert_exact(doc)["rows"] == 3
    write(
        doc,
        "WITH changed AS (UPDATE doc SET body = 'changed beside' WHERE id = 3),"
        " gone AS (DELETE FROM doc WHERE id = 101)"
        " INSERT INTO doc VALUES (30, 'inserted beside')",
        2,
        2,
    )


def test_foreign_key_actions_reach_the_vectors(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE topic (topic_id integer PRIMARY KEY, phrase text UNIQUE)")
    db.execute(
        "CREATE TABLE doc (topic_id integer REFERENCES topic ON UPDATE CASCADE ON DELETE CASCADE, n integer,"
        " body text DEFAULT 'phrase 3' REFERENCES topic (phrase) ON UPDATE CASCADE ON DELETE SET DEFAULT,"
        " PRIMARY KEY (topic_id, n))"
    )
    db.execute("INSERT INTO topic SELECT g, 'phrase ' || g FROM generate_series(1, 4) AS g")
    db.execute("CALL auto_embed('doc', 'body')")
    with model_does(db, 1, 3):
        db.execute(
            "INSERT INTO doc SELECT t, n, 'phrase ' || t FROM generate_series(1, 3) AS t, generate_series(1, 20) AS n"
        )
    with model_does(db, 0):
        db.execute("UPDATE topic SET topic_id = topic_id + 10")
    assert assert_exact(db, keys=("topic_id", "n"))["rows"] == 60
    with model_does(db, 1, 1):
        db.execute("UPDATE topic SET phrase = 'quite another phrase' WHERE topic_id = 11")
    assert_exact(db, keys=("topic_id", "n"))
    db.execute("DELETE FROM topic WHERE topic_id = 11")
    assert assert_exact(db, keys=("topic_id", "n"))["rows"] == 40
    db.execute("UPDATE doc SET body = 'phrase 2' WHERE topic_id = 13")
    db.execute("UPDATE doc SET topic_id = 14 WHERE topic_id = 12")
    db.execute("DELETE FROM topic WHERE topic_id = 12")
    assert fetch_value(db, "SELECT count(*) FROM doc WHERE body = 'phrase 3'") == 40
    assert_exact(db, keys=("topic_id", "n"))
    db.execute("TRUNCATE topic CASCADE")
    assert assert_exact(db, keys=("topic_id", "n"))["rows"] == 0


def test_triggers_of_the_user_have_their_say_first_and_last(doc: psycopg.Connection[Any]) -> None:
    doc.execute(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.body := upper(NEW.body); RETURN NEW; END $$"
    )
    doc.execute("CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION shout()")
    write(doc, "INSERT INTO doc VALUES (10, 'loud')", 1, 1)
    write(doc, "UPDATE doc SET note = 'm' WHERE id = 1", 1, 1)
    doc.execute("DROP TRIGGER shout ON doc")
    # A statement trigger rewrites what was just inserted, before ours sees the insert or after.
    doc.execute(
        "CREATE FUNCTION redo() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE doc SET body = lower(body) || ' ' || TG_NAME WHERE note = 'redo'; RETURN NULL; END $$"
    )
    for number, name in enumerate(("a_redo", "zz_redo"), 20):
        doc.execute(f"CREATE TRIGGER {name} AFTER INSERT ON doc FOR EACH STATEMENT EXECUTE FUNCTION redo()")
        doc.execute("INSERT INTO doc VALUES (%s, 'REWRITTEN', 'redo')", (number,))
        assert_exact(doc)
        doc.execute(f"DROP TRIGGER {name} ON doc")
    doc.execute(
        "CREATE FUNCTION purge() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM doc WHERE note = 'purge'; UPDATE doc SET id = id + 1000 WHERE note = 'move';"
        " RETURN NULL; END $$"
    )
    doc.execute("CREATE TRIGGER a_purge AFTER INSERT OR UPDATE OF body ON doc FOR EACH ROW EXECUTE FUNCTION purge()")
    doc.execute("INSERT INTO doc VALUES (30, 'purged at once', 'purge'), (31, 'moved at once', 'move')")
    doc.execute("UPDATE doc SET body = 'purged later', note = 'purge' WHERE id = 1")
    assert fetch_value(doc, "SELECT count(*) FROM doc WHERE id IN (1, 30, 31)") == 0
    assert_exact(doc)


def test_stored_generated_column_follows_its_source(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "CREATE TABLE doc (id bigint PRIMARY KEY, title varchar(40), rest text,"
        " body text GENERATED ALWAYS AS (title || ': ' || rest) STORED)"
    )
    db.execute("INSERT INTO doc VALUES (1, 'cats', 'they purr'), (2, 'dogs', 'they bark'), (3, NULL, 'nothing')")
    db.execute("CALL auto_embed('doc', 'body')")
    write(db, "UPDATE doc SET title = 'tigers' WHERE id = 1", 1, 1)
    write(db, "UPDATE doc SET title = 'nobody' WHERE id = 3", 1, 1)
    write(db, "UPDATE doc SET rest = NULL WHERE id = 3", 0, 0)


def test_rolled_back_savepoint_takes_its_vectors_along(doc: psycopg.Connection[Any]) -> None:
    doc.execute("BEGIN")
    doc.execute("INSERT INTO doc VALUES (10, 'kept')")
    doc.execute("SAVEPOINT s")
    doc.execute("UPDATE doc SET body = 'lost'")
    doc.execute("DELETE FROM doc WHERE id = 1")
    doc.execute("TRUNCATE doc")
    doc.execute("ROLLBACK TO s")
    doc.execute("UPDATE doc SET body = 'changed for good' WHERE id = 2")
    assert_exact(doc)
    doc.execute("COMMIT")
    doc.execute(
        "DO $$ BEGIN INSERT INTO doc VALUES (20, 'lost with its block'); RAISE 'x';"
        " EXCEPTION WHEN raise_exception THEN INSERT INTO doc VALUES (21, 'written by the handler'); END $$"
    )
    assert assert_exact(doc)["rows"] == 5
    doc.execute("BEGIN")
    doc.execute("UPDATE doc SET body = 'never'")
    doc.execute("ROLLBACK")
    assert_exact(doc)


def test_two_phase_commit_takes_vectors_along(doc: psycopg.Connection[Any]) -> None:
    writes = (
        "INSERT INTO doc VALUES (10, 'prepared')",
        "UPDATE doc SET body = 'prepared too' WHERE id = 1",
        "DELETE FROM doc WHERE id = 2",
        "UPDATE doc SET id = 33 WHERE id = 3",
    )
    ended_prepared(doc, "ROLLBACK", *writes)
    assert assert_exact(doc)["rows"] == 3
    ended_prepared(doc, "COMMIT", *writes)
    assert assert_exact(doc)["rows"] == 3
    ended_prepared(doc, "COMMIT", "TRUNCATE doc")
    assert assert_exact(doc)["rows"] == 0


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_stricter_isolation_levels_write_vectors(doc: psycopg.Connection[Any], connect: Connect, level: str) -> None:
    other = connect()
    doc.execute(f"BEGIN ISOLATION LEVEL {level}")
    assert fetch_value(doc, "SELECT count(*) FROM doc") == 4
    other.execute("INSERT INTO doc VALUES (10, 'written beside')")
    doc.execute("INSERT INTO doc VALUES (11, 'written in an older snapshot')")
    doc.execute("UPDATE doc SET body = 'changed in it' WHERE id = 1")
    doc.execute("UPDATE doc SET id = 40 WHERE id = 3")
    doc.execute("COMMIT")
    assert assert_exact(doc)["rows"] == 5


def test_writes_that_wait_for_each_other_leave_the_last_text(doc: psycopg.Connection[Any], connect: Connect) -> None:
    others = [connect() for _ in range(2)]
    for other in others:
        other.execute("SET lock_timeout = '1ms'")
    doc.execute("BEGIN")
    doc.execute("UPDATE doc SET body = 'first' WHERE id = 1")
    # Rows that nobody else touches are free, in the table as in its vectors.
    others[0].execute("UPDATE doc SET body = 'elsewhere' WHERE id = 2")
    others[1].execute("INSERT INTO doc VALUES (12, 'in between')")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        others[0].execute("UPDATE doc SET body = 'second' WHERE id = 1")
    doc.execute("COMMIT")
    others[0].execute("UPDATE doc SET body = 'second' WHERE id = 1")
    assert assert_exact(doc)["rows"] == 4


def test_replica_role_fires_no_trigger_and_the_next_call_catches_up(doc: psycopg.Connection[Any]) -> None:
    doc.execute("SET session_replication_role = replica")
    with model_does(doc, 0):
        doc.execute("INSERT INTO doc VALUES (10, 'loaded as a replica')")
        doc.execute("UPDATE doc SET body = 'changed as a replica' WHERE id = 1")
        doc.execute("UPDATE doc SET id = 30 WHERE id = 3")
        doc.execute("DELETE FROM doc WHERE id = 2")
    doc.execute("RESET session_replication_role")
    row = collection_row(doc)
    assert (row["rows"], row["embedded"], row["stale"], row["is_complete"]) == (3, 0, 1, False)
    doc.execute("CALL auto_embed('doc', 'body')")
    assert_exact(doc)
    with model_does(doc, 0):
        doc.execute("CALL auto_embed('doc', 'body', collection => %s)", (COLLECTION,))
    assert_exact(doc)
