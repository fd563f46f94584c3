"""Settings under which procedures read what is ours.

One that commits, or runs a query of its caller, cannot have a SET clause for all it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgml_tune.db import Database
from pgml_tune.store import filling as store
from pgml_tune.store.filling import Settings


@contextmanager
def own_settings(db: Database) -> Iterator[Settings]:
    """Names are found in pg_catalog alone; an error takes the settings, here yielded, back with the transaction."""
    settings = store.use_own_settings(db)
    yield settings
    store.restore_settings(db, settings)


@contextmanager
def settings_of_caller(db: Database, settings: Settings) -> Iterator[None]:
    """Within own settings for a while those of the caller again; what follows an error still needs ours."""
    store.restore_settings(db, settings)
    try:
        yield
    finally:
        store.use_own_settings(db)
