"""prepare_rollout() fills a column beside each one that embed_table() filled, and a promotion swaps their names."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation
from psycopg.sql import SQL, Identifier
from spaces import missing_steps, notices_of, register_spaces

ROWS = 120
PREPARE = "CALL prepare_rollout('t', 'v2')"  # no collection is measured here
COLUMN = ("column", "public.doc.embedding")


@pytest.fixture
def spaces(db: psycopg.Connection[Any], server_home: Path) -> psycopg.Connection[Any]:
    """A session in a database where model t has versions in two spaces."""
    register_spaces(db, Installation(server_home))
    return db


@pytest.fixture
def doc(spaces: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session on a table that embed_table() has filled."""
    spaces.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    spaces.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, %s) AS g", (ROWS,))
    spaces.execute("UPDATE doc SET body = NULL WHERE id = 8")
    spaces.execute("CALL embed_table('doc', 'body', 'embedding', 't')")
    return spaces


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def wrong_rows(
    db: psycopg.Connection[Any], column: str, version: str, table: str = "doc", text: str = "body"
) -> list[Any]:
    """Rows that have a vector without a text, none with one, or another than that of their text."""
    statement = SQL(
        "SELECT ctid FROM {table} WHERE ({column} IS NULL) <> ({text} IS NULL)"
        " OR NOT {column}::vector <=> embed_pinned({text}::text, 't', {version}) < 1e-3"
    ).format(table=SQL(table), column=Identifier(column), text=Identifier(text), version=version)
    return db.execute(statement).fetchall()


def vector_columns(db: psycopg.Connection[Any], table: str = "doc") -> dict[str, str]:
    sql = """
        SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND format_type(atttypid, atttypmod) ~ 'vec'
    """
    return dict(db.execute(sql, (table,)).fetchall())


def swap(db: psycopg.Connection[Any], version: str) -> None:
    sql = """
        SELECT pgml_tune._swap_columns(v.model_id, v.model_version_id) FROM pgml_tune.model_version AS v
        JOIN pgml_tune.model AS m ON m.model_id = v.model_id WHERE m.name = 't' AND v.version = %s
    """
    db.execute(sql, (version,))


def test_a_second_column_is_filled_beside_the_first(doc: psycopg.Connection[Any]) -> None:
    assert missing_steps(doc, "v2") == [COLUMN]
    doc.execute(PREPARE)
    assert missing_steps(doc, "v2") == []
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}
    assert wrong_rows(doc, "embedding", "v1") == wrong_rows(doc, "embedding_v2", "v2") == []
    shown = "SELECT version, source_column, shadow_of, is_filled FROM pgml_tune.tracked_columns ORDER BY version"
    assert doc.execute(shown).fetchall() == [("v1", "body", None, True), ("v2", "body", "embedding", True)]


def test_a_promotion_swaps_the_names_and_a_rollback_swaps_them_back(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("SELECT rollout_model('t', 'v2')")
    assert vector_columns(doc) == {"embedding_v1": "vector(32)", "embedding": "vector(16)"}
    assert fetch_value(doc, "SELECT count(*) FROM doc WHERE embedding <=> embed(body, 't') < 1e-3") == ROWS - 1
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 't')")
    doc.execute("SELECT rollback_model('t')")
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}
    assert fetch_value(doc, "SELECT count(*) FROM doc WHERE embedding <=> embed(body, 't') < 1e-3") == ROWS - 1
    assert wrong_rows(doc, "embedding_v2", "v2") == []


def test_swapping_twice_changes_nothing_more(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    for _ in range(2):
        swap(doc, "v2")
        assert vector_columns(doc) == {"embedding_v1": "vector(32)", "embedding": "vector(16)"}


def test_what_is_not_filled_is_not_swapped(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("UPDATE pgml_tune.tracked_column SET is_filled = false WHERE shadow_of IS NOT NULL")
    swap(doc, "v2")
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}
    assert missing_steps(doc, "v2") == [COLUMN]


def test_the_column_that_waits_follows_every_write(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute("""
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN NEW.embedding := embed(NEW.body, 't@v1'); RETURN NEW; END $$;
        CREATE TRIGGER zz_fill BEFORE INSERT OR UPDATE OF body ON doc FOR EACH ROW EXECUTE FUNCTION fill();
        GRANT ALL ON doc TO alice;
    """)
    doc.execute(PREPARE)
    alice = connect("alice")
    alice.execute("UPDATE doc SET body = body || '!' WHERE id = 1")
    alice.execute("INSERT INTO doc VALUES (1000, 'new'), (1001, NULL)")
    alice.execute("INSERT INTO doc VALUES (4, 'other') ON CONFLICT (id) DO UPDATE SET body = excluded.body")
    alice.execute("UPDATE doc SET body = NULL WHERE id = 3")
    assert wrong_rows(doc, "embedding", "v1") == wrong_rows(doc, "embedding_v2", "v2") == []
    swap(doc, "v2")
    doc.execute("DROP TRIGGER zz_fill ON doc")
    doc.execute("UPDATE doc SET body = body || '?', embedding = embed(body || '?', 't@v2') WHERE id < 10")
    doc.execute("INSERT INTO doc VALUES (2000, 'newest', embed('newest', 't@v1'), embed('newest', 't@v2'))")
    assert wrong_rows(doc, "embedding", "v2") == wrong_rows(doc, "embedding_v1", "v1") == []


def test_a_row_without_a_vector_waits_for_both(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    doc.execute("INSERT INTO doc VALUES (1000, 'new')")
    assert doc.execute("SELECT embedding, embedding_v2 FROM doc WHERE id = 1000").fetchone() == (None, None)
    doc.execute("CALL embed_table('doc', 'body', 'embedding', 't')")
    assert wrong_rows(doc, "embedding_v2", "v2") == []
    doc.execute("UPDATE doc SET embedding = NULL WHERE id = 5")
    assert doc.execute("SELECT embedding_v2 FROM doc WHERE id = 5").fetchone() == (None,)


def test_a_prepared_column_is_not_dropped_by_chance(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    with refused("2BP01"):
        doc.execute("ALTER TABLE doc DROP COLUMN embedding_v2")
    doc.execute("ALTER TABLE doc DROP COLUMN embedding_v2 CASCADE")
    doc.execute("UPDATE doc SET body = body || '!', embedding = embed(body || '!', 't')")
    assert missing_steps(doc, "v2") == [COLUMN]
    doc.execute(PREPARE)
    assert wrong_rows(doc, "embedding_v2", "v2") == []
    assert fetch_value(doc, "SELECT count(*) FROM pg_proc WHERE proname ~ '^_shadow_[0-9]'") == 1


def test_renames_keep_nobody_from_writing(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    for old, new in (("body", "words"), ("embedding_v2", "vec"), ("embedding", "main")):
        doc.execute(f"ALTER TABLE doc RENAME {old} TO {new}")
    doc.execute("UPDATE doc SET words = words || '!', main = embed(words || '!', 't')")
    doc.execute("INSERT INTO doc (id, words, main) VALUES (1000, 'new', embed('new', 't'))")
    assert wrong_rows(doc, "vec", "v2", text="words") == []


def test_a_version_that_cannot_embed_keeps_nobody_from_writing(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    heard = notices_of(doc)
    doc.execute("ALTER FUNCTION embed_pinned(text, text, text, text) RENAME TO gone")
    doc.execute("INSERT INTO doc (id, body, embedding) VALUES (1000, 'new', embed('new', 't'))")
    doc.execute("UPDATE doc SET body = body || '!', embedding = embed(body || '!', 't') WHERE id = 5")
    doc.execute("ALTER FUNCTION gone RENAME TO embed_pinned")
    assert [severity for severity, _ in heard] == ["WARNING", "WARNING"]
    assert not any("new" in message for _, message in heard), "a text is nobody's business"
    assert missing_steps(doc, "v2") == [COLUMN]
    doc.execute(PREPARE)
    assert wrong_rows(doc, "embedding_v2", "v2") == []


def test_nothing_runs_as_the_owner_of_before(doc: psycopg.Connection[Any], connect: Connect) -> None:
    doc.execute(PREPARE)
    doc.execute("ALTER TABLE doc OWNER TO olga")
    olga = connect("olga")
    assert missing_steps(doc, "v2") == [COLUMN]
    olga.execute("INSERT INTO doc (id, body, embedding) VALUES (1000, 'new', embed('new', 't'))")
    assert doc.execute("SELECT embedding_v2 FROM doc WHERE id = 1000").fetchone() == (None,)
    olga.execute(PREPARE)
    assert missing_steps(doc, "v2") == []
    assert wrong_rows(doc, "embedding_v2_", "v2") == []


def test_what_would_fail_writers_is_a_step(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        DELETE FROM doc WHERE body IS NULL;
        ALTER TABLE doc ALTER embedding SET NOT NULL, ADD CONSTRAINT short CHECK (vector_dims(embedding) = 32);
        GRANT SELECT (id, embedding), UPDATE (embedding) ON doc TO bob;
        COMMENT ON COLUMN doc.embedding IS 'of the body';
    """)
    doc.execute(PREPARE)
    statements = "SELECT s.statement FROM pgml_tune.model_version AS v CROSS JOIN LATERAL" \
        " pgml_tune._missing_steps(v.model_id, v.model_version_id) AS s WHERE v.version = 'v2'"  # fmt: skip
    steps = {statement for (statement,) in doc.execute(statements).fetchall()}
    assert steps == {
        "ALTER TABLE public.doc ALTER embedding DROP NOT NULL",
        "ALTER TABLE public.doc DROP CONSTRAINT short",
    }
    with refused("55000"):
        doc.execute("""SELECT rollout_model('t', 'v2', options => '{"untracked": "accept"}')""")
    for step in steps:
        doc.execute(step)
    doc.execute("SELECT rollout_model('t', 'v2')")
    doc.execute("INSERT INTO doc VALUES (1000, 'new')")
    granted = "SELECT has_column_privilege('bob', 'doc', 'embedding', %s)"
    assert [fetch_value(doc, granted, (right,)) for right in ("SELECT", "UPDATE", "INSERT")] == [True, True, False]
    doc.execute("REVOKE SELECT (embedding) ON doc FROM bob")
    for move in ("SELECT 1", "SELECT rollback_model('t')"):
        doc.execute(move)
        readable = "SELECT attname FROM pg_attribute WHERE attrelid = 'doc'::regclass AND attnum > 0" \
            " AND NOT attisdropped AND has_column_privilege('bob', 'doc', attnum, 'SELECT')"  # fmt: skip
        assert doc.execute(readable).fetchall() == [("id",)]
    comment = "SELECT col_description('doc'::regclass, attnum) FROM pg_attribute" \
        " WHERE attrelid = 'doc'::regclass AND attname = 'embedding'"  # fmt: skip
    assert fetch_value(doc, comment) == "of the body"


def test_all_that_is_bound_to_the_column_is_told(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        CREATE FUNCTION near() RETURNS integer LANGUAGE sql STABLE
            BEGIN ATOMIC SELECT id FROM doc ORDER BY embedding <=> embed('a', 't') LIMIT 1; END;
        CREATE POLICY mine ON doc USING (embedding IS NOT NULL);
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER bound BEFORE UPDATE OF embedding ON doc FOR EACH ROW EXECUTE FUNCTION nothing();
        CREATE INDEX short ON doc ((vector_norm(embedding)));
        CREATE STATISTICS known (ndistinct) ON id, (vector_norm(embedding)) FROM doc;
        CREATE INDEX own ON doc USING hnsw (embedding vector_cosine_ops) WHERE embedding IS NOT NULL;
    """)
    doc.execute(PREPARE)
    assert missing_steps(doc, "v2") == [
        ("untracked", "function public.near()"), ("untracked", "index public.short"),
        ("untracked", "policy mine on public.doc"), ("untracked", "statistics object public.known"),
        ("untracked", "trigger bound on public.doc"),
    ]  # fmt: skip
    statements = "SELECT s.statement FROM pgml_tune.model_version AS v CROSS JOIN LATERAL" \
        " pgml_tune._missing_steps(v.model_id, v.model_version_id) AS s WHERE v.version = 'v2'"  # fmt: skip
    for (statement,) in doc.execute(statements).fetchall():
        doc.execute(statement)
    assert missing_steps(doc, "v2") == []


def test_a_session_that_has_used_a_trigger_goes_on_after_the_swap(
    doc: psycopg.Connection[Any], connect: Connect
) -> None:
    doc.execute("""
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN NEW.embedding := embed(NEW.body, 't'); RETURN NEW; END $$;
        CREATE TRIGGER fill BEFORE INSERT OR UPDATE OF body ON doc FOR EACH ROW EXECUTE FUNCTION fill();
    """)
    doc.execute(PREPARE)
    writer = connect()
    for number, move in enumerate(("SELECT 1", "SELECT rollout_model('t', 'v2')", "SELECT rollback_model('t')"), 1000):
        doc.execute(move)
        writer.execute("INSERT INTO doc VALUES (%s, 'new')", (number,))
        assert fetch_value(doc, "SELECT count(*) FROM doc WHERE embedding <=> embed(body, 't') < 1e-3") == number - 880


def test_its_indexes_are_made_alike(doc: psycopg.Connection[Any]) -> None:
    doc.execute("CREATE INDEX graph ON doc USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 32)")
    doc.execute("CREATE INDEX lists ON doc USING ivfflat (embedding vector_ip_ops) WITH (lists = 3) WHERE id < 100")
    doc.execute("CREATE INDEX plain ON doc (id) WHERE embedding IS NOT NULL")
    doc.execute(PREPARE)
    doc.execute(PREPARE)
    made = "SELECT indexdef FROM pg_indexes WHERE tablename = 'doc' AND indexdef ~ 'embedding_v2' ORDER BY 1"
    definitions = [row[0].split(" USING ")[1] for row in doc.execute(made).fetchall()]
    assert definitions == [
        "hnsw (embedding_v2 vector_cosine_ops) WITH (m='8', ef_construction='32')",
        "ivfflat (embedding_v2 vector_ip_ops) WITH (lists='3') WHERE (id < 100)",
    ]


TABLES = {
    "half": ("CREATE TABLE t (id int, body text, embedding halfvec(32))", "halfvec(16)"),
    "untyped": ("CREATE TABLE t (id int, body text, embedding vector)", "vector(16)"),
    "vector_domain": (
        "CREATE DOMAIN place AS vector(32); CREATE TABLE t (id int, body text, embedding place)", "vector(16)",
    ),
    "text_domain": (
        "CREATE DOMAIN title AS text CHECK (value <> 'x'); CREATE TABLE t (id int, body title)", "vector(16)",
    ),
    "varchar": ("CREATE TABLE t (id int, body varchar(90))", "vector(16)"),
    "unlogged": ("CREATE UNLOGGED TABLE t (id int, body text)", "vector(16)"),
    "partitions": (
        "CREATE TABLE t (id int, body text) PARTITION BY RANGE (id);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (20); CREATE TABLE t2 PARTITION OF t DEFAULT",
        "vector(16)",
    ),
    "row_security": (
        "CREATE TABLE t (id int, body text); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY even ON t USING (id % 2 = 0)",
        "vector(16)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_kind_can_be_prepared_and_swapped(spaces: psycopg.Connection[Any], kind: str) -> None:
    table, wanted = TABLES[kind]
    spaces.execute(table)
    spaces.execute("INSERT INTO t (id, body) SELECT g, 'row ' || g FROM generate_series(1, 40) AS g")
    spaces.execute("CALL embed_table('t', 'body', 'embedding', 't')")
    spaces.execute(PREPARE)
    assert wrong_rows(spaces, "embedding_v2", "v2", "t") == []
    spaces.execute("UPDATE t SET body = body || '!' WHERE id IN (5, 25)")
    swap(spaces, "v2")
    assert vector_columns(spaces, "t")["embedding"] == wanted
    assert wrong_rows(spaces, "embedding", "v2", "t") == []


def test_a_generated_text_is_followed(spaces: psycopg.Connection[Any]) -> None:
    spaces.execute("CREATE TABLE t (id int, raw text, body text GENERATED ALWAYS AS (lower(raw)) STORED)")
    spaces.execute("INSERT INTO t (id, raw) VALUES (1, 'One'), (2, 'Two')")
    spaces.execute("CALL embed_table('t', 'body', 'embedding', 't')")
    spaces.execute(PREPARE)
    assert wrong_rows(spaces, "embedding_v2", "v2", "t") == []
    spaces.execute("UPDATE t SET raw = 'Three' WHERE id = 1")
    spaces.execute(PREPARE)
    assert wrong_rows(spaces, "embedding_v2", "v2", "t") == []


NAMES = [
    'a"b', "x$body$; DROP TABLE victim; --", "$$", "Ümlaut", "%I %s", "x" * 63, "😀" * 15, "select",
    'x"; DROP TABLE victim; --',
]  # fmt: skip


def test_names_are_never_sql(spaces: psycopg.Connection[Any]) -> None:
    spaces.execute("CREATE TABLE victim ()")
    for name in NAMES:
        text = name[:-1] + "T" if len(name.encode()) > 60 else name + "T"
        spaces.execute(SQL("CREATE TABLE {} ({} text)").format(Identifier(name), Identifier(text)))
        spaces.execute(SQL("INSERT INTO {} VALUES ('a text')").format(Identifier(name)))
        source = Identifier(name).as_string(spaces)
        spaces.execute("CALL embed_table(%s::text::regclass, %s, %s, 't')", (source, text, name))
    spaces.execute(PREPARE)
    swap(spaces, "v2")
    swap(spaces, "v1")
    swap(spaces, "v2")
    for name in NAMES:
        text = name[:-1] + "T" if len(name.encode()) > 60 else name + "T"
        table = Identifier(name).as_string(spaces)
        assert wrong_rows(spaces, name, "v2", table, text) == [], name
        assert vector_columns(spaces, table)[name] == "vector(16)"
    assert fetch_value(spaces, "SELECT to_regclass('victim') IS NOT NULL")


def test_a_name_that_is_taken_gives_way(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN embedding_v1 integer, ADD COLUMN embedding_v2 integer")
    doc.execute(PREPARE)
    swap(doc, "v2")
    assert vector_columns(doc) == {"embedding_v1_": "vector(32)", "embedding": "vector(16)"}


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_what_was_done_stays_when_it_is_ended_and_the_next_call_goes_on(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor, end: str
) -> None:
    worker = connect()
    slowly = """CALL prepare_rollout('t', 'v2', '{"rows_per_second": 30, "batch_size": 10}')"""
    running = background.submit(worker.execute, slowly)
    counted = "SELECT count(embedding_v2) FROM doc"
    wait_until(lambda: "embedding_v2" in vector_columns(doc) and fetch_value(doc, counted))
    doc.execute(f"SELECT {end}(%s)", (worker.info.backend_pid,))
    with refused("57014", "57P01"):
        running.result()
    assert 0 < fetch_value(doc, counted) < ROWS - 1
    assert missing_steps(doc, "v2") == [COLUMN]
    doc.execute(PREPARE)
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}
    assert wrong_rows(doc, "embedding_v2", "v2") == []


def test_writers_go_on_meanwhile(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    is_over = Event()

    def write(session: psycopg.Connection[Any], seed: int) -> int:
        count = 0
        while not is_over.is_set():
            count += 1
            session.execute("UPDATE doc SET body = 'changed ' || id || random() WHERE id = %s", (count * seed % ROWS,))
        return count

    writers = [background.submit(write, connect(), seed) for seed in (1, 7)]
    try:
        with suppress(psycopg.errors.ObjectNotInPrerequisiteState):  # all rows are changed all the time
            doc.execute("""CALL prepare_rollout('t', 'v2', '{"rows_per_second": 400}')""")
    finally:
        is_over.set()
    assert all(writer.result() > 0 for writer in writers)
    doc.execute(PREPARE)
    assert wrong_rows(doc, "embedding_v2", "v2") == []
    assert missing_steps(doc, "v2") == []


def test_two_calls_at_once_add_one_column(
    doc: psycopg.Connection[Any], connect: Connect, background: ThreadPoolExecutor
) -> None:
    for call in [background.submit(connect().execute, PREPARE) for _ in range(3)]:
        failure = call.exception()
        assert failure is None or getattr(failure, "sqlstate", "") in ("55000", "55P03", "40P01"), failure
    doc.execute(PREPARE)
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}
    assert wrong_rows(doc, "embedding_v2", "v2") == []


def test_the_table_of_another_is_left_to_him_even_by_a_superuser(
    doc: psycopg.Connection[Any], connect: Connect
) -> None:
    doc.execute("CREATE SCHEMA hers AUTHORIZATION olga")
    olga = connect("olga")
    olga.execute("""
        CREATE TABLE hers.note (body text);
        INSERT INTO hers.note VALUES ('hers');
        CREATE FUNCTION hers.spring() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN NEW.body := current_user; RETURN NEW; END $$;
    """)
    olga.execute("CALL embed_table('hers.note', 'body', 'embedding', 't')")
    olga.execute("CREATE TRIGGER spring BEFORE UPDATE ON hers.note FOR EACH ROW EXECUTE FUNCTION hers.spring()")
    heard = notices_of(doc)
    doc.execute(PREPARE)
    warnings = [message for severity, message in heard if severity == "WARNING"]
    assert len(warnings) == 1
    assert "olga" in warnings[0]
    assert fetch_value(doc, "SELECT body FROM hers.note") == "hers"
    assert missing_steps(doc, "v2") == [("column", "hers.note.embedding")]
    heard = notices_of(olga)
    olga.execute("DROP TRIGGER spring ON hers.note")
    olga.execute(PREPARE)
    assert wrong_rows(olga, "embedding_v2", "v2", "hers.note") == []
    assert missing_steps(doc, "v2") == []
    doc.execute("DROP TABLE doc")
    with refused("42501"):
        doc.execute(PREPARE)


def test_only_the_owner_says_what_takes_over_the_name_of_a_column(
    doc: psycopg.Connection[Any], connect: Connect
) -> None:
    doc.execute("ALTER TABLE doc ADD COLUMN mine vector(16), ADD COLUMN secret text")
    doc.execute("GRANT UPDATE (mine, embedding), SELECT (id, body, mine, embedding) ON doc TO olga")
    olga = connect("olga")
    row = """
        INSERT INTO pgml_tune.tracked_column
            (source, target_column, model_version_id, filled_by, source_column, shadow_of)
        SELECT 'doc', 'mine', model_version_id, 'embed_table', %s, %s
        FROM pgml_tune.model_version WHERE version = 'v2'
    """
    with refused("42501"):
        olga.execute(row, ("body", "embedding"))
    with refused("42501"):
        olga.execute(row, ("secret", None))
    olga.execute(row, ("body", None))
    doc.execute(PREPARE)
    for change in ("is_filled = false", "model_version_id = model_version_id"):
        with refused("42501"):
            olga.execute(f"UPDATE pgml_tune.tracked_column SET {change} WHERE target_column = 'embedding_v2'")
    for change in ("shadow_of = 'embedding'", "target_column = 'id'", "source = 'doc'"):
        with refused("42501"):
            olga.execute(f"UPDATE pgml_tune.tracked_column SET {change}")
    with refused("42501"):
        olga.execute("SELECT pgml_tune._swap_columns(1, 1)")


def test_uses_that_nobody_recorded_are_told(doc: psycopg.Connection[Any]) -> None:
    doc.execute("""
        CREATE TABLE wild (a vector(32), b halfvec(32), c vector, d vector(16), e vector(32));
        CREATE VIEW shown AS SELECT id, embedding FROM doc;
        CREATE MATERIALIZED VIEW frozen AS SELECT embedding FROM doc;
    """)
    doc.execute("SELECT track_column('wild', 'e', 't@v1')")
    doc.execute(PREPARE)
    assert missing_steps(doc, "v2") == [
        ("untracked", "column public.frozen.embedding"), ("untracked", "column public.wild.a"),
        ("untracked", "column public.wild.b"), ("untracked", "column public.wild.c"),
        ("untracked", "column public.wild.e"), ("untracked", "view public.frozen"),
        ("untracked", "view public.shown"),
    ]  # fmt: skip
    with refused("55000"):
        doc.execute("SELECT rollout_model('t', 'v2')")
    doc.execute("DROP VIEW shown; DROP MATERIALIZED VIEW frozen")
    doc.execute("SELECT track_column('wild', 'a', 't@v1'), track_column('wild', 'c', 't@v2')")
    left = [thing for _, thing in missing_steps(doc, "v2")]
    assert left == ["column public.wild.a", "column public.wild.b", "column public.wild.e"]
    doc.execute("""SELECT rollout_model('t', 'v2', options => '{"untracked": "accept"}')""")
    assert vector_columns(doc) == {"embedding_v1": "vector(32)", "embedding": "vector(16)"}


def test_columns_of_collections_and_of_other_models_are_no_uses(spaces: psycopg.Connection[Any]) -> None:
    spaces.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    spaces.execute("CALL auto_embed('doc', 'body', 't')")
    spaces.execute("CREATE TABLE other (body text); CREATE TEMPORARY TABLE passing (e vector(32))")
    spaces.execute("CALL embed_table('other', 'body', 'embedding', 'minilm@v1')")
    assert missing_steps(spaces, "v2") == [("collection", "public.doc.body")]
    assert missing_steps(spaces, "v1") == []


def test_a_text_column_that_is_gone_is_told(doc: psycopg.Connection[Any]) -> None:
    doc.execute("ALTER TABLE doc RENAME body TO words")
    with refused("42703"):
        doc.execute(PREPARE)
    doc.execute("CALL embed_table('doc', 'words', 'embedding', 't')")
    doc.execute(PREPARE)
    assert wrong_rows(doc, "embedding_v2", "v2", text="words") == []


def retired(db: psycopg.Connection[Any], age: str = "10 years") -> list[Any]:
    """What becomes of the columns that were left so long ago."""
    db.execute("UPDATE pgml_tune.tracked_column SET left_at = now() - %s::interval WHERE left_at IS NOT NULL", (age,))
    return db.execute("SELECT object, outcome FROM pgml_tune._retire_shadows()").fetchall()


def test_columns_that_a_rollback_needs_no_more_are_dropped(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    assert retired(doc) == [], "it has never been left"
    swap(doc, "v2")
    assert retired(doc, age="1 minute") == []
    doc.execute("CREATE VIEW old AS SELECT embedding_v1 FROM doc")
    ((_, outcome),) = retired(doc)
    assert outcome != "dropped"
    doc.execute("DROP VIEW old")
    assert retired(doc) == [("public.doc.embedding_v1", "dropped")]
    assert vector_columns(doc) == {"embedding": "vector(16)"}
    assert fetch_value(doc, "SELECT count(*) FROM pgml_tune.tracked_column") == 1
    assert fetch_value(doc, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'doc'::regclass") == 0
    doc.execute("UPDATE doc SET body = body || '!'")


def test_a_column_prepared_anew_is_not_dropped(doc: psycopg.Connection[Any]) -> None:
    doc.execute(PREPARE)
    swap(doc, "v2")
    swap(doc, "v1")
    doc.execute(PREPARE)
    assert retired(doc) == []
    assert vector_columns(doc) == {"embedding": "vector(32)", "embedding_v2": "vector(16)"}


def test_a_partition_by_itself_is_a_use_that_nobody_recorded(spaces: psycopg.Connection[Any]) -> None:
    spaces.execute("CREATE TABLE t (id int, body text, embedding vector(32)) PARTITION BY LIST (id)")
    spaces.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); INSERT INTO t VALUES (1, 'one')")
    spaces.execute("CALL embed_table('t1', 'body', 'embedding', 't')")
    assert missing_steps(spaces, "v2") == [("untracked", "column public.t.embedding")]
    spaces.execute("CALL embed_table('t', 'body', 'embedding', 't', overwrite => true)")
    spaces.execute(PREPARE)
    swap(spaces, "v2")
    assert wrong_rows(spaces, "embedding", "v2", "t") == []
