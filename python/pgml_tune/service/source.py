"""Which tables can be kept embedded, and how a HINT names them."""

from __future__ import annotations

from pgml_tune.errors import (
    DatatypeMismatch,
    NotReady,
    NotSupported,
    PermissionDenied,
    UndefinedColumn,
    WrongObjectType,
)
from pgml_tune.store.collection import SourceFacts


def check_source(facts: SourceFacts, source: str, column: str) -> None:
    """Refuse a table whose changes cannot be followed, with the reason."""
    if facts.kind not in ("r", "p") or facts.is_temporary or facts.is_ours:
        raise WrongObjectType(
            f"{source} is not a table that can be kept embedded",
            detail="It has to be a permanent table of yours, partitioned or not.",
        )
    if not facts.is_owner:
        raise PermissionDenied(f"must be owner of table {source}", hint=f"SET ROLE {facts.owner}")
    if facts.is_partition:
        raise NotSupported(f"table {source} is a partition", hint=f"SELECT pg_partition_root('{literal(source)}')")
    if facts.is_inherited:
        raise NotSupported(f"table {source} shares rows with another by inheritance", hint="Use a partitioned table.")
    if facts.is_forced:
        raise NotSupported(
            f"row security of table {source} hides rows from its owner, who has to embed them",
            hint=f"ALTER TABLE {source} NO FORCE ROW LEVEL SECURITY",
        )
    if not facts.has_column:
        raise UndefinedColumn(f"table {source} has no column of the name given as source_column")
    if not facts.is_text:
        raise DatatypeMismatch(f'column "{column}" of table {source} is not a text')
    if facts.is_virtual:
        raise NotSupported(f'column "{column}" of table {source} is a virtual generated column')
    if not facts.has_key:
        raise NotReady(
            f"table {source} has no key by which its rows could be told apart",
            detail="It needs a primary key, or a unique index over columns that are NOT NULL, of at most 31 columns"
            f' without column "{column}" itself.',
            hint=f"ALTER TABLE {source} ADD COLUMN {column}_id bigint GENERATED ALWAYS AS IDENTITY UNIQUE"
            if column.isidentifier()
            else f"ALTER TABLE {source} ADD PRIMARY KEY (...)",
        )
    if not facts.owner_may_embed:
        raise PermissionDenied(
            f"{facts.owner}, the owner of table {source}, may not embed",
            detail="The triggers of the table run as its owner.",
            hint=f"SELECT grant_usage('{literal(facts.owner)}')",
        )
    if not facts.owner_may_create:
        raise PermissionDenied(
            f"{facts.owner}, the owner of table {source}, may not create objects in its schema",
            detail="A view and a function for queries of your own are created there.",
            hint=f"GRANT CREATE ON SCHEMA {identifier(facts.schema_name)} TO {facts.owner}",
        )


def literal(text: str) -> str:
    """`text` as it stands between the quotes of a literal."""
    return text.replace("'", "''")


def identifier(name: str) -> str:
    """`name` as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'
