"""Statements on collections.

A procedure that commits runs them under the search_path of its caller, so they only call functions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database, Session

_FACTS = "SELECT * FROM pgml_tune._source_facts($1::regclass, $2::text, $3::text)"
_FIND = "SELECT pgml_tune._collection_row($1::bigint, $2::text) AS collection"
_ADD = "SELECT pgml_tune._add_collection($1::jsonb) AS collection_id"
_CHANGE = "SELECT pgml_tune._change_collection($1::bigint, $2::text, $3::int, $4::text)"
_BUILD = "SELECT pgml_tune._build_collection($1::bigint)"
_FIND_TEXT_SEARCH = "SELECT pgml_tune._find_text_search($1::text) AS text_search"
_FILL = """
SELECT pgml_tune._fill_collection($1::bigint, 'fill', $2::oid, $3::bigint, $4::bigint, $5::int) AS outcome
"""
_COUNT = "SELECT pgml_tune._fill_collection($1::bigint, 'missing', NULL, NULL, NULL, NULL) AS count"
_DELETE_ORPHANS = "SELECT pgml_tune._fill_collection($1::bigint, 'orphans', NULL, NULL, NULL, NULL)"
_FINISH = "SELECT pgml_tune._finish_collection($1::bigint) AS missing"
_DROP = "SELECT pgml_tune._drop_collection($1::bigint)"
_IDS = "SELECT collection_id FROM pgml_tune._collection_ids() AS c (collection_id)"
_DROP_LOST = "SELECT name FROM pgml_tune._lost_collections() AS c (name)"
_MEND = "SELECT change FROM pgml_tune._mend_collection($1::bigint) AS m (change)"
# Until the next commit. Triggers and grants need locks that writers hold.
_LIMIT_LOCK_WAITS = "SELECT pg_catalog.set_config('lock_timeout', '2s', true)"
_FAULTS = "SELECT collection, fault, fix FROM pgml_tune._collection_faults() AS f"


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What decides whether a column can be kept embedded."""

    source_oid: int
    schema_name: str
    default_name: str  # of a collection over the column
    kind: str  # of pg_class.relkind
    is_temporary: bool
    is_ours: bool  # a table of the system or of the extension
    is_partition: bool
    is_inherited: bool  # shares rows with another table, and is not partitioned
    is_forced: bool  # row security hides rows from its owner
    owner: str
    is_owner: bool
    owner_may_embed: bool
    owner_may_create: bool  # in the schema of the table
    has_names: bool  # for the view and the query function
    has_column: bool
    is_text: bool | None
    is_virtual: bool | None
    has_key: bool


@dataclass(frozen=True, slots=True)
class Collection:
    """A row of pgml_tune.collection, with the names of today."""

    collection_id: int
    name: str
    source_oid: int
    source: str  # schema-qualified, quoted
    source_column: str
    model_reference: str  # name@version
    mode: str  # trigger | queue
    index_method: str  # auto | hnsw | none
    storage: str
    chunk_tokens: int | None
    chunk_overlap: int
    batch_size: int
    text_search: str | None
    is_ready: bool
    is_filled: bool
    is_lost: bool  # its column is gone, or its side table is not as it was made


def source_facts(db: Database, source: str, column: str, collection: str | None) -> SourceFacts | None:
    """What the server says of a table and a column of it; None if the table is gone."""
    rows = db.fetch(_FACTS, source, column, collection)
    return SourceFacts(**rows[0]) if rows else None


def find_collection(db: Database, name: str) -> Collection | None:
    """The collection of a name."""
    return _collection(db.fetch(_FIND, None, name))


def get_collection(db: Database, collection_id: int) -> Collection | None:
    """The collection of a number."""
    return _collection(db.fetch(_FIND, collection_id, None))


def _collection(rows: list[dict[str, Any]]) -> Collection | None:
    text = rows[0]["collection"]
    if text is None:
        return None
    values = json.loads(text)
    return Collection(**{name: values[name] for name in Collection.__slots__})


def find_text_search(db: Database, name: str | None) -> int | None:
    """The oid of a text search configuration, with None of the default one; None if there is none of that name."""
    oid: int | None = db.fetch(_FIND_TEXT_SEARCH, name)[0]["text_search"]
    return oid


def add_collection(db: Database, settings: dict[str, Any]) -> int | None:
    """Add a collection and build its side table and triggers; None if the name is taken."""
    collection_id: int | None = db.fetch(_ADD, json.dumps(settings))[0]["collection_id"]
    if collection_id is not None:
        db.fetch(_BUILD, collection_id)
    return collection_id


def change_collection(
    db: Database, collection_id: int, index: str | None, batch_size: int | None, mode: str | None
) -> None:
    """Change what needs no new vectors; None leaves it as it is."""
    db.fetch(_CHANGE, collection_id, index, batch_size, mode)
    if mode is not None:
        db.fetch(_MEND, collection_id)


def count_missing(db: Database, collection_id: int) -> int:
    """Rows of the source without vectors of their text."""
    return int(db.fetch(_COUNT, collection_id)[0]["count"][0])


def fill_part(
    db: Database, collection_id: int, leaf: int, first: int, end: int, max_rows: int
) -> tuple[int, int, bool]:
    """Embed rows of a block range: how many were found, how many stored, and whether there may be more."""
    found, stored, is_cut = db.fetch(_FILL, collection_id, str(leaf), first, end, max_rows)[0]["outcome"]
    return found, stored, bool(is_cut)


def delete_orphans(db: Database, collection_id: int) -> None:
    """Delete the vectors of rows that are gone."""
    db.fetch(_DELETE_ORPHANS, collection_id)


def finish_collection(db: Database, collection_id: int) -> int:
    """Make the indexes, the view and the query function, and open the collection to its readers.

    Nothing of this is done while rows of the source have no vectors of their text; says how many.
    """
    return int(db.fetch(_FINISH, collection_id)[0]["missing"])


def drop_collection(db: Database, collection_id: int) -> None:
    """Remove a collection and all that belongs to it."""
    db.fetch(_DROP, collection_id)


def collection_ids(db: Database) -> list[int]:
    """All collections, oldest first."""
    return [row["collection_id"] for row in db.fetch(_IDS)]


def drop_lost_collections(db: Database) -> list[str]:
    """Remove the collections whose table is gone, and name them."""
    return [row["name"] for row in db.fetch(_DROP_LOST)]


def mend_collection(db: Session, collection_id: int) -> set[str] | None:
    """Bring a collection in line with its table, and say what was not; None if others hold a lock."""
    db.fetch(_LIMIT_LOCK_WAITS)
    rows = db.fetch_if_possible(_MEND, collection_id)
    return None if rows is None else {row["change"] for row in rows}


def collection_faults(db: Database) -> list[tuple[str, str, str]]:
    """Collections, what is wrong with them, and what mends it."""
    return [(row["collection"], row["fault"], row["fix"]) for row in db.fetch(_FAULTS)]
