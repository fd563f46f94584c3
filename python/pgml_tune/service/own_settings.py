"""Settings under which procedures read what is ours.

One that commits, or runs a query of its caller, cannot have a SET clause for all it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgml_tune.db import Database
from pgml_tune.store import filling as store


@contextmanager
def own_settings(db: Database) -> Iterator[None]:
    """Names are found in pg_catalog alone; an error takes the settings back with the transaction."""
    settings = store.use_own_settings(db)
    yield
    store.restore_settings(db, settings)
