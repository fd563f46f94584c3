"""When two questions are the same one."""

import pytest

from pgml_tune.service.questions import ask_the_same, normal_form


@pytest.mark.parametrize(
    ("question", "normal"),
    [
        ("How many  customers\nare there?", "how many customers are there"),
        ("“How many customers are there?”", "how many customers are there"),
        ("ＨＯＷ　ＭＡＮＹ", "how many"),
        ("有多少 客户 ？", "有多少客户"),
        ("柏林 Berlin 的客户。", "柏林berlin的客户"),
        ("Straße", "strasse"),
        ("?!", ""),
        (" ", ""),
    ],
)
def test_questions_read_the_same_whatever_their_width_case_spaces_and_marks(question: str, normal: str) -> None:
    assert normal_form(question) == normal


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("how many customers are there", "How many customers do we have?"),
        ("list all customers from Berlin", "show me the customers from Berlin, please"),
        ("which products cost more than 100", "what products cost more than 100"),
        ("有多少客户", "请问有多少客户？"),
        ("列出所有产品", "显示一下产品"),
    ],
)
def test_how_one_asks_makes_no_other_question(a: str, b: str) -> None:
    assert ask_the_same(a, b)
    assert ask_the_same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("orders before 2024", "orders after 2024"),
        ("customers without orders", "orders without customers"),
        ("customers with more than 5 orders", "customers with less than 5 orders"),
        ("customers with more than 5 orders", "customers with more than 6 orders"),
        ("orders placed in May", "orders placed in June"),
        ("customers from Berlin", "customers from Munich"),
        ("customers who are not from Berlin", "customers who are from Berlin"),
        ("orders shipped from Berlin", "orders shipped to Berlin"),
        ("how many customers", "who are the customers"),
        ("products that cost -5", "products that cost 5"),
        ("products under 1.5 euros", "products under 15 euros"),
        ("有多少客户", "有多少订单"),
        ("销量最高的产品", "销量最低的产品"),
        ("没有订单的客户", "有订单的客户"),
        ("who has bought all products", "who has bought products"),
        ("购买过所有产品的客户", "购买过产品的客户"),
        ("show me all", "list all"),
    ],
)
def test_another_word_or_another_order_is_another_question(a: str, b: str) -> None:
    assert not ask_the_same(a, b)
