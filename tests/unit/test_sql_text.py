"""SQL that models have written, as text."""

import pytest

from pgml_tune.service.schema import Column, Schema, Table
from pgml_tune.service.sql_text import mask, mask_reason, names_unknown, parts, tidy

SCHEMA = Schema(
    (
        Table("state", (Column("state_name", "text"), Column("area", "real"))),
        Table('geo."My Table"', (Column('"Ab"', "text"),)),
    )
)


@pytest.mark.parametrize(
    ("output", "statement"),
    [
        ("select state_name from state;", "SELECT state_name FROM state"),
        ("```sql\nSELECT 1\n```", "SELECT 1"),
        ("Sure! Here it is: SELECT 1 ;; ", "SELECT 1"),
        ("SELECT `a b` FROM `t`", 'SELECT "a b" FROM "t"'),
        ("SELECT a -- why\nFROM t /* where */", "SELECT a FROM t"),
        ("(SELECT 1) UNION (SELECT 2)", "(SELECT 1) UNION (SELECT 2)"),
        ("WITH a AS (SELECT 1 AS b) SELECT b FROM a", "WITH a AS (SELECT 1 AS b) SELECT b FROM a"),
    ],
)
def test_tidy_keeps_the_statement_alone(output: str, statement: str) -> None:
    assert tidy(output) == statement


@pytest.mark.parametrize("output", ["", "DROP TABLE t", "COPY t TO 'f'", "SELECT 1; SELECT 2", "SELECT FROM WHERE (("])
def test_tidy_leaves_to_the_server_what_it_cannot_read(output: str) -> None:
    assert tidy(output) == output


def test_tidy_survives_what_is_too_deep_or_too_long() -> None:
    for output in ("SELECT " + "(" * 9000 + "1" + ")" * 9000, "SELECT " + "1 + " * 100_000 + "1"):
        assert tidy(output) == output


def test_mask_shows_what_may_be_read_and_what_was_said() -> None:
    sql = """SELECT t1.state_name, COUNT(*) FROM state AS t1 JOIN geo."My Table" ON "Ab" = 'Ohio' WHERE area > 3"""
    assert mask(sql, SCHEMA, ["Where is ohio?"]) == sql


def test_mask_hides_every_other_name_and_text() -> None:
    sql = """SELECT s.salary AS pay FROM hr.staff AS s WHERE "Boss" = 'bob' AND x IN ($$eve$$, 'o''neil') -- secret"""
    shown = mask(sql, SCHEMA, [])
    assert shown == """SELECT s.? AS ? FROM ?.? AS s WHERE ? = '?' AND x IN (?, '?') -- ?"""


def test_mask_hides_names_in_what_cannot_be_parsed() -> None:
    assert mask("SELECT salary FROM 'staff WHERE", SCHEMA, []) == "SELECT ? FROM '?'"


def test_mask_reason_hides_what_is_quoted() -> None:
    assert mask_reason('column "state.area" must appear in the GROUP BY', SCHEMA, []) == (
        'column "state.area" must appear in the GROUP BY'
    )
    assert mask_reason('syntax error at or near "staff"', SCHEMA, []) == "syntax error at or near ?"
    assert mask_reason("function hr.pay(text) does not exist", SCHEMA, []) == "function ?.?(text) does not exist"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a.state_name AS z FROM state AS a ORDER BY z",
        "WITH q AS (SELECT area AS b FROM state) SELECT q.b FROM q",
        'SELECT "Ab" FROM geo."My Table"',
        "SELECT x.y FROM (SELECT area AS y FROM state) AS x",
        "SELECT v FROM generate_series(1, 3) AS v",
        "SELECT c FROM (VALUES (1)) AS t(c)",
        "SELECT COUNT(state) FROM state",
        "SELECT FROM WHERE",
    ],
)
def test_names_of_the_schema_and_of_the_statement_are_known(sql: str) -> None:
    assert not names_unknown(sql, SCHEMA)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM staff",
        "SELECT salary FROM state",
        "SELECT * FROM other.state",
        'SELECT Ab FROM geo."My Table"',
        "SELECT area FROM state WHERE area IN (SELECT pay FROM staff)",
        "SELECT * FROM staff AS staff GROUP BY 1",
        "WITH q AS (SELECT 1) SELECT * FROM q.staff",
        'SELECT m.area FROM geo."My Table" AS m, state AS s',
        'SELECT area FROM geo."My Table"',
        "SELECT (NULL::staff).* FROM state",
    ],
)
def test_other_names_are_unknown(sql: str) -> None:
    assert names_unknown(sql, SCHEMA)


def test_parts_of_names_are_as_the_server_understands_them() -> None:
    assert parts('Geo."My ""odd"".Table"') == ("geo", 'My "odd".Table')
