"""A call sees the registry and the settings as its statement sees every row: nothing rolled back, nothing dropped."""

from typing import Any

import psycopg
from conditions import fetch_value, refused

REGISTER = "SELECT register_model('ghost', 'minilm@v1-int8', 'embedding', 'v1')"
EMBED = "SELECT embed('x', 'ghost')"


def test_rolled_back_model_is_not_served_later_in_the_same_message(db: psycopg.Connection[Any]) -> None:
    for end in ("ROLLBACK", "ROLLBACK AND CHAIN"):
        with refused("42704"):
            db.execute(f"BEGIN; {REGISTER}; {EMBED}; {end}; {EMBED}")
        db.execute("ROLLBACK")


def test_rolled_back_setting_is_not_in_force_later_in_the_same_message(db: psycopg.Connection[Any]) -> None:
    db.execute("BEGIN; SELECT configure('max_input_bytes', '3'); SELECT embed('abc'); ROLLBACK; SELECT embed('abcdef')")
    assert fetch_value(db, "SELECT value FROM pgml_tune.settings WHERE name = 'max_input_bytes'") == "1048576"


def test_model_of_a_rolled_back_subtransaction_is_not_served(db: psycopg.Connection[Any]) -> None:
    with refused("42704"):
        db.execute(
            "DO $$ BEGIN BEGIN PERFORM register_model('ghost', 'minilm@v1-int8', 'embedding', 'v1');"
            " PERFORM embed('x', 'ghost'); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END;"
            " PERFORM embed('x', 'ghost'); END $$"
        )


def test_open_cursor_keeps_what_it_sees_and_gives_it_to_nobody_else(db: psycopg.Connection[Any]) -> None:
    db.execute(REGISTER)
    db.execute("BEGIN")
    db.execute("DECLARE c CURSOR FOR SELECT vector_dims(embed('x' || g, 'ghost')) FROM generate_series(1, 3) AS g")
    assert fetch_value(db, "FETCH 1 FROM c") == 384
    db.execute("SELECT drop_model_version('ghost', 'v1')")
    with refused("42704"):
        db.execute(f"FETCH 1 FROM c; {EMBED}")
    db.execute("ROLLBACK")
    assert fetch_value(db, "SELECT vector_dims(embed('x', 'ghost'))") == 384


def test_pointer_that_moves_within_a_block_is_followed_at_once(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE seen (position integer, embedding vector)")
    db.execute(
        """
        DO $$
        DECLARE
            v_model bigint := (SELECT model_id FROM pgml_tune.model WHERE name = 'minilm');
            v_other bigint := (SELECT model_version_id FROM pgml_tune.model_version WHERE version = 'v1-int8');
        BEGIN
            INSERT INTO seen SELECT 1, embed('x');
            PERFORM pgml_tune._move_serving(v_model, v_other, 'test');
            INSERT INTO seen SELECT 2, embed('x');
        END
        $$
        """
    )
    assert fetch_value(db, "SELECT bool_and(s.embedding = embed('x', 'minilm@' || v)) FROM seen AS s"
                           " JOIN (VALUES (1, 'v1'), (2, 'v1-int8')) AS e (n, v) ON e.n = s.position")  # fmt: skip


def test_statement_in_an_older_snapshot_sees_the_older_registry(db: psycopg.Connection[Any], connect: Any) -> None:
    other = connect()
    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    db.execute("SELECT embed('x')")
    other.execute(REGISTER)
    with refused("42704"):
        db.execute(EMBED)
    db.execute("ROLLBACK")
    assert fetch_value(db, "SELECT vector_dims(embed('x', 'ghost'))") == 384
