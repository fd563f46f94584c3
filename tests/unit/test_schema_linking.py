"""Tables and columns that a question is about."""

from collections.abc import Sequence

from pgml_tune.service.schema import Column, ForeignKey, Schema, Table
from pgml_tune.service.schema_linking import largest_fitting, nearest_first


def table(name: str, *columns: str, keys: tuple[ForeignKey, ...] = (), comment: str | None = None) -> Table:
    return Table(name, tuple(Column(column, "text", None, is_key=column == "id") for column in columns), comment, keys)


SCHEMA = Schema(
    (
        table("audit_log", "id", "entry"),
        table("customer", "id", "name", "city"),
        table("invoice", "id", "total", "customer_id", keys=(ForeignKey(("customer_id",), "customer", ("id",)),)),
        table("shelf", "id", "depth"),
    )
)


def names(schema: Schema) -> list[str]:
    return [found.name for found in schema.tables]


def test_tables_with_words_of_the_question_come_first() -> None:
    assert names(nearest_first("How deep are the shelves? depth of each shelf", SCHEMA, (), None))[0] == "shelf"


def test_a_named_value_brings_its_table_and_those_it_joins() -> None:
    assert names(nearest_first("what about Ada", SCHEMA, [("customer", "name")], None))[:2] == ["customer", "invoice"]


def test_nearness_of_meaning_counts() -> None:
    def near(texts: Sequence[str]) -> list[float]:
        return [0.9 if text.startswith("audit log") else 0.1 for text in texts]

    assert names(nearest_first("谁改过什么", SCHEMA, (), near))[0] == "audit_log"


def test_wide_tables_keep_keys_joins_named_columns_and_the_nearest() -> None:
    wide = table("wide", "id", "ref", "hit", "depth", *(f"c{number}" for number in range(100)),
        keys=(ForeignKey(("ref",), "customer", ("id",)),))  # fmt: skip
    schema = Schema((*SCHEMA.tables, wide))
    ordered = nearest_first("what is the depth of it", schema, [("wide", "hit")], None)
    kept = next(found for found in ordered.tables if found.name == "wide")
    assert [column.name for column in kept.columns][:4] == ["id", "ref", "hit", "depth"]
    assert len(kept.columns) < 30


def test_largest_fitting_takes_as_many_as_fit() -> None:
    tables = [table(f"t{number}", "id") for number in range(100)]
    for most in (1, 2, 3, 50, 99, 100):
        assert len(largest_fitting(tables, lambda schema, most=most: len(schema.tables) <= most).tables) == most


def test_largest_fitting_gives_one_where_none_fits_and_tries_little() -> None:
    tried = []

    def fits(schema: Schema) -> bool:
        tried.append(len(schema.tables))
        return len(schema.tables) <= 5

    assert len(largest_fitting(SCHEMA.tables, lambda schema: False).tables) == 1
    assert len(largest_fitting([table(f"t{number}", "id") for number in range(5000)], fits).tables) == 5
    assert max(tried) <= 8
