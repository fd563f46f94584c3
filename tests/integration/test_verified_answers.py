"""text_to_sql() where somebody has verified what the answer is."""

from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from sql_script import ask, candidates, open_shop, prompts, say

VERIFIED = "SELECT COUNT(DISTINCT city) FROM customer"
WRITTEN = "SELECT COUNT(*) FROM customer"
EXAMPLES = "SELECT question FROM pgml_tune.sql_examples"


@pytest.fixture
def session(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's session as alice, in schema shop, whose model always writes the same."""
    open_shop(db)
    say(db, [WRITTEN])
    return db


def verify(session: psycopg.Connection[Any], question: str, sql: str, *more: str) -> None:
    """The superuser adds an example, by the search path of alice."""
    session.execute("RESET ROLE")
    session.execute(f"SELECT add_sql_example(%s, %s{', %s' * len(more)})", (question, sql, *more))
    session.execute("SET ROLE alice")


@pytest.mark.parametrize("question", ["how many cities", " How many  CITIES? ", "Please show me how many cities",
                                      "Could you tell me how many cities there are?"])  # fmt: skip
def test_a_verified_question_is_answered_without_the_model(session: psycopg.Connection[Any], question: str) -> None:
    verify(session, "How many cities?", VERIFIED)
    assert ask(session, question) == VERIFIED
    assert prompts(session) == []


@pytest.mark.parametrize("question", ["how many customers", "how many towns", "no cities how many", "有多少城市"])
def test_another_question_is_answered_by_the_model(session: psycopg.Connection[Any], question: str) -> None:
    verify(session, "How many cities?", VERIFIED)
    verify(session, "有多少客户", VERIFIED)
    assert ask(session, question) == WRITTEN


def test_the_setting_keeps_similar_questions_from_being_the_same(session: psycopg.Connection[Any]) -> None:
    verify(session, "How many cities?", VERIFIED)
    session.execute("RESET ROLE")
    session.execute("SELECT configure('sql_example_similarity', '1')")
    session.execute("SET ROLE alice")
    assert ask(session, "Please show me how many cities") == WRITTEN
    assert ask(session, "how many cities") == VERIFIED


def test_candidates_show_the_verified_answer_first(session: psycopg.Connection[Any]) -> None:
    verify(session, "how many cities", VERIFIED)
    found = [(sql, score, valid) for _, sql, score, valid, *_ in candidates(session, "how many cities")]
    assert found == [(VERIFIED, 0, True), (WRITTEN, 0, True)]
    (_, _, score, *_), *_ = candidates(session, "show me how many cities")
    assert -0.2 < score < 0


def test_an_answer_that_is_no_longer_valid_is_neither_given_nor_shown(session: psycopg.Connection[Any]) -> None:
    verify(session, "how many cities", VERIFIED)
    session.execute("RESET ROLE")
    session.execute("ALTER TABLE shop.customer RENAME COLUMN city TO town")
    session.execute("SET ROLE alice")
    assert ask(session, "how many cities") == WRITTEN
    assert [row[1] for row in candidates(session, "how many cities")] == [WRITTEN]


def test_an_answer_from_tables_that_the_asker_may_not_read_is_as_if_it_were_not_there(
    session: psycopg.Connection[Any],
) -> None:
    verify(session, "what do we pay", "SELECT SUM(salary) FROM payroll")
    verify(session, "notes", "SELECT secret_note FROM customer")
    for question in ("what do we pay", "notes"):
        assert ask(session, question) == WRITTEN
        assert [row[1] for row in candidates(session, question)] == [WRITTEN]
    assert session.execute(EXAMPLES).fetchall() == []


def test_an_answer_from_other_tables_than_those_given_is_not_taken(session: psycopg.Connection[Any]) -> None:
    verify(session, "how many cities", VERIFIED)
    say(session, ["SELECT COUNT(*) FROM orders"])
    assert ask(session, "how many cities", tables=["orders"]) == "SELECT COUNT(*) FROM orders"
    assert ask(session, "how many cities", tables=["orders", "customer"]) == VERIFIED


def test_an_answer_by_another_path_is_not_taken(session: psycopg.Connection[Any]) -> None:
    verify(session, "how many cities", VERIFIED)
    session.execute("SET search_path = public, shop")
    assert ask(session, "how many cities") == WRITTEN


def test_an_answer_for_another_model_is_not_taken(session: psycopg.Connection[Any]) -> None:
    session.execute("RESET ROLE")
    session.execute("""
        INSERT INTO pgml_tune.model (name, task, created_by) VALUES ('another', 'text_to_sql', 'postgres')
    """)
    session.execute("""
        INSERT INTO pgml_tune.model_version (model_id, version, state, artifact_sha256, space_id, dimensions,
            max_tokens, storage, bytes, is_batch_invariant, metrics, source, created_by)
        SELECT m.model_id, 'v1', 'ready', v.artifact_sha256, v.space_id, v.dimensions, v.max_tokens, v.storage, v.bytes,
               v.is_batch_invariant, v.metrics, v.source, v.created_by
        FROM pgml_tune.model AS m, pgml_tune.model_version AS v WHERE m.name = 'another' LIMIT 1
    """)
    session.execute("SET ROLE alice")
    verify(session, "how many cities", VERIFIED, "another")
    assert ask(session, "how many cities") == WRITTEN
    verify(session, "how many cities", VERIFIED, "scripted")
    assert ask(session, "how many cities") == VERIFIED


def test_every_question_is_logged_and_its_correction_becomes_a_row_to_train_on(
    session: psycopg.Connection[Any], connect: Connect
) -> None:
    session.execute("RESET ROLE")
    session.execute("SELECT configure('log_sample', '0')")
    session.execute("SET ROLE alice")
    assert ask(session, "how many cities") == WRITTEN
    session.execute("SELECT record_feedback(last_call_id(), expected => %s, input => 'how many cities')", (VERIFIED,))
    rows = "SELECT question, sql, schema, origin, model, given_by FROM pgml_tune.sql_training_rows"
    expected = [("how many cities", VERIFIED, "shop, public", "feedback", "scripted", "alice")]
    assert connect("olga").execute(rows).fetchall() == expected
    with refused("42501"):
        connect("bob").execute("SELECT record_feedback(%s, 0)", (fetch_value(session, "SELECT last_call_id()"),))
