"""From the model a caller names to the version and the rules of one call."""

from __future__ import annotations

from functools import lru_cache

from pgml_tune import __version__
from pgml_tune.db import Database, Session
from pgml_tune.errors import NotReady, NotSupported, ObjectNotFound, TuneError
from pgml_tune.records import ModelReference
from pgml_tune.settings import Limits
from pgml_tune.store import registry
from pgml_tune.store.registry import Target
from pgml_tune.store.server import extension_version
from pgml_tune.store.setting import read_settings

TASK = "embedding"
_SQL_VERSIONS = (__version__,)
_SHOW_VERSIONS = "SELECT model, version, state FROM pgml_tune.model_versions"

_parse_reference = lru_cache(maxsize=256)(ModelReference.parse)


def resolve(db: Database, model: str | None) -> Target:
    """The version that `model` means in the current statement; None means the default."""
    reference = None if model is None else _parse_reference(model)
    target = registry.find_target(db, reference, TASK)
    if target is None:
        raise _not_found(db, reference)
    if target.task != TASK:
        raise NotSupported(f'model "{reference}" does not embed', detail=f"Its task is {target.task}.")
    if target.state != "ready":
        raise NotReady(
            f'version "{reference}" is not ready', detail=f"Its state is {target.state}.", hint=_SHOW_VERSIONS
        )
    return target


def _not_found(db: Database, reference: ModelReference | None) -> TuneError:
    if reference is None:
        return ObjectNotFound("there is no default embedding model", hint="SELECT model FROM pgml_tune.models")
    if reference.version is None or not registry.versions_of(db, reference.name):
        return ObjectNotFound(f'model "{reference.name}" does not exist', hint=_SHOW_VERSIONS)
    return ObjectNotFound(
        f'model "{reference.name}" has no version "{reference.version}"',
        hint=f"{_SHOW_VERSIONS} WHERE model = '{reference.name}'",
    )


class Rules:
    """The settings in force, read once per client statement and transaction."""

    def __init__(self) -> None:
        self._read_in: tuple[int, int] | None = None
        self._limits = Limits.from_rows({})

    def limits(self, db: Session) -> Limits:
        statement = db.statement()
        if statement != self._read_in:
            _check_version(extension_version(db))
            self._limits = Limits.from_rows(read_settings(db))
            self._read_in = statement
        return self._limits

    def forget(self) -> None:
        """Read again at the next call: this session has changed a setting."""
        self._read_in = None


def _check_version(sql_version: str) -> None:
    if sql_version not in _SQL_VERSIONS:
        raise NotReady(
            f"package pgml_tune {__version__} does not serve version {sql_version} of the extension",
            detail="One was updated after this session had begun, or only one was. Reconnect afterwards.",
            hint=f"ALTER EXTENSION pgml_tune UPDATE TO '{__version__}'",
        )
