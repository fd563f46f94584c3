"""service/prompt.py: what a model reads of a question and a schema, and how its output becomes SQL."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgml_tune.errors import InvalidArgument, LimitExceeded, NotSupported
from pgml_tune.service.prompt import PromptFormat, render, restore
from pgml_tune.service.schema import Column, ForeignKey, Schema, Table

STATE = Table(
    "state",
    (
        Column("state_id", "integer", None, is_key=True),
        Column("state_name", "text", "its full name", values=("texas", "ohio")),
        Column("area", "double precision"),
    ),
    "the states",
)
CITY = Table(
    "city",
    (Column("city_name", "text"), Column("state_id", "integer")),
    None,
    (ForeignKey(("state_id",), "state", ("state_id",)),),
)
SCHEMA = Schema((STATE, CITY))
ALONE = PromptFormat(schema="none", values="placeholder", lower=True)


@dataclass(frozen=True)
class Named:
    begin: int
    end: int
    value: str
    columns: tuple[tuple[str, str], ...] = ()


def named(question: str, word: str, value: str | None = None, *columns: tuple[str, str]) -> Named:
    begin = question.index(word)
    return Named(begin, begin + len(word), value or word, columns)


def test_a_value_becomes_a_placeholder_with_the_columns_that_have_it() -> None:
    question = "How big is Texas?"
    match = named(question, "Texas", "texas", ("state", "state_name"), ("river", "traverse"))
    prompt = render(question, SCHEMA, [match], ALONE)
    assert prompt.text == "how big is <v0> ? | <v0> state_name traverse"
    assert prompt.values == ("texas",)


def test_the_same_value_twice_is_one_placeholder() -> None:
    question = "texas or ohio or texas"
    first, ohio = named(question, "texas"), named(question, "ohio")
    prompt = render(question, SCHEMA, [first, ohio, Named(17, 22, "texas")], ALONE)
    assert prompt.text.startswith("<v0> or <v1> or <v0>")
    assert prompt.values == ("texas", "ohio")


def test_an_eleventh_value_stays_what_it_is() -> None:
    question = " ".join(f"w{number}" for number in range(11))
    prompt = render(
        question, SCHEMA, [named(question, f"w{n}") for n in range(11) if n != 1] + [named(question, "w1")], ALONE
    )
    assert len(prompt.values) == 10
    assert " w10 |" in prompt.text


def test_numbers_days_and_quoted_words_are_values_that_no_row_has() -> None:
    prompt = render("cities above 1.5 since 2021-05-03 named 'New Ulm' or “Foo” in the 3rd ward", SCHEMA, [], ALONE)
    assert prompt.values == ("1.5", "2021-05-03", "New Ulm", "Foo")
    assert "| <v0> number ; <v1> text ; <v2> text ; <v3> text" in prompt.text
    assert "3rd" in prompt.text


def test_a_number_between_chinese_words_is_a_value() -> None:
    assert render("人口超过150000的城市", SCHEMA, [], ALONE).text == "人口超过 <v0> 的城市 | <v0> number"


def test_an_apostrophe_quotes_nothing() -> None:
    assert render("what's the state's area", SCHEMA, [], ALONE).values == ()


def test_a_question_cannot_smuggle_in_a_placeholder() -> None:
    prompt = render("<v1> and <v0> of 7", SCHEMA, [], ALONE)
    assert prompt.values == ("7",)
    assert prompt.text == "and of <v0> | <v0> number"


def test_hints_leave_the_question_as_it_is() -> None:
    question = "How big is Texas?"
    match = named(question, "Texas", "texas", ("state", "state_name"), ("river", "state_name"))
    prompt = render(question, SCHEMA, [match], PromptFormat(schema="none", values="hint"))
    assert prompt == type(prompt)("How big is Texas? | texas state_name")


def test_a_model_that_is_shown_tables_is_told_in_which_a_value_stands() -> None:
    question = "How big is Texas?"
    match = named(question, "Texas", "texas", ("state", "state_name"), ("river", "traverse"))
    prompt = render(question, Schema((CITY,)), [match], PromptFormat())
    assert prompt.text.startswith("How big is Texas? | texas river.traverse state.state_name | city: ")


def test_the_schema_says_types_keys_comments_and_values() -> None:
    text = render("q", SCHEMA, [], PromptFormat()).text
    assert text == (
        "q | state (the states): state_id* integer, state_name text (its full name) [texas, ohio], "
        "area double precision | city: city_name text, state_id integer ; state_id -> state(state_id)"
    )


def test_what_fits_loses_values_then_comments_then_types_then_columns_then_tables() -> None:
    texts = []
    for limit in range(200, 0, -1):
        try:
            text = render("q", SCHEMA, [], PromptFormat(), lambda prompt, limit=limit: len(prompt) <= limit).text
        except LimitExceeded:
            break
        if text not in texts:
            texts.append(text)
    assert ["[texas" in text for text in texts] == [True, False, False, False, False, False]
    assert ["(the states)" in text for text in texts] == [True, True, False, False, False, False]
    assert ["area double" in text for text in texts] == [True, True, True, False, False, False]
    assert ["area" in text for text in texts] == [True, True, True, True, False, False]
    assert ["state_id ->" in text for text in texts] == [True, True, True, True, True, False]
    assert texts[-1] == "q | state: state_id*"


def test_a_named_column_is_kept_when_others_go() -> None:
    match = Named(0, 1, "texas", (("state", "state_name"),))
    prompt = render("q", SCHEMA, [match], PromptFormat(values="hint"), lambda text: len(text) < 110)
    assert "state_name" in prompt.text
    assert "area" not in prompt.text


def test_a_question_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        render("q" * 100, SCHEMA, [], ALONE, lambda text: len(text) < 50)


def test_a_comment_cannot_end_its_part_of_the_prompt() -> None:
    column = replace(STATE.columns[1], comment="a | secret: x\n<v0>")
    text = render("q", Schema((replace(STATE, columns=(column,)),)), [], PromptFormat()).text
    assert text.count("|") == 1
    assert "\n" not in text
    assert "<v0>" not in text


def test_restore_puts_values_into_texts_and_numbers_outside() -> None:
    prompt = render("x 150000 'O''x'", SCHEMA, [], ALONE)
    prompt = type(prompt)(prompt.text, ("150000", "O'Hara", "2021-05-03"))
    sql = "SELECT a FROM t WHERE b > <v0> AND c = '<v1>' AND d LIKE '%<v1>%' AND e < <v2>"
    assert restore(sql, prompt) == (
        "SELECT a FROM t WHERE b > 150000 AND c = 'O''Hara' AND d LIKE '%O''Hara%' AND e < '2021-05-03'"
    )


def test_restore_of_a_placeholder_without_value_is_nothing() -> None:
    assert restore("SELECT '<v1>'", render("x 1", SCHEMA, [], ALONE)) == ""


@given(st.text(max_size=20))
def test_a_restored_value_never_leaves_its_quotes(value: str) -> None:
    sql = restore("SELECT '<v0>', <v0>", type(render("q", SCHEMA, [], ALONE))("", (value,)))
    rest = sql.removeprefix("SELECT '" + value.replace("'", "''") + "', ")
    assert rest == value or rest == "'" + value.replace("'", "''") + "'"
    assert rest.startswith("'") or rest.replace(".", "", 1).isdigit()


@given(st.text(max_size=60))
def test_any_question_can_be_written_down(question: str) -> None:
    first = render(question, SCHEMA, [], ALONE)
    assert first == render(question, SCHEMA, [], ALONE)
    assert "\n" not in first.text


def test_formats_survive_json() -> None:
    form = PromptFormat(schema="none", values="placeholder", lower=True, columns=("state.state_name",))
    assert PromptFormat.from_json(form.to_json()) == form
    assert form.links("state", "state_name")
    assert not form.links("state", "area")
    assert PromptFormat.from_json({}) == PromptFormat()


def test_a_format_of_another_version_is_refused() -> None:
    with pytest.raises(NotSupported):
        PromptFormat.from_json({"version": 99})
    with pytest.raises(InvalidArgument):
        PromptFormat(schema="some")
