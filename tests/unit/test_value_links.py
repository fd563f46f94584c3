"""Values found in questions."""

from pgml_tune.service.value_links import Match, index, link, link_slips, terms

VALUES = index(
    [
        ("state", "state_name", "new york"),
        ("city", "city_name", "new york"),
        ("city", "city_name", "York"),
        ("state", "state_name", "texas"),
        ("city", "state_name", "texas"),
        ("mountain", "mountain_name", "mt. st. helens"),
        ("account", "owner", "Ada  Lovelace"),
        ("person", "gender", "女"),
        ("city", "city_name", "上海"),
        ("word", "word", "in"),
    ]
)


def found(question: str, lexicon: dict[str, str] | None = None) -> list[tuple[str, str]]:
    return [(question[match.begin : match.end], match.value) for match in link(question, VALUES, lexicon)]


def test_link_names_all_columns_of_a_value() -> None:
    (match,) = link("How large is Texas?", VALUES)
    assert match == Match(13, 18, "texas", (("state", "state_name"), ("city", "state_name")))


def test_link_takes_the_longest_value() -> None:
    assert found("rivers of New York") == [("New York", "new york")]
    assert found("rivers of York") == [("York", "York")]


def test_link_keeps_the_order_of_the_question() -> None:
    assert found("is Texas larger than New York or york") == [
        ("Texas", "texas"),
        ("New York", "new york"),
        ("york", "York"),
    ]


def test_link_finds_values_with_punctuation_and_other_spaces() -> None:
    assert found("how high is Mt. St. Helens?") == [("Mt. St. Helens", "mt. st. helens")]
    assert found("what does ada lovelace own") == [("ada lovelace", "Ada  Lovelace")]
    assert found("what does ada   lovelace own") == [("ada   lovelace", "Ada  Lovelace")]


def test_link_finds_values_between_characters_without_spaces() -> None:
    assert found("上海有多少女性？") == [("上海", "上海"), ("女", "女")]


def test_link_follows_the_lexicon_to_values_that_exist() -> None:
    assert found("得克萨斯州有多大", {"得克萨斯州": "Texas"}) == [("得克萨斯州", "texas")]
    assert found("阿拉斯加州有多大", {"阿拉斯加州": "alaska"}) == []


def test_link_looks_into_what_the_lexicon_says_is_no_value() -> None:
    assert found("the New York marathon in Texas", {"new york": ""}) == [("York", "York"), ("Texas", "texas")]


def test_link_leaves_the_words_of_grammar_alone() -> None:
    assert found("in Texas") == [("Texas", "texas")]


def test_positions_hold_where_lower_case_is_longer() -> None:
    question = "İİİ and Texas"
    assert [question[match.begin : match.end] for match in link(question, VALUES)] == ["Texas"]


def test_terms_hold_every_run_of_words() -> None:
    assert terms("New York City") == ["new", "new york", "new york city", "york", "york city", "city"]
    assert "texas" in terms("得克萨斯州有多大", {"得克萨斯州": "Texas"})


def test_terms_of_what_is_no_question_are_few() -> None:
    assert terms("") == terms(" \t\n") == terms("?!'\"%\\") == []
    assert len(terms("上" * 1_000_000)) <= 16
    assert len(terms("a " * 500_000)) < 20
    assert len(terms(" ".join(map(str, range(100_000))))) < 10_000


def test_link_slips_finds_values_with_a_letter_wrong() -> None:
    slips = link_slips("how large is Texs, and New Yorc?", VALUES)
    assert [(match.value, match.begin) for match in slips] == [("new york", 23)]
    assert [match.value for match in link_slips("rivers of texass", VALUES)] == ["texas"]


def test_link_slips_leaves_short_words_and_writing_without_spaces_alone() -> None:
    assert link_slips("a bork works in 上海海 or not", VALUES) == []
