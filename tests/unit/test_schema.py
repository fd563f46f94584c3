"""Schemas as values."""

from pgml_tune.service.schema import Column, ForeignKey, Schema, Table

SCHEMA = Schema(
    (
        Table("a", (Column("x", "text", "of x", is_key=True, values=("1", "2")),), "all of a"),
        Table('"B"', (Column("y", "int"),), None, (ForeignKey(("y",), "a", ("x",)),)),
    )
)


def test_a_schema_survives_json() -> None:
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA


def test_fingerprints_tell_schemas_apart() -> None:
    again = Schema.from_json(SCHEMA.to_json())
    assert again.fingerprint == SCHEMA.fingerprint
    others = [Schema(()), Schema(SCHEMA.tables[:1]), Schema(SCHEMA.tables[::-1])]
    assert len({SCHEMA.fingerprint, *(other.fingerprint for other in others)}) == 4
