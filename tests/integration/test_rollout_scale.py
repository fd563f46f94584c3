"""The way back takes milliseconds however large the table is, and many who switch at once mix nothing up."""

import os
import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value
from conftest import Connect
from job_workers import Installation
from rollout_traffic import (
    COLLECTION,
    MODEL,
    QUESTIONS,
    SEARCHES,
    Client,
    Job,
    add_versions,
    ask,
    at_work,
    longest_ms,
    mixed,
    versions_of,
)

ROWS = 1_000_000
TEXTS = 100  # different ones, each of many rows: vectors that are true cost nothing
SECONDS = float(os.environ.get("PGML_TUNE_SWITCH_SECONDS", "6"))
SWITCHERS, READERS = (8, 50) if SECONDS >= 60 else (4, 16)
PROMOTE, ROLL_BACK = f"SELECT rollout_model('{MODEL}', 'v3')", f"SELECT rollback_model('{MODEL}')"
LOST_RACE = ("55000", "55P03")  # it is there already, has no way back, or somebody else was faster, or is still at it
Db = psycopg.Connection[Any]

# One row each, found by its key: so the answer says of which version both sides of the comparison were.
BY_KEY = {
    "semantic_search": (
        "SELECT document ->> 'body', distance"
        " FROM semantic_search('public.doc.body', %(question)s, %(found)s, jsonb_build_object('id', %(row)s::bigint))"
    ),
    "query_function": (
        "SELECT body, embedding <=> doc_body_query(%(question)s) FROM doc_body_embedding WHERE id = %(row)s"
    ),
    "plain_embed": (
        "SELECT body, embedding <=> embed(%(question)s, 'tiny', 'query') FROM doc_body_embedding WHERE id = %(row)s"
    ),
}


@pytest.fixture(scope="module")
def shared(connect_shared: Connect, server_home: Path) -> Db:
    """A session on a collection of a million rows with vectors of two versions."""
    db = connect_shared()
    add_versions(db, Installation(server_home))
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text) WITH (autovacuum_enabled = off)")
    db.execute("INSERT INTO doc SELECT g, 'value ' || g FROM generate_series(0, %s) AS g", (TEXTS - 1,))
    db.execute(
        """CALL auto_embed('doc', 'body', %s, options => '{"index": "none", "text_search": "none"}')""", (MODEL,)
    )
    db.execute("CALL prepare_rollout(%s, 'v3')", (MODEL,))
    sides = db.execute("SELECT embeddings::text FROM pgml_tune.collection WHERE name = %s", (COLLECTION,)).fetchall()
    assert len(sides) == 2
    # Past the triggers, which would embed each text.
    db.execute("SET session_replication_role = replica")
    more = f"generate_series({TEXTS}, {ROWS - 1}) AS g (id) JOIN"
    db.execute(f"INSERT INTO doc SELECT g.id, d.body FROM {more} doc AS d ON d.id = g.id % {TEXTS}")
    for (side,) in sides:
        db.execute(f"ALTER TABLE {side} SET (autovacuum_enabled = off)")
        db.execute(
            f"INSERT INTO {side} (key_1, chunk_no, text_sha256, embedding)"
            f" SELECT g.id, 1, e.text_sha256, e.embedding FROM {more} {side} AS e ON e.key_1 = g.id % {TEXTS}"
        )
        db.execute(f"ANALYZE {side}")
    db.execute("RESET session_replication_role")
    db.execute("ANALYZE doc")
    return db


@pytest.mark.slow
def test_rollback_of_a_million_rows_takes_less_than_50_ms_and_embeds_nothing(
    shared: Db, capsys: pytest.CaptureFixture[str]
) -> None:
    computed = "SELECT coalesce(sum(computed), 0) FROM pgml_tune.stat_inference"
    before = fetch_value(shared, computed)
    milliseconds = []
    for _ in range(9):
        assert fetch_value(shared, PROMOTE)["state"] == "promoted"
        began = time.monotonic()
        assert fetch_value(shared, ROLL_BACK)["to"] == "v1"  # with its commit
        milliseconds.append(1000 * (time.monotonic() - began))
    assert fetch_value(shared, computed) == before
    rows = fetch_value(shared, "SELECT count(*) FROM doc")
    with capsys.disabled():
        print(f"\nrollback of {rows} rows with its commit, ms: {[round(ms, 1) for ms in milliseconds]}")
    assert rows == ROWS
    # The middle one: the others may have waited for a core.
    assert statistics.median(milliseconds) <= 50


def test_a_question_of_one_version_among_vectors_of_another_is_seen(shared: Db) -> None:
    client = Client(shared, "planted")
    reference = "UPDATE pgml_tune.collection_route SET model_reference = 'tiny@' || %s WHERE name = %s"
    for planted in ("v1", "v3"):  # v1 serves
        shared.execute(reference, (planted, COLLECTION))
        for number in range(20):
            ask(client, "semantic_search", QUESTIONS[number], BY_KEY["semantic_search"], row=number)
    shared.execute(reference, ("v1", COLLECTION))
    assert versions_of(shared, client.answers, ("v1", "v3"), found=1) == ["v1"] * 20 + ["mixed"] * 20


def look_up(client: Client, chance: random.Random, kind: str) -> None:
    """One search for one row."""
    ask(client, kind, chance.choice(QUESTIONS), BY_KEY[kind], row=chance.randrange(ROWS))


def switch(client: Client, chance: random.Random) -> None:
    """Whichever of promotion and rollback is possible now."""
    client.doing = statement = chance.choice((PROMOTE, ROLL_BACK))
    try:
        client.session.execute(statement)
    except psycopg.Error as error:
        if error.sqlstate not in LOST_RACE:
            raise
    else:
        client.writes += 1


@pytest.mark.slow
def test_readers_beside_many_switchers_get_no_mixed_answer(
    shared: Db, connect_shared: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = sorted(SEARCHES)
    readers: list[Job] = [
        (Client(connect_shared(), kind), partial(look_up, kind=kind))
        for kind in (kinds[number % len(kinds)] for number in range(READERS))
    ]
    switchers: list[Job] = [(Client(connect_shared(), f"switcher {number}"), switch) for number in range(SWITCHERS)]
    with at_work([*readers, *switchers], pace_seconds=0.05) as others:
        others.wait_for(1)
        began, answered, switched = time.monotonic(), len(others.answers), others.writes
        time.sleep(SECONDS)
        answered, switched = len(others.answers) - answered, others.writes - switched
    assert others.errors == []
    answers = others.answers
    versions = versions_of(shared, answers, ("v1", "v3"), found=1)
    found = {version: versions.count(version) for version in sorted(set(versions))}
    with capsys.disabled():
        print(f"\n{answered} searches of {READERS} readers, {switched} switches in {SECONDS:.0f} s: {found},", end=" ")
        print(f"longest search {longest_ms(answers, began):.0f} ms")
    assert mixed(answers, versions) == {}
    assert {"v1", "v3"} <= set(versions) and versions.count("either") < len(versions) / 100
