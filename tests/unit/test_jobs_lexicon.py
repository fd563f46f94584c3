"""jobs/lexicon.py: what questions call the values of tables, learnt from their SQL."""

from __future__ import annotations

from pgml_tune.jobs.lexicon import Example, learn_lexicon
from pgml_tune.service.value_links import index, link
from tests.unit.sql_shop import CITIES, pairs

CITY_INDEX = index([("customer", "city", city) for city in CITIES])


def examples(rows: list[tuple[str, str]], values=CITY_INDEX) -> list[Example]:
    return [
        Example(question, frozenset(text for text in values if f"'{text}'" in sql), values) for question, sql in rows
    ]


def test_names_in_another_language_are_learnt() -> None:
    lexicon = learn_lexicon(examples(pairs(chinese=True)))
    assert lexicon["巴黎"] == "paris"
    assert lexicon["奥斯陆"] == "oslo"
    assert lexicon["纽约"] == "new york"
    assert set(lexicon.values()) == set(CITIES)


def test_what_was_learnt_is_found_in_new_questions() -> None:
    lexicon = learn_lexicon(examples(pairs(chinese=True)))
    assert [match.value for match in link("从维也纳到雅典要多久", CITY_INDEX, lexicon)] == ["vienna", "athens"]


def test_nothing_is_learnt_where_questions_name_the_values_themselves() -> None:
    assert learn_lexicon(examples(pairs())) == {}


def test_a_value_that_hides_another_is_none() -> None:
    values = index([("river", "name", "ohio"), ("river", "name", "red"), ("low", "point", "ohio river")])
    rows = [("how long is the ohio river", "... 'ohio'"), ("how long is the red river", "... 'red'")]
    lexicon = learn_lexicon(examples(rows, values))
    assert lexicon["ohio river"] == ""
    assert [match.value for match in link("is the ohio river long", values, lexicon)] == ["ohio"]


def test_a_value_that_is_meant_somewhere_stays_one() -> None:
    values = index([("river", "name", "ohio"), ("low", "point", "ohio river")])
    rows = [("how long is the ohio river", "... 'ohio'"), ("which state is lowest at ohio river", "... 'ohio river'")]
    assert "ohio river" not in learn_lexicon(examples(rows, values))


def test_a_name_that_begins_another_is_told_from_it() -> None:
    values = index([("state", "name", "virginia"), ("state", "name", "west virginia"), ("state", "name", "texas")])
    names = {"virginia": "弗吉尼亚", "west virginia": "西弗吉尼亚", "texas": "得克萨斯"}
    templates = ("{}有多大", "{}的首府是什么", "哪些河流流经{}", "有多少人住在{}")
    rows = [(text.format(name), f"... '{value}'") for text in templates for value, name in names.items()]
    lexicon = learn_lexicon(examples(rows, values))
    for value, name in names.items():
        assert [match.value for match in link(f"{name}在哪里", values, lexicon)] == [value]


def test_no_rows_teach_nothing() -> None:
    assert learn_lexicon([]) == {}
