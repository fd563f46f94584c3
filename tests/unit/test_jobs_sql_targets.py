"""jobs/sql_targets.py: SQL as a model is to write it."""

from __future__ import annotations

from pgml_tune.jobs.sql_targets import SqlTarget
from pgml_tune.service.prompt import Prompt, restore


def parsed(sql: str) -> SqlTarget:
    target = SqlTarget.parse(sql)
    assert target is not None
    return target


def test_the_normal_form_of_equal_statements_is_equal() -> None:
    assert parsed("select  a from t\nwhere b='x' -- why").text == parsed("SELECT a FROM t WHERE b = 'x'").text


def test_two_statements_are_none() -> None:
    assert SqlTarget.parse("SELECT 1; SELECT 2") is None


def test_what_is_no_sql_is_none() -> None:
    assert SqlTarget.parse("SELECT FROM WHERE (") is None


def test_texts_are_found_with_the_columns_they_are_compared_with() -> None:
    sql = "SELECT a FROM t WHERE b = 'X' AND c IN ('y', 'z') AND d IN (SELECT e FROM u WHERE f LIKE 'x')"
    assert parsed(sql).compared() == {"x": {"b", "f"}, "y": {"c"}, "z": {"c"}}


def test_a_quoted_column_is_named_with_its_quotes() -> None:
    assert parsed("SELECT 1 FROM t WHERE \"My Column\" = 'x'").compared() == {"x": {'"My Column"'}}


def test_placeholders_stand_for_texts_and_numbers_and_come_back() -> None:
    target = parsed("SELECT a FROM t WHERE b = 'O''Hara' AND c > 150000 LIMIT 3")
    values = ("O'Hara", "150000", "3")
    written = target.with_placeholders(values)
    assert written == "SELECT a FROM t WHERE b = <v0> AND c > <v1> LIMIT <v2>"
    assert restore(written, Prompt("", values)) == target.text


def test_a_value_in_other_letters_is_the_same() -> None:
    assert parsed("SELECT a FROM t WHERE b = 'TEXAS'").with_placeholders(("texas",)).endswith("= <v0>")


def test_a_number_that_is_a_text_keeps_its_quotes() -> None:
    target = parsed("SELECT a FROM t WHERE zip = '07'")
    assert restore(target.with_placeholders(("07",)), Prompt("", ("07",))) == target.text


def test_other_values_stay() -> None:
    sql = "SELECT a FROM t WHERE b = 'x' AND c > 750"
    assert parsed(sql).with_placeholders(("y", "7")) == sql
