"""embed() in every kind of transaction and statement a user may put it in."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

DIMENSIONS = 384


def test_read_only_transaction_embeds_and_writes_nothing(db: psycopg.Connection[Any]) -> None:
    db.execute("BEGIN READ ONLY")
    for number in range(300):
        assert fetch_value(db, "SELECT vector_dims(embed(%s))", (f"read only {number}",)) == DIMENSIONS
    assert fetch_value(db, "SELECT pg_current_xact_id_if_assigned() IS NULL")
    db.execute("COMMIT")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.cache_entry_0") == 0


def test_embed_survives_rollback_to_a_savepoint(db: psycopg.Connection[Any]) -> None:
    db.execute("BEGIN")
    before = fetch_value(db, "SELECT embed('before')")
    for number in range(20):
        db.execute("SAVEPOINT s")
        assert fetch_value(db, "SELECT vector_dims(embed(%s))", (f"lost {number}",)) == DIMENSIONS
        with refused("42704"):
            db.execute("SELECT embed('a', 'nothere')")
        db.execute("ROLLBACK TO s")
    assert fetch_value(db, "SELECT embed('before')") == before
    db.execute("COMMIT")
    assert fetch_value(db, "SELECT vector_dims(embed('lost 3'))") == DIMENSIONS


def test_transaction_that_embedded_can_be_prepared(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE prepared (embedding vector)")
    for number in range(10):
        db.execute("BEGIN")
        db.execute("INSERT INTO prepared SELECT embed(%s)", (f"prepared {number}",))
        db.execute(f"PREPARE TRANSACTION 'embedding {number}'")
        db.execute(f"COMMIT PREPARED 'embedding {number}'")
    assert fetch_value(db, "SELECT count(*) FROM prepared WHERE vector_norm(embedding) > 0.99") == 10


def test_serializable_transaction_embeds(db: psycopg.Connection[Any]) -> None:
    db.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    assert fetch_value(db, "SELECT vector_dims(embed('serializable'))") == DIMENSIONS
    db.execute("COMMIT")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.cache_entry_0") == 0


def test_trigger_of_a_user_fills_a_column(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note (content text, embedding vector(384))")
    db.execute(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.embedding := embed(NEW.content, 'minilm@v1'); RETURN NEW; END $$"
    )
    db.execute("CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON note FOR EACH ROW EXECUTE FUNCTION fill()")
    db.execute("INSERT INTO note SELECT 'note ' || g FROM generate_series(1, 30) AS g")
    db.execute("UPDATE note SET content = 'changed' WHERE content = 'note 7'")
    same = "SELECT count(*) FROM note WHERE embedding <=> embed(content, 'minilm@v1') < 1e-5"
    assert fetch_value(db, same) == 30


def test_copy_cursor_and_materialized_view_embed(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note AS SELECT 'note ' || g AS content FROM generate_series(1, 10) AS g")
    with db.cursor().copy("COPY (SELECT embed(content) FROM note) TO STDOUT") as copy:
        assert len(b"".join(bytes(part) for part in copy).splitlines()) == 10
    db.execute("BEGIN")
    db.execute("DECLARE held CURSOR WITH HOLD FOR SELECT vector_dims(embed(content)) FROM note")
    db.execute("COMMIT")
    assert db.execute("FETCH ALL FROM held").fetchall() == [(DIMENSIONS,)] * 10
    db.execute("CREATE MATERIALIZED VIEW embedded AS SELECT content, embed(content) AS embedding FROM note")
    db.execute("CREATE UNIQUE INDEX ON embedded (content)")
    db.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY embedded")
    assert fetch_value(db, "SELECT count(*) FROM embedded WHERE vector_dims(embedding) = 384") == 10


def test_upsert_merge_and_default_embed(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note (content text PRIMARY KEY, embedding vector DEFAULT embed('nothing yet'))")
    db.execute("INSERT INTO note (content) VALUES ('a')")
    db.execute(
        "INSERT INTO note VALUES ('a', embed('a')) ON CONFLICT (content) DO UPDATE SET embedding = excluded.embedding"
    )
    db.execute(
        "MERGE INTO note AS n USING (VALUES ('a'), ('b')) AS s (content) ON n.content = s.content"
        " WHEN MATCHED THEN UPDATE SET embedding = embed(s.content)"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.content, embed(s.content))"
    )
    assert fetch_value(db, "SELECT count(*) FROM note WHERE embedding <=> embed(content) < 1e-5") == 2


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (content text, embedding vector GENERATED ALWAYS AS (embed(content)) STORED)",
        "CREATE INDEX ON note USING hnsw ((embed(content)::vector(384)) vector_cosine_ops)",
    ],
    ids=["generated_column", "index"],
)
def test_embed_is_refused_where_immutability_is_needed(db: psycopg.Connection[Any], sql: str) -> None:
    db.execute("CREATE TABLE note (content text)")
    with refused("42P17"):
        db.execute(sql)


def test_embed_pinned_stands_in_generated_columns_checks_and_indexes(db: psycopg.Connection[Any]) -> None:
    pinned = "embed_pinned(content, 'minilm', 'v1')"
    db.execute(
        f"CREATE TABLE note (content text CHECK (vector_norm({pinned}) > 0.9),"
        f" embedding vector(384) GENERATED ALWAYS AS ({pinned}) STORED)"
    )
    db.execute("INSERT INTO note SELECT 'note ' || g FROM generate_series(1, 200) AS g")
    db.execute(f"CREATE INDEX by_expression ON note USING hnsw (({pinned}::vector(384)) vector_cosine_ops)")
    db.execute("ANALYZE note")
    db.execute("SET enable_seqscan = off")
    nearest = (
        f"SELECT content FROM note ORDER BY {pinned}::vector(384) <=> (SELECT embed_pinned('note 42', 'minilm', 'v1'))"
        " LIMIT 1"
    )
    plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN {nearest}").fetchall())
    assert "by_expression" in plan
    assert fetch_value(db, nearest) == "note 42"
    assert fetch_value(db, "SELECT max(embedding <=> embed(content, 'minilm@v1')) < 1e-5 FROM note")


def test_nearest_neighbours_use_the_hnsw_index_and_run_the_model_once(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note AS SELECT 'note ' || g AS content FROM generate_series(1, 400) AS g")
    db.execute("ALTER TABLE note ADD embedding vector(384)")
    db.execute(
        "UPDATE note SET embedding = e.vector FROM (SELECT array_agg(content) AS texts FROM note) AS a,"
        " LATERAL unnest(a.texts, embed(a.texts)) AS e (content, vector) WHERE e.content = note.content"
    )
    db.execute("CREATE INDEX note_hnsw ON note USING hnsw (embedding vector_cosine_ops)")
    db.execute("ANALYZE note")
    query = "FROM note ORDER BY embedding <=> embed('a short note', kind => 'query') LIMIT 10"
    plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN SELECT content {query}").fetchall())
    assert "Index Scan using note_hnsw" in plan
    computed = "SELECT sum(computed) FROM pgml_tune.stat_inference"
    before = fetch_value(db, computed)
    assert len(db.execute(f"SELECT content {query}").fetchall()) == 10
    assert fetch_value(db, computed) - before == 1


def test_session_preference_of_another_value_is_refused(connect: Connect) -> None:
    alice = connect("alice")
    for value in ("off", "session", "on", ""):
        alice.execute("SELECT set_config('pgml_tune.cache', %s, false)", (value,))
        assert fetch_value(alice, "SELECT vector_dims(embed('preference'))") == DIMENSIONS
    alice.execute("SET pgml_tune.cache = 'sometimes'")
    with refused("22023"):
        alice.execute("SELECT embed('preference')")
