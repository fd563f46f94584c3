"""jobs/sql_synonyms.py: which words may stand for each other."""

from pgml_tune.jobs.sql_synonyms import learn_synonyms


def said(*questions: tuple[str, str]):
    return [(tuple(question.split()), statement) for question, statement in questions]


BIG = said(("how big is V", "area"), ("how large is V", "area"), ("the big states", "all"), ("the large states", "all"))


def test_words_that_ask_for_the_same_in_two_statements_are_synonyms() -> None:
    assert learn_synonyms(BIG) == {"big": ["large"], "large": ["big"]}


def test_one_statement_is_not_enough() -> None:
    assert learn_synonyms(BIG[:2]) == {}


def test_words_that_once_ask_for_something_else_are_none() -> None:
    other = said(("how big is the sea", "depth"), ("how large is the sea", "area"))
    assert learn_synonyms([*BIG, *other]) == {}


def test_a_question_without_a_pair_teaches_nothing() -> None:
    assert learn_synonyms(said(("which states border V", "border"), ("how many people live in V", "people"))) == {}
