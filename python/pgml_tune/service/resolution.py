"""From the model a caller names to the version, the settings and the rules of one call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import orjson

from pgml_tune import __version__
from pgml_tune.db import Database
from pgml_tune.errors import NotReady, NotSupported, ObjectNotFound, TuneError
from pgml_tune.records import ModelReference
from pgml_tune.settings import Limits, parse_cache_preference
from pgml_tune.store import registry

TASK = "embedding"
_SQL_VERSIONS = (__version__,)
_SHOW_VERSIONS = "SELECT model, version, state FROM pgml_tune.model_versions"

parse_reference = lru_cache(maxsize=256)(ModelReference.parse)


@dataclass(frozen=True, slots=True)
class Target:
    """The version one call goes to, and under which rules."""

    model_version_id: int
    digest: str
    dimensions: int
    limits: Limits
    cache_preference: str


def resolve(db: Database, model: str | None) -> Target:
    """The version that `model` means in the current statement; None means the default."""
    reference = None if model is None else parse_reference(model)
    row = registry.find_call(db, reference, TASK)
    if row is None:
        raise _not_found(db, reference)
    if row.sql_version not in _SQL_VERSIONS:
        raise NotReady(
            f"package pgml_tune {__version__} does not serve version {row.sql_version} of the extension",
            detail="One of them was updated after this session had begun, or only one of them was.",
            hint=f"ALTER EXTENSION pgml_tune UPDATE TO '{__version__}', then reconnect.",
        )
    if row.state != "ready":
        raise NotReady(
            f'version "{reference}" is not ready' if reference else "the default model is not ready",
            detail=f"Its state is {row.state}.",
            hint=_SHOW_VERSIONS,
        )
    return Target(
        row.model_version_id,
        row.digest,
        row.dimensions,
        _limits(row.settings),
        parse_cache_preference(row.cache_preference),
    )


@lru_cache(maxsize=4)
def _limits(settings: str | None) -> Limits:
    return Limits.from_rows(orjson.loads(settings) if settings else {})


def _not_found(db: Database, reference: ModelReference | None) -> TuneError:
    if reference is None:
        return ObjectNotFound("there is no default embedding model", hint="SELECT model FROM pgml_tune.models")
    task = registry.task_of(db, reference.name)
    if task is None:
        return ObjectNotFound(f'model "{reference.name}" does not exist', hint=_SHOW_VERSIONS)
    if task != TASK:
        return NotSupported(f'model "{reference.name}" does not embed', detail=f"Its task is {task}.")
    return ObjectNotFound(
        f'model "{reference.name}" has no version "{reference.version}"',
        hint=f"{_SHOW_VERSIONS} WHERE model = '{reference.name}'",
    )
