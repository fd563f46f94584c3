"""Verified examples: who adds, finds and sees them, and corrections that become rows to train on."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from dumping import restored_copy

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.customer (id integer PRIMARY KEY, name text, city text, phone text);
CREATE TABLE shop.salary (id integer PRIMARY KEY, amount numeric);
INSERT INTO shop.customer VALUES (1, 'Ann', 'Berlin', '1'), (2, 'Bob', 'Paris', '2');
GRANT USAGE ON SCHEMA shop TO alice, olga, adam;
GRANT SELECT (id, name, city) ON shop.customer TO alice;
GRANT SELECT ON shop.customer, shop.salary TO olga, adam
"""
COUNT = "SELECT count(*) FROM customer"
ADD = "SELECT add_sql_example(%s, %s)"
FIND = "SELECT sql, similarity FROM pgml_tune._find_sql_examples(%s, NULL, NULL, NULL, 'm', %s, NULL, 4)"
LOG_CALL = """
INSERT INTO pgml_tune.call_log (logged_at, call_id, task, model, version, texts, input_bytes, output_count, cache,
    latency_ms, is_cold, is_fallback, sample_rate, role_id, input_text)
VALUES (now(), %s, 'text_to_sql', 'writer', 'v1', 1, 10, 1, 'miss', 5, false, false, 1, %s::regrole, %s)
"""
CORRECT = "SELECT record_feedback(%s, expected => %s, input => %s)"
TRAINING = "SELECT question, sql, schema, origin, model, given_by FROM pgml_tune.sql_training_rows ORDER BY question"


@pytest.fixture
def shop(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    for statement in SHOP.split(";\n"):
        db.execute(statement)
    db.execute("SELECT configure('log_sample', '0')")
    return db


@pytest.fixture
def olga(shop: psycopg.Connection[Any], connect: Connect) -> psycopg.Connection[Any]:
    return in_shop(connect, "olga")


@pytest.fixture
def alice(shop: psycopg.Connection[Any], connect: Connect) -> psycopg.Connection[Any]:
    return in_shop(connect, "alice")


def in_shop(connect: Connect, role: str) -> psycopg.Connection[Any]:
    session = connect(role)
    session.execute("SET search_path = shop, public")
    return session


def found(session: psycopg.Connection[Any], question: str, path: str = "shop, public") -> list[str]:
    """The SQL of the examples of a question, which is in its normal form."""
    return [row[0] for row in session.execute(FIND, (question, path)).fetchall()]


def asked(session: psycopg.Connection[Any], question: str) -> list[tuple[str, float]]:
    """The SQL of the examples that text_to_sql() would be given, with their similarity."""
    near = """
        SELECT sql, similarity
        FROM pgml_tune._find_sql_examples(NULL, public.embed(%s, kind => 'query')::text, (
            SELECT model_version_id FROM pgml_tune.model_version WHERE version = 'v1'
        ), -1, 'm', 'shop, public', NULL, 4)
    """
    return session.execute(near, (question,)).fetchall()


def test_an_example_is_found_by_its_question(olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]) -> None:
    olga.execute(ADD, ("  How many customers are there? ", f"{COUNT};"))
    assert found(alice, "how many customers are there") == [COUNT]
    assert found(alice, "how many customers") == []
    row = alice.execute("SELECT question, sql, search_path, model, is_embedded, created_by FROM pgml_tune.sql_examples")
    assert row.fetchone() == ("  How many customers are there? ", COUNT, "shop, public", None, True, "olga")


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("SELECT nothing FROM customer", "22023"), ("SELECT * FROM nowhere", "22023"),
        ("DELETE FROM customer", "22023"),
        ("SELECT 1; DROP TABLE shop.customer", "22023"), ("SELECT pg_sleep(1)", "22023"), ("", "22023"),
        (" ;", "22023"), (None, "22023"), ("SELECT 1 FROM customer FOR UPDATE", "22023"),
    ],
)  # fmt: skip
def test_sql_that_text_to_sql_could_not_give_is_refused(
    olga: psycopg.Connection[Any], sql: str | None, state: str
) -> None:
    with refused(state):
        olga.execute(ADD, ("how many customers", sql))
    assert fetch_value(olga, "SELECT count(*) FROM pgml_tune.sql_examples") == 0


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ("NULL, 'SELECT 1'", "22023"), ("'', 'SELECT 1'", "22023"), ("' ?!', 'SELECT 1'", "22023"),
        ("repeat('x', 10001), 'SELECT 1'", "54000"), ("'a', 'SELECT ' || repeat('1 + ', 20000) || '1'", "22023"),
        ("'a', 'SELECT 1', 'nothere'", "42704"), ("'a', 'SELECT 1', 'minilm'", "0A000"),
        ("repeat('ﷺ', 5000), 'SELECT 1'", "54000"),
        ("'a', 'SELECT 1', ''", "42704"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_the_book(olga: psycopg.Connection[Any], arguments: str, state: str) -> None:
    with refused(state):
        olga.execute(f"SELECT add_sql_example({arguments})")


def test_an_example_belongs_to_the_path_by_which_it_was_right(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]
) -> None:
    shop.execute("CREATE SCHEMA other")
    shop.execute("GRANT USAGE ON SCHEMA other TO olga")
    olga.execute(ADD, ("how many customers", COUNT))
    assert found(olga, "how many customers", "other, public") == []
    olga.execute("SET search_path = shop, other, nowhere, public")
    olga.execute(ADD, ("how many customers", f"{COUNT} AS c"))
    assert found(olga, "how many customers", "shop, other, public") == [f"{COUNT} AS c"]
    assert found(olga, "how many customers") == [COUNT]


def test_without_a_path_names_are_qualified(olga: psycopg.Connection[Any]) -> None:
    olga.execute("SET search_path = ''")
    olga.execute("SELECT public.add_sql_example('how many customers', 'SELECT count(*) FROM shop.customer')")
    assert found(olga, "how many customers", "") == ["SELECT count(*) FROM shop.customer"]
    assert found(olga, "how many customers") == []


def test_a_path_of_odd_names_is_kept_as_set_takes_it(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]
) -> None:
    shop.execute('CREATE SCHEMA "A, ""b"" c"')
    shop.execute('GRANT USAGE ON SCHEMA "A, ""b"" c" TO olga')
    shop.execute('CREATE TABLE "A, ""b"" c"."T.x" (i integer)')
    shop.execute('GRANT SELECT ON "A, ""b"" c"."T.x" TO olga')
    olga.execute('SET search_path = "A, ""b"" c"')
    olga.execute('SELECT public.add_sql_example(%s, %s)', ("rows of it", 'SELECT i FROM "T.x"'))
    path = fetch_value(olga, "SELECT search_path FROM pgml_tune.sql_examples")
    olga.execute(f"SET search_path = {path}")
    assert fetch_value(olga, "SELECT current_schema()") == 'A, "b" c'
    assert found(olga, "rows of it", path) == ['SELECT i FROM "T.x"']


def test_nobody_finds_or_sees_an_example_whose_table_or_column_he_may_not_read(
    shop: psycopg.Connection[Any], connect: Connect, olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("what do we pay", "SELECT sum(amount) FROM salary"))
    olga.execute(ADD, ("phones in Berlin", "SELECT phone FROM customer WHERE city = 'Berlin'"))
    olga.execute(ADD, ("whole customers", "SELECT customer FROM customer"))
    olga.execute(ADD, ("names in Berlin", "SELECT name FROM customer WHERE city = 'Berlin'"))
    questions = ("what do we pay", "phones in berlin", "whole customers", "names in berlin")
    shown = "SELECT question FROM pgml_tune.sql_examples ORDER BY sql_example_id"
    assert [bool(found(olga, question)) for question in questions] == [True] * 4
    assert [bool(found(alice, question)) for question in questions] == [False, False, False, True]
    assert alice.execute(shown).fetchall() == [("names in Berlin",)]
    assert [row[0] for row in asked(alice, "what do we pay")] == ["SELECT name FROM customer WHERE city = 'Berlin'"]
    bob = in_shop(connect, "bob")  # may use neither the schema nor a table
    assert bob.execute(shown).fetchall() == [] == asked(bob, "names in berlin")
    shop.execute("REVOKE SELECT (city) ON shop.customer FROM alice")
    assert alice.execute(shown).fetchall() == []
    shop.execute("ALTER TABLE shop.customer RENAME TO client")
    assert olga.execute(shown).fetchall() == [("what do we pay",), (None,), (None,), (None,)]


def test_what_can_no_longer_be_read_is_listed_without_its_text_for_whoever_may_drop_it(
    shop: psycopg.Connection[Any], connect: Connect, olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    number = fetch_value(olga, ADD, ("how many customers", COUNT))
    shop.execute("DROP TABLE shop.customer")
    listed = "SELECT sql_example_id, question, sql, is_readable FROM pgml_tune.sql_examples"
    for session in (olga, connect("adam")):
        assert session.execute(listed).fetchall() == [(number, None, None, False)]
    assert alice.execute(listed).fetchall() == []
    assert olga.execute(TRAINING).fetchall() == []
    olga.execute("SELECT drop_sql_example(%s)", (number,))
    assert olga.execute(listed).fetchall() == []


def test_the_tables_of_a_role_are_looked_at_as_the_role_that_is_set(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("what do we pay", "SELECT sum(amount) FROM salary"))
    shop.execute("SET ROLE alice")
    assert found(shop, "what do we pay") == []
    shop.execute("RESET ROLE")
    assert found(shop, "what do we pay") == ["SELECT sum(amount) FROM salary"]


def test_no_function_of_a_reader_sees_rows_that_he_does_not(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("what do we pay", "SELECT sum(amount) FROM salary"))
    shop.execute("CREATE SCHEMA of_alice AUTHORIZATION alice")
    alice.execute("""
        CREATE FUNCTION of_alice.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001
        AS $$ BEGIN RAISE EXCEPTION '%', $1; END $$
    """)
    for view in ("sql_examples", "_readable_sql_examples", "_embedded_sql_examples"):
        assert alice.execute(f"SELECT FROM pgml_tune.{view} WHERE of_alice.leak(sql)").fetchall() == []


def test_only_operators_add_and_nobody_passes_by_the_function_as_another(
    olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    with refused("42501"):
        alice.execute(ADD, ("how many customers", COUNT))
    for statement in (
        "SELECT * FROM pgml_tune.sql_example",
        "DELETE FROM pgml_tune.sql_example",
        "SELECT sql FROM pgml_tune._own_sql_examples",
        "INSERT INTO pgml_tune._own_sql_examples (question, normal_question, sql, search_path, relations, created_by)"
        " VALUES ('a', 'a', 'a', 'a', '[]', 'adam')",
        "UPDATE pgml_tune._own_sql_examples SET created_by = 'adam'",
    ):
        with refused("42501"):
            olga.execute(statement)


def test_the_same_question_again_takes_the_place_of_ones_own_answer(
    shop: psycopg.Connection[Any], connect: Connect, olga: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("how many customers", "SELECT count(name) FROM customer"))
    olga.execute(ADD, ("How many customers?", COUNT))
    in_shop(connect, "adam").execute(ADD, ("how many customers", "SELECT count(id) FROM customer"))
    # Ones own comes first, then that of an administrator, however old.
    assert found(olga, "how many customers") == [COUNT, "SELECT count(id) FROM customer"]
    assert fetch_value(olga, "SELECT sql FROM pgml_tune.sql_training_rows") == COUNT
    shop.execute("GRANT SELECT ON shop.customer TO alice")
    olga.execute(ADD, ("how many customers", "SELECT count(city) FROM customer"))
    expected = ["SELECT count(id) FROM customer", "SELECT count(city) FROM customer"]
    assert found(in_shop(connect, "alice"), "how many customers") == expected


def test_nobody_adds_what_was_not_checked(shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]) -> None:
    example = json.dumps({"question": "a", "normal_question": "a", "sql": "DELETE FROM customer", "path": ["shop"],
                          "relations": [], "role_id": 10})  # fmt: skip
    for seal in (b"", bytes(32), None):
        with refused("42501"):
            olga.execute("SELECT pgml_tune._keep_sql_example(%s, %s)", (example, seal))
    with refused("42501"):
        olga.execute("SELECT pgml_tune._add_sql_example(%s)", (example,))


def test_an_example_with_row_security_is_only_for_whoever_added_it(
    shop: psycopg.Connection[Any], connect: Connect, olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("is Ann from Berlin", "SELECT id FROM customer WHERE name = 'Ann' AND city = 'Berlin'"))
    assert len(found(alice, "is ann from berlin")) == 1
    shop.execute("ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY")
    shop.execute("CREATE POLICY own ON shop.customer USING (name = current_user)")
    assert len(found(olga, "is ann from berlin")) == 1
    assert found(alice, "is ann from berlin") == [] == asked(alice, "is ann from berlin")
    assert alice.execute("SELECT FROM pgml_tune.sql_examples").fetchall() == []
    assert len(found(shop, "is ann from berlin")) == 1  # whoever passes row security sees the rows anyway


def test_an_example_is_dropped_by_whoever_added_it_or_an_administrator(
    shop: psycopg.Connection[Any], connect: Connect, olga: psycopg.Connection[Any]
) -> None:
    shop.execute("DROP ROLE IF EXISTS otto")
    shop.execute("CREATE ROLE otto LOGIN")
    shop.execute("SELECT grant_operate('otto')")
    shop.execute("GRANT USAGE ON SCHEMA shop TO otto")
    shop.execute("GRANT SELECT ON shop.customer TO otto")
    try:
        mine, other = (fetch_value(olga, ADD, (question, COUNT)) for question in ("one", "two"))
        otto = connect("otto")
        with refused("42501"):
            otto.execute("SELECT drop_sql_example(%s)", (mine,))
        olga.execute("SELECT drop_sql_example(%s)", (mine,))
        connect("adam").execute("SELECT drop_sql_example(%s)", (other,))
        for number in (mine, -1, None):
            with refused("42704"):
                olga.execute("SELECT drop_sql_example(%s)", (number,))
    finally:
        otto.close()
        shop.execute("DROP OWNED BY otto")
        shop.execute("DROP ROLE otto")


def test_similar_questions_are_found_best_first_among_the_same_tables(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]
) -> None:
    olga.execute(ADD, ("how many customers are there", COUNT))
    olga.execute(ADD, ("what do we pay in all", "SELECT sum(amount) FROM salary"))
    near = asked(olga, "how many customers do we have")
    assert near[0][0] == COUNT
    assert 0.8 < near[0][1] < 1
    restricted = """
        SELECT sql FROM pgml_tune._find_sql_examples(%s, NULL, NULL, NULL, 'm', 'shop, public', ARRAY[%s::regclass], 4)
    """
    assert olga.execute(restricted, ("how many customers are there", "salary")).fetchall() == []
    assert olga.execute(restricted, ("how many customers are there", "customer")).fetchall() == [(COUNT,)]


def test_maintain_embeds_what_was_added_without_a_model_or_for_another_space(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]
) -> None:
    shop.execute("DELETE FROM pgml_tune.serving")
    olga.execute(ADD, ("how many customers are there", COUNT))
    assert not fetch_value(olga, "SELECT is_embedded FROM pgml_tune.sql_examples")
    olga.execute("CALL maintain()")  # has no model to embed it with
    shop.execute("""
        INSERT INTO pgml_tune.serving (model_id, model, task, model_version_id, version, artifact_sha256, dimensions,
                                       default_of)
        SELECT m.model_id, m.name, m.task, v.model_version_id, v.version, v.artifact_sha256, v.dimensions, m.task
        FROM pgml_tune.model AS m JOIN pgml_tune.model_version AS v USING (model_id) WHERE v.version = 'v1'
    """)
    olga.execute("CALL maintain()")
    assert fetch_value(olga, "SELECT is_embedded FROM pgml_tune.sql_examples")
    shop.execute("UPDATE pgml_tune.sql_example SET space_id = 'another', embedding = '[1,2,3]'")
    assert asked(olga, "how many customers are there") == []
    olga.execute("CALL maintain()")
    assert [sql for sql, _ in asked(olga, "how many customers are there")] == [COUNT]


def test_a_correction_of_an_answer_becomes_a_row_to_train_on(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    shop.execute(LOG_CALL, (1, "alice", None))
    alice.execute(CORRECT, (1, COUNT, "customers?"))
    alice.execute("SELECT record_feedback(1, 1)")
    rows = [("customers?", COUNT, "shop, public", "feedback", "writer", "alice")]
    assert olga.execute(TRAINING).fetchall() == rows
    alice.execute("SET search_path = public, shop")
    alice.execute("SELECT record_feedback(1, expected => 'SELECT 2')")  # the last word, of the question given before
    rows = [("customers?", "SELECT 2", "public, shop", "feedback", "writer", "alice")]
    assert olga.execute(TRAINING).fetchall() == rows


def test_feedback_on_another_task_or_without_a_question_is_no_row_to_train_on(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    shop.execute(LOG_CALL, (1, "alice", None))
    shop.execute(LOG_CALL, (2, "alice", None))
    shop.execute("UPDATE pgml_tune.call_log SET task = 'embed' WHERE call_id = 2")
    alice.execute(CORRECT, (1, COUNT, None))
    alice.execute(CORRECT, (2, COUNT, "customers?"))
    alice.execute(CORRECT, (3, COUNT, "customers?"))
    assert olga.execute(TRAINING).fetchall() == []


def spool_call(home: Path, db: psycopg.Connection[Any], call_id: int, role: str, text: str) -> None:
    """A call as a backend would have written it down that is gone since."""
    values = db.execute(
        "SELECT d.oid, r.oid, (extract(epoch FROM now()) * 1000000)::bigint FROM pg_database AS d, pg_roles AS r"
        " WHERE d.datname = current_database() AND r.rolname = %s",
        (role,),
    ).fetchone()
    assert values is not None
    database, role_id, logged_at = values
    fields = [logged_at, call_id, "text_to_sql", "writer", "v1", *"%%%%%%", 1, 10, *"%%", 1, "miss", "5.0000", "f", "f",
              *"%%%", "1.0000", role_id, *"%%", text]  # fmt: skip
    line = "E\t" + "\t".join(map(str, fields)) + "\n"
    folder = next(path for path in (home / "spool").rglob(str(database)) if path.is_dir())
    node = next(folder.iterdir()).name.rsplit("-", 2)[0]
    (folder / f"{node}-1-1.log").write_text(line)


def test_a_call_that_is_logged_after_its_correction_is_joined_with_it(
    shop: psycopg.Connection[Any],
    olga: psycopg.Connection[Any],
    alice: psycopg.Connection[Any],
    connect: Connect,
    server_home: Path,
) -> None:
    shop.execute("SELECT configure('log_sample', '1')")
    shop.execute("SELECT embed('a text')")  # so that there is a folder
    alice.execute(CORRECT, (4711, COUNT, None))
    connect("bob").execute(CORRECT, (4711, "SELECT 'of bob'", "a question of bob"))
    assert olga.execute(TRAINING).fetchall() == []
    spool_call(server_home, shop, 4711, "alice", "how many?")
    olga.execute("CALL maintain()")
    # What another role says of a call of hers is not joined.
    assert olga.execute(TRAINING).fetchall() == [("how many?", COUNT, "shop, public", "feedback", "writer", "alice")]


def test_the_question_that_is_logged_comes_to_whoever_may_see_it(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any], alice: psycopg.Connection[Any]
) -> None:
    shop.execute(LOG_CALL, (1, "alice", "a logged question"))
    olga.execute(CORRECT, (1, COUNT, None))  # may judge it, not read its text
    assert olga.execute(TRAINING).fetchall() == []
    alice.execute(CORRECT, (1, COUNT, None))
    assert [row[0] for row in olga.execute(TRAINING).fetchall()] == ["a logged question"]


def test_a_dump_brings_examples_back_as_they_were(
    shop: psycopg.Connection[Any], olga: psycopg.Connection[Any], connect: Connect, tmp_path: Path
) -> None:
    olga.execute(ADD, ("how many customers are there", COUNT))
    olga.execute(ADD, ("有多少客户？", COUNT))
    shop.execute("DROP TABLE shop.salary")
    rows = "SELECT e::text FROM pgml_tune.sql_example AS e ORDER BY sql_example_id"
    with restored_copy(shop, connect, tmp_path, "custom") as copy:
        assert copy.execute(rows).fetchall() == shop.execute(rows).fetchall() != []
        assert found(copy, "how many customers are there") == [COUNT]
        copy.execute("SET search_path = shop, public")
        newest = fetch_value(copy, "SELECT max(sql_example_id) FROM pgml_tune.sql_example")
        assert fetch_value(copy, ADD, ("another one", COUNT)) > newest


def test_what_a_relation_reads_is_kept_by_name(shop: psycopg.Connection[Any], olga: psycopg.Connection[Any]) -> None:
    olga.execute(ADD, ("names", "SELECT c.name FROM customer AS c JOIN salary AS s USING (id) WHERE s.amount > 1"))
    relations = fetch_value(shop, "SELECT relations::text FROM pgml_tune.sql_example")
    assert json.loads(relations) == [
        {"schema": "shop", "name": "customer", "columns": ["id", "name"]},
        {"schema": "shop", "name": "salary", "columns": ["amount", "id"]},
    ]
