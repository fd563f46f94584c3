"""What a collection must hold, computed anew, and what the model did meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from conditions import fetch_value
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier

COLLECTION = "public.doc.body"
MODEL = "minilm@v1"  # fp32: the same vector of a text in every batch
TOLERANCE = 1e-5  # of the cosine

Row = dict[str, Any]

# Every vector that is missing, too much, of another text or far from the fresh one.
_DIFFERENCES = """
WITH source AS MATERIALIZED (
    SELECT row_number() OVER () AS text_no, {keys}, s.{column}::text AS body
    FROM {source} AS s WHERE s.{column} IS NOT NULL
), fresh AS MATERIALIZED (
    {fresh}
), wanted AS (
    SELECT {wanted_keys}, f.chunk_no, f.embedding, sha256(convert_to(s.body, 'UTF8')) AS text_sha256,
           CASE f.chunk_no WHEN 1 THEN to_tsvector({text_search}::regconfig, s.body) END AS lexemes
    FROM source AS s JOIN fresh AS f ON f.text_no = s.text_no
)
SELECT w.chunk_no AS wanted_chunk, c.chunk_no AS stored_chunk, c.text_sha256 = w.text_sha256 AS same_text,
       c.embedding::vector <=> w.embedding AS distance, {stored_lexemes} AS stored_lexemes, w.lexemes::text
FROM wanted AS w FULL JOIN {embeddings} AS c ON {same_key} AND w.chunk_no = c.chunk_no
WHERE w.chunk_no IS NULL OR c.chunk_no IS NULL OR c.text_sha256 IS DISTINCT FROM w.text_sha256
   OR (c.embedding::vector <=> w.embedding < {tolerance}) IS NOT TRUE
   OR {stored_lexemes} IS DISTINCT FROM w.lexemes::text
"""
_WHOLE = """SELECT e.text_no, 1 AS chunk_no, e.embedding
    FROM unnest(embed((SELECT coalesce(array_agg(body ORDER BY text_no), '{{}}') FROM source), {model}))
        WITH ORDINALITY AS e (embedding, text_no)"""
_CHUNKS = """SELECT p.text_no, p.chunk_no, p.embedding
    FROM pgml_tune._embed_passages((SELECT coalesce(array_agg(body ORDER BY text_no), '{{}}') FROM source), {model},
        {chunk_tokens}, {chunk_overlap}) AS p"""


def collection_row(db: psycopg.Connection[Any], collection: str = COLLECTION) -> Row:
    """What embedding_collections says."""
    row = (
        db.cursor(row_factory=dict_row)
        .execute(
            "SELECT c.*, c.source::text AS source_name, c.embeddings::text AS embeddings_name"
            " FROM pgml_tune.embedding_collections AS c WHERE c.collection = %s",
            (collection,),
        )
        .fetchone()
    )
    assert row is not None, collection
    return row


def assert_exact(db: psycopg.Connection[Any], collection: str = COLLECTION, keys: Sequence[str] = ("id",)) -> Row:
    """The collection holds a fresh vector of every text of the source as it is now, and no other; returns its row."""
    row = collection_row(db, collection)
    assert f"{row['model']}@{row['version']}" == MODEL
    numbers = range(1, len(keys) + 1)
    db.execute("SET pgml_tune.cache = 'off'")
    differences = db.execute(
        SQL(_DIFFERENCES).format(
            source=SQL(row["source_name"]),
            embeddings=SQL(row["embeddings_name"]),
            column=Identifier(row["source_column"]),
            keys=_listed("s.{key} AS {number}", keys),
            wanted_keys=_listed("s.{number}", keys),
            same_key=SQL(" AND ").join(SQL("w.{0} = c.{0}").format(Identifier(f"key_{number}")) for number in numbers),
            fresh=SQL(_WHOLE if row["chunk_tokens"] is None else _CHUNKS).format(
                model=MODEL, chunk_tokens=row["chunk_tokens"], chunk_overlap=row["chunk_overlap"]
            ),
            text_search=row["text_search"],
            stored_lexemes=SQL("NULL" if row["text_search"] is None else "c.lexemes::text"),
            tolerance=TOLERANCE,
        )
    ).fetchall()
    db.execute("RESET pgml_tune.cache")
    assert not differences, differences[:10]
    row = collection_row(db, collection)
    counted = (row["state"], row["rows"], row["stale"], row["is_complete"])
    assert counted == ("ready", row["embedded"], 0, True), row
    shown = SQL("SELECT count(*) FROM {}").format(SQL(row["view_name"]))
    stored = SQL("SELECT count(*) FROM {}").format(SQL(row["embeddings_name"]))
    assert db.execute(shown).fetchone() == db.execute(stored).fetchone()
    return row


def _listed(template: str, keys: Sequence[str]) -> Composable:
    return SQL(", ").join(
        SQL(template).format(key=Identifier(key), number=Identifier(f"key_{number}"))
        for number, key in enumerate(keys, 1)
    )


def model_work(db: psycopg.Connection[Any]) -> dict[str, int]:
    """Calls of the model so far, texts given to it and texts it computed, in this session and those that ended."""
    row = (
        db.cursor(row_factory=dict_row)
        .execute(
            "SELECT coalesce(sum(calls), 0)::int AS calls, coalesce(sum(texts), 0)::int AS texts,"
            " coalesce(sum(computed), 0)::int AS computed FROM pgml_tune.stat_inference"
        )
        .fetchone()
    )
    assert row is not None
    return row


@contextmanager
def model_does(db: psycopg.Connection[Any], calls: int, computed: int | None = None) -> Iterator[None]:
    """What is written within makes the model do exactly this, and nothing is even looked up where it makes no call."""
    before = model_work(db)
    yield
    after = model_work(db)
    work = {name: after[name] - before[name] for name in after}
    assert work["calls"] == calls, work
    if calls == 0:
        assert work["texts"] == 0, work
    if computed is not None:
        assert work["computed"] == computed, work


def found(db: psycopg.Connection[Any], query: str, collection: str = COLLECTION, k: int = 10) -> list[Any]:
    """The keys that semantic_search() finds, nearest first."""
    search = "SELECT key FROM semantic_search(%s, %s, %s)"
    return [key for (key,) in db.execute(search, (collection, query, k)).fetchall()]


def catalog(db: psycopg.Connection[Any]) -> dict[str, set[Any]]:
    """Everything that exists in the database, to see what is left of what was dropped."""
    kinds = {
        "relations": "SELECT oid, relname FROM pg_class WHERE relpersistence <> 't'",
        "functions": "SELECT oid, proname FROM pg_proc",
        "triggers": "SELECT oid, tgname FROM pg_trigger",
        "types": "SELECT oid, typname FROM pg_type WHERE NOT pg_is_other_temp_schema(typnamespace)",
        "rules": "SELECT oid, rulename FROM pg_rewrite",
        "policies": "SELECT oid, polname FROM pg_policy",
        "dependencies": "SELECT classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype FROM pg_depend",
        "shared dependencies": "SELECT classid, objid, refclassid, refobjid, deptype FROM pg_shdepend"
        " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "collections": "SELECT collection_id, name FROM pgml_tune.collection",
    }
    return {kind: set(db.execute(query).fetchall()) for kind, query in kinds.items()}


def our_triggers(db: psycopg.Connection[Any], table: str) -> list[str]:
    """The triggers of collections on a table."""
    query = (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND starts_with(tgname, 'pgml_tune') ORDER BY 1"
    )
    return [name for (name,) in db.execute(query, (table,)).fetchall()]


def ended_prepared(db: psycopg.Connection[Any], ending: str, *writes: str) -> None:
    """Writes of a transaction that is prepared, and then COMMITted or ROLLBACKed by name."""
    db.execute("BEGIN")
    for write in writes:
        db.execute(write)
    db.execute("PREPARE TRANSACTION 'writes'")
    assert fetch_value(db, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'writes'") == 1
    db.execute(f"{ending} PREPARED 'writes'")
