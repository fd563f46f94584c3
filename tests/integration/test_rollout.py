"""A version that takes over from another: shares, promotion, the way back, and who is refused."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from job_workers import Installation, workers_of

NAME = "public.docs.body"
ROWS = 60
QUESTIONS = [f"what is number {number}" for number in range(200)]


@pytest.fixture(scope="module")
def digests(server_home: Path) -> list[str]:
    """Of versions of three spaces: 32, 16 and again 32 dimensions."""
    installation = Installation(server_home)
    return [installation.build_tiny(), installation.build_small(), installation.build_other()]


@pytest.fixture
def db(connect: Connect, digests: list[str]) -> Iterator[psycopg.Connection[Any]]:
    """A collection of a model with three versions; distances tell whose search it was."""
    session = connect()
    for number, digest in enumerate(digests, 1):
        session.execute("SELECT register_model('tiny', %s, 'embedding', %s)", (digest, f"v{number}"))
    session.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    session.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) AS g", (ROWS,))
    session.execute("CALL auto_embed('docs', 'body', 'tiny')")
    yield session


# The version whose vectors of question and texts give the distances that a search has told.
WHO_ANSWERS = """
SELECT q.question, a.version
FROM unnest(%s::text[]) AS q (question)
CROSS JOIN LATERAL (
    SELECT v.version
    FROM semantic_search('public.docs.body', q.question, 3) AS s
    CROSS JOIN (VALUES ('v1'), ('v2'), ('v3')) AS v (version)
    CROSS JOIN LATERAL (
        SELECT embed_pinned(s.document ->> 'body', 'tiny', v.version)
            <=> embed_pinned(q.question, 'tiny', v.version, 'query') AS distance
    ) AS e
    GROUP BY v.version
    HAVING count(*) = 3 AND bool_and(abs(e.distance - s.distance) < 1e-6)
) AS a
"""


def sides(db: psycopg.Connection[Any], questions: Sequence[str] = QUESTIONS) -> dict[str, str]:
    """The version that answers each question, which must be one."""
    rows = db.execute(WHO_ANSWERS, (list(questions),)).fetchall()
    answers = dict(rows)
    assert len(rows) == len(answers) == len(questions), rows
    return answers


def searched_by(db: psycopg.Connection[Any], question: str) -> str:
    return sides(db, [question])[question]


def roll_out(db: psycopg.Connection[Any], version: str, percent: int = 100, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = fetch_value(
        db, "SELECT rollout_model('tiny', %s, %s, %s::jsonb)", (version, percent, json.dumps(options))
    )
    return result


def dimensions(db: psycopg.Connection[Any]) -> tuple[int, ...]:
    """Of what plain embed() gives, of the view, and of the query function."""
    row = db.execute(
        "SELECT vector_dims(embed('a', 'tiny')), (SELECT max(vector_dims(embedding)) FROM docs_body_embedding),"
        " vector_dims(docs_body_query('a'))"
    ).fetchone()
    assert row is not None
    return row


def test_a_version_of_another_space_is_refused_until_it_has_vectors(db: psycopg.Connection[Any]) -> None:
    with refused("55000") as failure:
        roll_out(db, "v2", 20)
    assert failure.value.diag.message_hint == "CALL prepare_rollout('tiny', 'v2')"
    assert roll_out(db, "v2", 20, dry_run=True)["missing"]
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    assert roll_out(db, "v2", 20, dry_run=True)["missing"] == []
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.rollouts") == 0


def test_a_share_is_sticky_and_grows_without_sending_anybody_back(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    started = roll_out(db, "v2", 20)
    assert (started["state"], started["from_version"], started["collections"]) == ("running", "v1", 1)
    first = sides(db)
    assert 20 <= sum(version == "v2" for version in first.values()) <= 65  # of 200; beyond it once in 10^5 runs
    assert sides(db) == first
    roll_out(db, "v2", 60)
    second = sides(db)
    assert all(second[question] == "v2" for question, version in first.items() if version == "v2")
    assert sum(version == "v2" for version in second.values()) > sum(version == "v2" for version in first.values())
    # What people compare with the view by themselves stays with the serving version.
    assert dimensions(db) == (32, 32, 32)


def test_the_unit_of_a_session_goes_to_one_side_entirely(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2", 50)
    seen = set()
    for user in range(8):
        db.execute("SELECT set_config('pgml_tune.unit', %s, false)", (f"user {user}",))
        versions = set(sides(db, QUESTIONS[:4]).values())
        assert len(versions) == 1
        seen |= versions
    assert seen == {"v1", "v2"}
    with refused("22023"):
        db.execute("SELECT set_config('pgml_tune.unit', repeat('x', 1001), false)")
        db.execute("SELECT * FROM semantic_search(%s, 'a')", (NAME,))


def test_promotion_and_rollback_take_searches_view_query_function_and_embed_along(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    promoted = roll_out(db, "v2")
    assert promoted["state"] == "promoted" and promoted["searches_ms"] < 1000 and promoted["embed_ms"] < 1000
    assert dimensions(db) == (16, 16, 16)
    assert set(sides(db).values()) == {"v2"}
    # The side that was left is still fed.
    db.execute("INSERT INTO docs VALUES (1001, 'a new text'); DELETE FROM docs WHERE id = 2")
    db.execute("UPDATE docs SET body = 'another text' WHERE id = 3")
    computed = fetch_value(db, "SELECT sum(computed) FROM pgml_tune.stat_inference WHERE model = 'tiny'")
    back = fetch_value(db, "SELECT rollback_model('tiny', 'too slow')")
    assert (back["from"], back["to"]) == ("v2", "v1") and back["embed_ms"] is not None
    assert fetch_value(db, "SELECT sum(computed) FROM pgml_tune.stat_inference WHERE model = 'tiny'") == computed
    assert dimensions(db) == (32, 32, 32)
    assert set(sides(db).values()) == {"v1"}
    counts = "SELECT role, rows, embedded, stale FROM pgml_tune.embedding_collections ORDER BY role"
    rows = db.execute(counts).fetchall()
    assert rows == [("left", ROWS, ROWS, 0), ("serving", ROWS, ROWS, 0)]
    # And forth again, without preparing anything.
    assert roll_out(db, "v2")["state"] == "promoted"
    assert dimensions(db) == (16, 16, 16)


def test_rollback_walks_truly_back(db: psycopg.Connection[Any]) -> None:
    for version in ("v2", "v3"):
        db.execute("CALL prepare_rollout('tiny', %s)", (version,))
        roll_out(db, version, reason=f"to {version}")
    moves = []
    for _ in range(2):
        back = fetch_value(db, "SELECT rollback_model('tiny')")
        moves.append((back["from"], back["to"]))
        assert searched_by(db, "a question") == back["to"]
    assert moves == [("v3", "v2"), ("v2", "v1")]
    with refused("55000"):
        db.execute("SELECT rollback_model('tiny')")
    history = db.execute(
        "SELECT from_target, to_target, reason, changed_by, undoes IS NOT NULL FROM pgml_tune.rollout_history"
        " WHERE pointer = 'tiny' AND kind = 'version' ORDER BY rollout_history_id"
    ).fetchall()
    assert history == [
        (None, "v1", "first version", "postgres", False),
        ("v1", "v2", "to v2", "postgres", False),
        ("v2", "v3", "to v3", "postgres", False),
        ("v3", "v2", None, "postgres", True),
        ("v2", "v1", None, "postgres", True),
    ]


def test_rollback_ends_the_rollout_that_runs(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2", 50)
    assert fetch_value(db, "SELECT rollback_model('tiny')")["to"] == "v1"
    assert set(sides(db).values()) == {"v1"}
    state = db.execute("SELECT state::text, candidate_percent, ended_at IS NOT NULL FROM pgml_tune.rollouts").fetchone()
    assert state == ("rolled_back", 0, True)


def test_a_collection_that_cannot_go_back_keeps_no_other_from_it(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    db.execute("CREATE TABLE late (id int PRIMARY KEY, body text); INSERT INTO late VALUES (1, 'a'), (2, 'b')")
    db.execute("CALL auto_embed('late', 'body', 'tiny')")
    back = fetch_value(db, "SELECT rollback_model('tiny')")
    assert back["left"] == ["public.late.body"]
    assert searched_by(db, "a question") == "v1"
    assert len(db.execute("SELECT * FROM semantic_search('public.late.body', 'a')").fetchall()) == 2
    # The statements that it proposes bring it along; a dry run of them does not.
    routes = "SELECT array_agg(DISTINCT model_reference ORDER BY model_reference) FROM pgml_tune.collection_route"
    prepare, roll = back["do"].split("; ")
    db.execute(prepare)
    assert roll_out(db, "v1", dry_run=True)["state"] == "promoted"
    assert fetch_value(db, routes) == ["tiny@v1", "tiny@v2"]
    db.execute(roll)
    assert fetch_value(db, routes) == ["tiny@v1"]
    assert fetch_value(db, "SELECT max(vector_dims(embedding)) FROM late_body_embedding") == 32


def test_each_collection_goes_back_to_where_it_was(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE other (id int PRIMARY KEY, body text); INSERT INTO other VALUES (1, 'a')")
    db.execute("CALL auto_embed('other', 'body', 'tiny@v3')")
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    routes = "SELECT array_agg(model_reference ORDER BY name) FROM pgml_tune.collection_route"
    assert fetch_value(db, routes) == ["tiny@v2", "tiny@v2"]
    fetch_value(db, "SELECT rollback_model('tiny')")
    assert fetch_value(db, routes) == ["tiny@v1", "tiny@v3"]


def test_a_collection_of_another_space_is_left_alone_inside_a_space(
    db: psycopg.Connection[Any], digests: list[str]
) -> None:
    db.execute("SELECT register_model('tiny', %s, 'embedding', 'v1b')", (digests[0],))
    db.execute("CREATE TABLE other (id int PRIMARY KEY, body text); INSERT INTO other VALUES (1, 'a')")
    db.execute("CALL auto_embed('other', 'body', 'tiny@v3')")
    roll_out(db, "v1b", 50)
    assert roll_out(db, "v1b")["state"] == "promoted"
    routes = "SELECT array_agg(model_reference ORDER BY name) FROM pgml_tune.collection_route"
    assert fetch_value(db, routes) == ["tiny@v1b", "tiny@v3"]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE docs RENAME COLUMN body TO words",
        "ALTER VIEW docs_body_embedding RENAME COLUMN embedding TO vec",
        "DROP FUNCTION docs_body_query(text)",
        "CREATE VIEW mine AS SELECT id FROM docs_body_embedding; ALTER TABLE docs RENAME COLUMN body TO words",
        "DROP VIEW docs_body_embedding",
    ],
)
def test_what_became_of_a_view_does_not_bar_the_way_back(db: psycopg.Connection[Any], change: str) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    db.execute(change)  # type: ignore[call-overload]
    assert fetch_value(db, "SELECT rollback_model('tiny')")["to"] == "v1"
    db.execute("CALL maintain()")
    name = "SELECT model_reference FROM pgml_tune.collection_route"
    assert fetch_value(db, name) == "tiny@v1"
    assert len(db.execute("SELECT * FROM semantic_search(%s, 'a', 3)", (NAME,)).fetchall()) == 3


def test_what_was_built_on_one_view_keeps_embed_on_no_version(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    db.execute("CREATE VIEW mine AS SELECT id FROM docs_body_embedding; ALTER TABLE docs RENAME COLUMN body TO words")
    assert fetch_value(db, "SELECT rollback_model('tiny')")["embed_ms"] is not None
    assert fetch_value(db, "SELECT vector_dims(embed('a', 'tiny'))") == 32
    fix = "DROP VIEW public.docs_body_embedding; CALL maintain()"
    assert fix in [row[3] for row in db.execute("SELECT * FROM doctor()")]
    db.execute("DROP VIEW mine")
    for statement in fix.split("; "):
        db.execute(statement)  # type: ignore[call-overload]
    view = fetch_value(db, "SELECT view_name::text FROM pgml_tune.embedding_collections WHERE role = 'serving'")
    assert fetch_value(db, f"SELECT max(vector_dims(embedding)) FROM {view}") == 32


def test_an_open_transaction_bars_nobody_without_a_word(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    idle = connect()
    idle.execute("BEGIN")
    roll_out(idle, "v2", 30)
    with refused("55P03") as failure:
        db.execute("SELECT rollback_model('tiny')")
    assert failure.value.diag.message_hint == f"SELECT pg_terminate_backend({idle.info.backend_pid})"
    idle.execute("ROLLBACK")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.rollouts") == 0


def test_what_is_said_of_a_rollout_that_runs_holds_from_then_on(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2", 20, expires="1 hour")
    roll_out(db, "v2", 20, expires="30 days", on_expiry="hold", guardrails={"min_units": 7})
    row = db.execute(
        "SELECT phase, on_expiry, expires_at > now() + interval '29 days', guardrails -> 'min_units'"
        " FROM pgml_tune.rollouts"
    ).fetchone()
    assert row == (1, "hold", True, 7)


def test_a_rollout_that_cannot_be_judged_keeps_nobody_from_its_end(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    for model, version in (("minilm", "v1-int8"), ("tiny", "v2")):
        db.execute("SELECT rollout_model(%s, %s, 50, '{\"expires\": \"1 millisecond\"}')", (model, version))
    db.execute("UPDATE pgml_tune.rollout SET guardrails = '{\"alpha\": null}' WHERE model = 'minilm'")
    db.execute("CALL rollout_tick()")
    assert fetch_value(db, "SELECT array_agg(DISTINCT state::text) FROM pgml_tune.rollouts") == ["rolled_back"]


def test_two_looks_at_once_go_one_step(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    rollout = roll_out(db, "v2", plan=[20, 40, 100])["rollout_id"]
    step = "SELECT pgml_tune._change_rollout(%s, '{\"share\": 4000, \"expected_phase\": 1}')"
    assert [fetch_value(db, step, (rollout,)) for _ in range(2)] == [True, False]
    assert not fetch_value(db, "SELECT pgml_tune._end_rollout(%s, 'promoted', 'late', 1)", (rollout,))
    assert db.execute("SELECT phase, candidate_percent FROM pgml_tune.rollouts").fetchone() == (2, 40)


def test_nobody_promotes_what_is_not_ready_behind_the_functions(db: psycopg.Connection[Any]) -> None:
    begin = """
        SELECT pgml_tune._begin_rollout(jsonb_build_object(
            'model_id', m.model_id, 'from_version_id', s.model_version_id, 'to_version_id', v.model_version_id,
            'share', 100, 'guardrails', '{}'::jsonb, 'seconds', 60, 'on_expiry', 'hold'
        ))
        FROM pgml_tune.model AS m
        JOIN pgml_tune.serving AS s USING (model_id)
        JOIN pgml_tune.model_version AS v ON v.model_id = m.model_id
        WHERE m.name = 'tiny' AND v.version = 'v2'
    """
    rollout = fetch_value(db, begin)
    with refused("55000"):
        db.execute("SELECT pgml_tune._end_rollout(%s, 'promoted', '', NULL)", (rollout,))


def test_a_version_that_one_may_go_back_to_is_not_dropped(db: psycopg.Connection[Any], connect: Connect) -> None:
    reader = connect()
    reader.execute("BEGIN; SELECT embed('a', 'minilm')")
    assert fetch_value(db, "SELECT rollout_model('minilm', 'v1-int8')")["embed_ms"] is None
    for version in ("v1", "v1-int8"):
        with refused("55000"):
            db.execute("SELECT drop_model_version('minilm', %s)", (version,))
    reader.execute("COMMIT")
    db.execute("CALL rollout_tick()")
    db.execute("SELECT rollout_model('minilm', 'v1-int8-block')")
    db.execute("SELECT configure('rollback_window_hours', '0')")
    db.execute("SELECT drop_model_version('minilm', 'v1-int8')")
    # It passes over what is gone.
    assert fetch_value(db, "SELECT rollback_model('minilm')")["to"] == "v1"


def test_a_fill_that_goes_on_holds_up_no_rollback(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    filling = connect()
    filling.execute("BEGIN; SELECT FROM pgml_tune.collection FOR NO KEY UPDATE")
    db.execute("SET statement_timeout = '2s'")
    assert fetch_value(db, "SELECT rollback_model('tiny')")["to"] == "v1"
    assert searched_by(db, "a question") == "v1"
    filling.execute("COMMIT")
    db.execute("CALL rollout_tick()")
    assert dimensions(db) == (32, 32, 32)


def test_a_candidate_that_cannot_embed_keeps_no_writer_from_his_work(
    db: psycopg.Connection[Any], connect: Connect, server_home: Path, digests: list[str]
) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    folder = server_home / "models" / digests[1]
    hidden = folder.rename(folder.with_name(f".hidden-{digests[1]}"))
    try:
        writer = connect()
        writer.execute("INSERT INTO docs VALUES (501, 'a new row'); UPDATE docs SET body = 'changed' WHERE id = 1")
        writer.execute("DELETE FROM docs WHERE id = 2")
        assert roll_out(db, "v2", 50, dry_run=True)["missing"]
        assert "CALL maintain()" in [row[3] for row in db.execute("SELECT * FROM doctor()")]
    finally:
        hidden.rename(folder)
    db.execute("CALL maintain()")
    assert roll_out(db, "v2", 100)["state"] == "promoted"
    counts = "SELECT rows, embedded, stale FROM pgml_tune.embedding_collections"
    assert db.execute(counts).fetchall() == [(ROWS, ROWS, 0)] * 2


def test_an_old_snapshot_does_not_bring_back_an_old_version(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2'); CREATE TABLE late (id int PRIMARY KEY, body text)")
    old = connect()
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT count(*) FROM late")
    roll_out(db, "v2")
    old.execute("CALL auto_embed('late', 'body', 'tiny')")
    old.execute("COMMIT")
    assert dimensions(db) == (16, 16, 16)


def test_embed_waits_for_the_locks_and_stays_with_the_view(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    reader = connect()
    reader.execute("BEGIN; SELECT count(*) FROM docs_body_embedding")
    promoted = roll_out(db, "v2")
    assert promoted["embed_ms"] is None and promoted["next"] == "CALL rollout_tick()"
    # Searches have moved, the others wait together.
    assert searched_by(db, "a question") == "v2"
    assert dimensions(db) == (32, 32, 32)
    traffic = "SELECT serving_version, embed_version FROM pgml_tune.traffic WHERE model = 'tiny'"
    assert db.execute(traffic).fetchone() == ("v2", "v1")
    assert "rollout of tiny" in [row[0] for row in db.execute("SELECT check_name FROM doctor()")]
    reader.execute("COMMIT")
    db.execute("CALL rollout_tick()")
    assert dimensions(db) == (16, 16, 16)


def test_a_transaction_of_one_snapshot_sees_one_version(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    reader = connect()
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert fetch_value(reader, "SELECT count(*) FROM docs") == ROWS
    roll_out(db, "v2")
    # The search follows its old snapshot; view and embed() are both of today.
    assert searched_by(reader, "a question") == "v1"
    distance = "SELECT count(embedding <=> embed('a', 'tiny')) FROM docs_body_embedding"
    assert fetch_value(reader, distance) == ROWS
    db.execute("SELECT configure('rollback_window_hours', '0')")
    for _ in range(3):
        db.execute("CALL maintain()")
    # What it may still be led to has not been dropped.
    assert searched_by(reader, "a question") == "v1"
    reader.execute("COMMIT")
    db.execute("CALL maintain()")
    assert db.execute("SELECT version, role FROM pgml_tune.embedding_collections").fetchall() == [("v2", "serving")]
    with refused("55000") as failure:
        db.execute("SELECT rollback_model('tiny')")
    assert failure.value.diag.message_hint == "CALL prepare_rollout('tiny', 'v1')"


def test_inside_one_space_a_share_needs_no_preparation(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
    db.execute("CALL auto_embed('notes', 'body', 'minilm')")
    share = "SELECT rollout_model('minilm', 'v1-int8', 50)"
    assert fetch_value(db, share)["is_same_space"] is True
    probe = "SELECT embed(t, 'minilm') = embed(t, 'minilm@v1-int8') FROM unnest(%s::text[]) AS t"
    answers = [row[0] for row in db.execute(probe, (QUESTIONS,))]
    assert 60 < sum(answers) < 140
    fetch_value(db, "SELECT rollout_model('minilm', 'v1-int8')")
    assert all(row[0] for row in db.execute(probe, (QUESTIONS,)))
    assert fetch_value(db, "SELECT notes_body_query('a') = embed_pinned('a', 'minilm', 'v1-int8', 'query')")
    with refused("55000"):
        db.execute("SELECT drop_model_version('minilm', 'v1-int8')")
    assert fetch_value(db, "SELECT rollback_model('minilm')")["to"] == "v1"


def test_in_an_open_transaction_only_searches_move(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    owner = connect()
    owner.execute("BEGIN")
    assert roll_out(owner, "v2")["embed_waits_for"] == "the end of your transaction"
    db.execute("SET statement_timeout = '5s'")
    # Nobody waits for it.
    assert dimensions(db) == (32, 32, 32) and searched_by(db, "a question") == "v1"
    owner.execute("COMMIT")
    assert dimensions(db) == (32, 32, 32) and searched_by(db, "a question") == "v2"
    db.execute("CALL rollout_tick()")
    assert dimensions(db) == (16, 16, 16)


def test_embed_that_has_yet_to_follow_is_not_shared_out_between_two_spaces(
    db: psycopg.Connection[Any], connect: Connect, digests: list[str]
) -> None:
    db.execute("SELECT register_model('tiny', %s, 'embedding', 'v1b')", (digests[0],))
    db.execute("CALL prepare_rollout('tiny', 'v3')")
    roll_out(db, "v3")
    reader = connect()
    reader.execute("BEGIN; SELECT count(*) FROM docs_body_embedding")
    assert fetch_value(db, "SELECT rollback_model('tiny')")["embed_ms"] is None
    assert roll_out(db, "v1b", 50)["is_same_space"] is True
    of = "SELECT count(*) FROM unnest(%s::text[]) AS t WHERE embed(t, 'tiny') = embed_pinned(t, 'tiny', %s)"
    assert fetch_value(db, of, (QUESTIONS, "v3")) == len(QUESTIONS)
    reader.execute("COMMIT")
    db.execute("CALL rollout_tick()")
    assert fetch_value(db, of, (QUESTIONS, "v1")) == len(QUESTIONS)
    assert fetch_value(db, "SELECT candidate_version FROM pgml_tune.serving WHERE model = 'tiny'") == "v1b"


def test_a_rollback_that_has_waited_ends_the_rollout_that_came_first(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    for version in ("v2", "v3"):
        db.execute("CALL prepare_rollout('tiny', %s)", (version,))
    roll_out(db, "v2")
    first, second = connect(), connect()
    first.execute("BEGIN")
    roll_out(first, "v3", 50)
    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(fetch_value, second, "SELECT rollback_model('tiny')")
        blocked = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
        wait_until(lambda: fetch_value(db, blocked, (second.info.backend_pid,)))
        first.execute("COMMIT")
        back = waiting.result(20)
    assert (back["from"], back["to"]) == ("v3 50 %", "v2")
    assert set(sides(db).values()) == {"v2"}


def test_two_who_take_back_the_same_version_go_one_step(db: psycopg.Connection[Any], connect: Connect) -> None:
    for version in ("v2", "v3"):
        db.execute("CALL prepare_rollout('tiny', %s)", (version,))
        roll_out(db, version)
    first, second = connect(), connect()
    first.execute("BEGIN")
    fetch_value(first, "SELECT rollback_model('tiny')")
    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(fetch_value, second, "SELECT rollback_model('tiny')")
        blocked = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
        wait_until(lambda: fetch_value(db, blocked, (second.info.backend_pid,)))
        first.execute("COMMIT")
        with refused("55000"):
            waiting.result(20)
    assert set(sides(db).values()) == {"v2"}


def test_only_one_rollout_of_a_model_runs(db: psycopg.Connection[Any]) -> None:
    for version in ("v2", "v3"):
        db.execute("CALL prepare_rollout('tiny', %s)", (version,))
    roll_out(db, "v2", 10)
    with refused("55000") as failure:
        roll_out(db, "v3", 10)
    assert failure.value.diag.message_hint == "SELECT rollback_model('tiny')"
    with refused("55000"):
        db.execute("SELECT drop_model_version('tiny', 'v2')")


REFUSED = [
    ("rollout_model(NULL, 'v2')", "22023"), ("rollout_model('tiny', NULL)", "22023"),
    ("rollout_model('tiny', 'v2', NULL)", "22023"), ("rollout_model('tiny', 'v2', 0)", "22023"),
    ("rollout_model('tiny', 'v2', 101)", "22023"), ("rollout_model('tiny', 'v2', -1)", "22023"),
    ("rollout_model('nobody', 'v2')", "42704"), ("rollout_model('tiny', 'v9')", "42704"),
    ("rollout_model('Tiny', 'v2')", "22023"),
    ("rollout_model('tiny', 'v1')", "55000"), ("rollout_model('tiny', 'v2', 5, '[]')", "22023"),
    ("rollout_model('tiny', 'v2', 5, '{\"plan\": [0]}')", "22023"),
    ("rollout_model('tiny', 'v2', 5, '{\"speed\": 1}')", "22023"),
    ("rollout_model('tiny', 'v2', 5, '{\"guardrails\": {\"alpha\": 7}}')", "22023"),
    ("rollback_model(NULL)", "22023"), ("rollback_model('nobody')", "42704"), ("rollback_model('tiny')", "55000"),
    ("rollout_explain(NULL)", "42704"), ("rollout_explain(99)", "42704"),
]  # fmt: skip


def test_what_cannot_be_done_is_refused(db: psycopg.Connection[Any]) -> None:
    for call, state in REFUSED:
        with refused(state):
            db.execute(f"SELECT {call}")
    assert searched_by(db, "a question") == "v1"


def test_an_end_that_is_none_is_refused(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    for expires in ("yesterday", "-1 day", "0", "100 years", ""):
        with refused("22023", "22007", "22008"):
            roll_out(db, "v2", 5, expires=expires)


def test_who_only_uses_models_moves_none(db: psycopg.Connection[Any], connect: Connect) -> None:
    alice = connect("alice")
    for call in ("rollout_model('tiny', 'v2')", "rollback_model('tiny')", "rollout_explain(1)"):
        with refused("42501"):
            alice.execute(f"SELECT {call}")  # type: ignore[call-overload]
    with refused("42501"):
        alice.execute("CALL rollout_tick()")
    assert fetch_value(alice, "SELECT serving_version FROM pgml_tune.traffic WHERE model = 'tiny'") == "v1"


def test_an_operator_rolls_out_what_the_owner_has_prepared(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    olga = connect("olga")
    assert roll_out(olga, "v2", 50)["state"] == "running"
    assert roll_out(olga, "v2")["state"] == "promoted"
    assert fetch_value(olga, "SELECT rollback_model('tiny')")["to"] == "v1"
    olga.execute("CALL rollout_tick()")
    assert dimensions(db) == (32, 32, 32)


def test_an_expired_rollout_goes_back(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    started = roll_out(db, "v2", 50, expires="1 millisecond", plan=[50, 100])
    db.execute("CALL rollout_tick()")
    explained = fetch_value(db, "SELECT rollout_explain(%s)", (started["rollout_id"],))
    assert explained["state"] == "rolled_back" and explained["history"] and explained["verdict"]["outcome"] == "no_data"
    assert set(sides(db).values()) == {"v1"}


def test_a_worker_that_stays_looks_at_rollouts(db: psycopg.Connection[Any], server_home: Path) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2", 50, expires="1 millisecond")
    with workers_of(Installation(server_home), db) as workers:
        workers.serve()
        wait_until(lambda: fetch_value(db, "SELECT state = 'rolled_back' FROM pgml_tune.rollouts"), 60)


def test_a_collection_goes_with_all_of_its_versions(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2", 50)
    db.execute("SELECT drop_auto_embed(%s)", (NAME,))
    for table in ("collection", "collection_route"):
        assert fetch_value(db, f"SELECT count(*) FROM pgml_tune.{table}") == 0
    assert fetch_value(db, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgml_tune%'") == 0
    db.execute("CALL rollout_tick()")
    assert fetch_value(db, "SELECT rollback_model('tiny')")["to"] == "v1"


def test_without_collections_nothing_is_left_that_keeps_the_extension(db: psycopg.Connection[Any]) -> None:
    db.execute("CALL prepare_rollout('tiny', 'v2')")
    roll_out(db, "v2")
    db.execute("SELECT drop_auto_embed(%s)", (NAME,))
    db.execute("DROP EXTENSION pgml_tune")
