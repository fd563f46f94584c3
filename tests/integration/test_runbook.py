"""Every statement of docs/rollout.md does what the runbook says, and every refusal it lists comes as it is listed."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from job_workers import Installation

from pgml_tune.service.guardrails import Guardrails

CHECKOUT = Path(__file__).parents[2]
RUNBOOK = (CHECKOUT / "docs" / "rollout.md").read_text()
NOT_READY = "is not ready for version"
NIGHT = [
    "Take it back now",
    "What is going on",
    "Plain `embed()` lags behind",
    "A rollout runs",
    "Paused",
    "Give a prepared version up",
]
PLANNED = "The planned way"
WITHOUT_STATEMENTS = ["Guardrails", "When it is refused"]
Db = psycopg.Connection[Any]


def section(heading: str) -> str:
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def statements(heading: str) -> list[str]:
    """The statements of a section in their order."""
    blocks = re.findall(r"^```sql\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    return [s.strip() for block in blocks for s in re.split(r";(?:[ ]+--.*)?$", block, flags=re.MULTILINE) if s.strip()]


@pytest.fixture
def db(connect: Connect, server_home: Path) -> Db:
    """A collection of model minilm, and a version v2 of another space."""
    session = connect()
    digest = Installation(server_home).build_small()
    session.execute("SELECT register_model('minilm', %s, 'embedding', 'v2')", (digest,))
    session.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    session.execute("INSERT INTO note SELECT g, 'note number ' || g FROM generate_series(1, 60) AS g")
    session.execute("CALL auto_embed('note', 'body')")
    return session


def traffic(db: Db) -> Any:
    return db.execute(
        "SELECT serving_version, embed_version, candidate_version, candidate_percent::float FROM pgml_tune.traffic"
        " WHERE model = 'minilm'"
    ).fetchone()


def test_every_section_is_run() -> None:
    headings = re.findall(r"^##+ (.*)$", RUNBOOK, re.MULTILINE)
    assert headings == [*NIGHT, PLANNED, *WITHOUT_STATEMENTS]
    assert all(statements(heading) for heading in (*NIGHT, PLANNED))
    assert not any(statements(heading) for heading in WITHOUT_STATEMENTS)


def test_what_is_typed_at_night(db: Db, connect: Connect) -> None:
    db.execute("CALL prepare_rollout('minilm', 'v2')")
    db.execute("SELECT rollout_model('minilm', 'v2')")
    back, forth = statements("Take it back now")
    answer = fetch_value(db, back)
    shown = re.search(r"^\{.*\}$", section("Take it back now"), re.MULTILINE)
    assert shown and json.loads(shown[0]).keys() == answer.keys()
    assert traffic(db) == ("v1", "v1", None, None)
    db.execute("SELECT count(*) FROM semantic_search('public.note.body', 'note number 7', 3)")
    assert fetch_value(db, forth)["state"] == "promoted"

    state, history, calls, health = (db.execute(s).fetchall() for s in statements("What is going on"))
    assert state == [("minilm", "v2", "v2", None, None, None, None)]
    assert history[1][2:6] == ("version", "v1", "v2", "the rollback was a mistake")
    assert [row[4] for row in health if row[1] == "fail"] == [] and calls is not None

    tick, who, end = statements("Plain `embed()` lags behind")
    forgotten = connect(autocommit=False)
    forgotten.execute("SELECT count(*) FROM note_body_embedding")
    assert fetch_value(db, back)["embed_ms"] is None
    assert traffic(db)[:2] == ("v1", "v2")
    db.execute(tick)
    assert [row[0] for row in db.execute(who).fetchall()] == [forgotten.info.backend_pid]
    assert db.execute(end.replace("1 hour", "1 ms")).fetchall() == [(True,)]
    db.execute(tick)
    assert traffic(db)[:2] == ("v1", "v1")

    db.execute("SELECT rollout_model('minilm', 'v2', 20)")
    explain, less, none = statements("A rollout runs")
    assert json.loads(fetch_value(db, explain))["share"] == 2000
    assert fetch_value(db, less)["percent"] == 1
    assert fetch_value(db, none)["to"] == "v1"
    db.execute("SELECT rollout_model('minilm', 'v2', 5)")
    away, again = statements("Paused")
    db.execute(away)
    assert traffic(db)[2] is None
    assert fetch_value(db, again)["percent"] == 5
    for statement in statements("Give a prepared version up"):
        db.execute(statement)
    left = db.execute("SELECT version, role FROM pgml_tune.embedding_collections").fetchall()
    assert left == [("v1", "serving")]


def test_the_planned_way_ends_with_one_set_of_vectors(db: Db) -> None:
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    answers: dict[str, Any] = {}
    for statement in statements(PLANNED):
        cursor = db.execute(statement)
        answers[statement] = cursor.fetchall() if cursor.description else None
    assert any("recall@10" in notice for notice in notices)
    given = [rows[0][0] for statement, rows in answers.items() if "rollout_model(" in statement]
    assert [done["percent"] for done in given] == [5, 5, 25, 25, 100]
    assert given[0]["missing"] == [] and given[-1]["state"] == "promoted"
    assert {row[2] for rows in answers.values() if rows and len(rows[0]) == 7 for row in rows} >= {"requests"}
    left = db.execute("SELECT version, role FROM pgml_tune.embedding_collections").fetchall()
    assert left == [("v2", "serving")]
    with refused("55000") as failure:
        db.execute("SELECT rollback_model('minilm')")
    assert "no collection" in str(failure.value) and "has vectors of" in str(failure.value)


def test_refusals_read_as_listed(db: Db, connect: Connect) -> None:
    db.execute("CREATE TABLE own (id integer PRIMARY KEY, e vector(384))")
    db.execute("SELECT grant_operate('bob')")
    bob = connect(user="bob")
    listed = section("When it is refused")
    seen = []
    for session, statement, words in (
        (db, "SELECT rollout_model('minilm', 'v2', 5)", (NOT_READY, "A collection has no vectors of it")),
        (bob, "CALL prepare_rollout('minilm', 'v2')", ("must be owner",)),
        (db, "SELECT rollout_model('minilm', 'v1')", ('serves model "minilm" already',)),
        (db, "SELECT rollout_model('minilm', 'v1', 0)", ("percent is 0, valid are 1 to 100",)),
        (db, "CALL prepare_rollout('minilm', 'v2')", ()),
        (db, "SELECT rollout_model('minilm', 'v2', 5)", (NOT_READY, "A column may hold vectors of the model")),
        (db, "SELECT rollout_model('minilm', 'v2', 5, '{\"untracked\": \"accept\"}')", ()),
        (db, "SELECT rollout_model('minilm', 'v1-int8', 5)", ('a rollout of model "minilm" to version', "is running")),
    ):  # fmt: skip
        if not words:
            session.execute(statement)
            continue
        with pytest.raises(psycopg.Error) as failure:
            session.execute(statement)
        text = f"{failure.value.diag.message_primary} {failure.value.diag.message_detail}"
        assert all(word in text for word in words), text
        seen += [word for word in words if word in listed]
        assert set(words) <= set(seen)
    # Those that take a race or a bad index are looked up where they are raised.
    source = "".join(path.read_text() for path in (CHECKOUT / "python" / "pgml_tune" / "service").glob("*.py"))
    for words in ("has changed meanwhile", "collections are not as good as they have to be"):
        assert words in source and words in listed


def test_guardrails_are_listed_with_their_defaults() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", section("Guardrails"), re.MULTILINE)
    listed = {
        name.strip("`"): None if value == "none" else float(value)
        for names, values in rows
        for name, value in zip(names.split(", "), values.split(", "), strict=True)
    }
    assert listed == asdict(Guardrails())
