"""Values that no row has."""

from pgml_tune.service.likeness import closest
from pgml_tune.service.schema import Column, Schema, Table
from pgml_tune.service.value_correction import corrected

SCHEMA = Schema(
    (
        Table("state", (Column("state_name", "text"), Column("area", "real"))),
        Table("city", (Column("city_name", "text"), Column("state_name", "text"))),
        Table('geo."River"', (Column('"Name"', "text"),)),
    )
)
VALUES = {
    ("state", "state_name"): ["texas", "ohio", "new york"],
    ("city", "city_name"): ["Austin", "New York"],
    ("city", "state_name"): ["texas"],
    ('geo."River"', '"Name"'): ["Rio Grande"],
}


def beside(table: str, column: str, text: str) -> list[str] | None:
    values = VALUES.get((table, column))
    return None if values is None or text in values else values


def fixed(sql: str) -> str | None:
    return corrected(sql, SCHEMA, beside)


def test_a_text_that_a_row_has_stays() -> None:
    assert fixed("SELECT area FROM state WHERE state_name = 'texas'") is None


def test_other_case_and_spaces_are_corrected() -> None:
    assert fixed("SELECT area FROM state WHERE state_name = 'New  York'") == (
        "SELECT area FROM state WHERE state_name = 'new york'"
    )


def test_a_close_text_is_corrected_and_a_far_one_not() -> None:
    assert fixed("SELECT area FROM state AS s WHERE 'texes' = s.state_name") == (
        "SELECT area FROM state AS s WHERE 'texas' = s.state_name"
    )
    assert fixed("SELECT area FROM state WHERE state_name = 'bavaria'") is None


def test_lists_and_inner_queries_are_corrected() -> None:
    assert fixed("SELECT 1 FROM city WHERE city_name IN ('austin', 'New York')") == (
        "SELECT 1 FROM city WHERE city_name IN ('Austin', 'New York')"
    )
    inner = "SELECT 1 FROM city AS c WHERE s.state_name = '{}' AND c.city_name <> '{}'"
    outer = f"SELECT 1 FROM state AS s WHERE EXISTS({inner})"
    assert fixed(outer.format("Ohio", "AUSTIN")) == outer.format("ohio", "Austin")


def test_quoted_names_are_found() -> None:
    assert fixed("""SELECT 1 FROM geo."River" AS r WHERE r."Name" = 'rio grande'""") == (
        """SELECT 1 FROM geo."River" AS r WHERE r."Name" = 'Rio Grande'"""
    )
    assert fixed("SELECT 1 FROM geo.river AS r WHERE r.name = 'rio grande'") is None


def test_a_name_that_two_tables_have_is_left_alone() -> None:
    assert fixed("SELECT 1 FROM state, city WHERE state_name = 'Texas'") is None


def test_what_is_no_statement_is_left_alone() -> None:
    assert fixed("") is fixed("SELECT") is fixed("DROP TABLE state") is fixed("SELECT 1; SELECT 2") is None


def test_closest_compares_writing_without_spaces() -> None:
    assert closest("德克萨斯", ["得克萨斯", "俄亥俄"]) == "得克萨斯"
    assert closest("上海", ["北京"]) is None
    assert closest("x", []) is None
    assert closest("texsa", ["texas"]) == closest("txas", ["texas"]) == closest("texxas", ["texas"]) == "texas"
    assert closest("male", ["tale", "female"]) == "tale"
    assert closest("red", ["bed"]) is None


def test_another_number_is_another_thing() -> None:
    assert closest("name number 55", ["name number 5", "name number 555", "name number 56"]) is None
    assert closest("nane number 55", ["name number 5", "name number 55"]) == "name number 55"
