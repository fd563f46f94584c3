"""A table of short texts with columns of many types, searched exactly in numpy beside its collections."""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from collection_parts import parts
from numpy.typing import NDArray

WHO = ["a farmer", "the pilot", "my neighbour", "a nurse", "the mayor", "an old sailor", "the chemist"]
DOES = ["repairs", "paints", "sells", "forgets", "describes", "cannot find", "inherits"]
WHAT = ["a lighthouse", "the tractor", "an opera score", "frozen soup", "a tax form", "the bridge", "two parrots",
        "a microscope"]  # fmt: skip
BODIES = [" ".join(words) for words in itertools.product(WHO, DOES, WHAT)]
QUERIES = ["birds that talk", "engine maintenance", "medical staff", "paying money to the state", "something to eat",
           "music on a stage", "light for ships at night", "crossing a river", "laboratory equipment",
           "a person forgot a thing", "politician", "agriculture"]  # fmt: skip
LIBRARY = """
CREATE TYPE kind AS ENUM ('novel', 'report');
CREATE DOMAIN shelf_mark AS varchar(10);
CREATE TABLE library (
    id integer PRIMARY KEY, body text NOT NULL, shelf smallint, price numeric(8, 2), lent boolean, printed date,
    kind kind, facts jsonb, code uuid, weight double precision, title varchar(40), initial char(3), mark shelf_mark,
    added timestamptz, tags text[], "Odd ""one"" name" text,
    same text GENERATED ALWAYS AS (body) STORED, half text GENERATED ALWAYS AS (body) STORED
);
INSERT INTO library
SELECT g, body, g % 7, g % 5 + 0.5, CASE g % 3 WHEN 0 THEN true WHEN 1 THEN false END,
       date '2024-01-01' + g::integer % 10,
       (ARRAY['novel', 'report'])[1 + g % 2]::kind, jsonb_build_object('n', g % 4, 'list', jsonb_build_array(1, g % 2)),
       md5((g % 9)::text)::uuid, (g % 6) / 4.0, 'Title ' || g % 11, chr(97 + g::integer % 3), 'M' || g % 4,
       timestamptz '2024-01-01 00:00+00' + (g % 8) * interval '1 hour', ARRAY['t' || g % 2, NULL], 'odd ' || g % 2
FROM unnest(%s::text[]) WITH ORDINALITY AS b (body, g)
"""

@dataclass(frozen=True)
class Library:
    """A session on the collections of table library, and the vectors of its texts in the order of id."""

    db: psycopg.Connection[Any]
    vectors: NDArray[np.float64]

    def exact(self, query: str, k: int, ids: list[int] | None = None) -> list[tuple[int, float]]:
        """The nearest rows among `ids` by cosine distance."""
        vector = vectors_of(self.db, [query], "query")[0]
        ids = list(range(1, len(self.vectors) + 1)) if ids is None else ids
        distances = 1 - self.vectors[np.array(ids, dtype=int) - 1] @ vector
        return [(ids[place], float(distances[place])) for place in np.argsort(distances, kind="stable")[:k]]

    def search(self, query: str, k: int, collection: str = "library", filter_: Any = None) -> list[tuple[int, float]]:
        sql = "SELECT (key ->> 'id')::integer, distance FROM semantic_search(%s, %s, %s, %s)"
        filter_ = None if filter_ is None else json.dumps(filter_)
        return self.db.execute(sql, (collection, query, k, filter_)).fetchall()


def vectors_of(db: psycopg.Connection[Any], texts: list[str], kind: str = "passage") -> NDArray[np.float64]:
    rows = db.execute("SELECT unnest(embed(%s::text[], 'minilm@v1', %s))::text", (texts, kind)).fetchall()
    vectors = np.array([json.loads(row[0]) for row in rows])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def same(found: list[tuple[int, float]], exact: list[tuple[int, float]], tolerance: float = 1e-6) -> None:
    """The same rows at the same distances, nearest first; rows as near as each other may change places."""
    assert sorted(key for key, _ in found) == sorted(key for key, _ in exact)
    assert [distance for _, distance in found] == pytest.approx([distance for _, distance in exact], abs=tolerance)


def build(db: psycopg.Connection[Any], collections: dict[str, tuple[str, dict[str, str]]]) -> Library:
    """The table and collections over its columns, each with its options."""
    db.execute("SELECT configure('threads', '2')")
    for statement in LIBRARY.split(";\n"):
        db.execute(statement.replace("%", "%%").replace("%%s", "%s"), (BODIES,) if "%s" in statement else None)
    for collection, (column, options) in collections.items():
        call = "CALL auto_embed('library', %s, collection => %s, options => %s)"
        db.execute(call, (column, collection, json.dumps(options)))
        db.execute(f"ANALYZE {parts(db, collection)['side']}")
    db.execute("ANALYZE library")
    return Library(db, vectors_of(db, BODIES))
