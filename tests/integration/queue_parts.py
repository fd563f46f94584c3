"""Collections in mode queue: waiting for the worker."""

from typing import Any

import psycopg
from collection_state import COLLECTION
from conditions import fetch_value, wait_until

IDLE = """
SELECT bool_and(c.is_filled AND NOT EXISTS (SELECT FROM pgml_tune.queue AS q WHERE q.collection_id = c.collection_id))
FROM pgml_tune.collection AS c WHERE c.name = %s
"""


def wait_until_fed(db: psycopg.Connection[Any], collection: str = COLLECTION, seconds: float = 60) -> None:
    """Waits until no row of a collection waits for the worker."""
    wait_until(lambda: fetch_value(db, IDLE, (collection,)), seconds)


def waiting(db: psycopg.Connection[Any]) -> list[tuple[str, ...]]:
    """The keys that wait, each once."""
    return [tuple(key) for (key,) in db.execute("SELECT DISTINCT key FROM pgml_tune.queue ORDER BY 1").fetchall()]
