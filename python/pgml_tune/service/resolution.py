"""From the model a caller names to the version and the rules of one call."""

from __future__ import annotations

from functools import lru_cache

from pgml_tune import __version__
from pgml_tune.db import Database, Session
from pgml_tune.errors import NotReady, NotSupported, ObjectNotFound, TuneError
from pgml_tune.records import VERBS, ModelReference
from pgml_tune.settings import Limits, parse_unit_preference
from pgml_tune.store import registry
from pgml_tune.store.registry import Destination, Target
from pgml_tune.store.setting import read_settings

_SQL_VERSIONS = (__version__,)
_MAKE = {
    "embedding": "Run: pgml-tune import SOURCE --name NAME",
    "classification": "CALL finetune_classifier('model', 'SELECT body, label FROM examples', 'new_model')",
    "text_to_sql": "CALL finetune_text_to_sql('model', 'SELECT question, sql FROM examples')",
}
_SHOW_VERSIONS = "SELECT model, version, state FROM pgml_tune.model_versions"

_parse_reference = lru_cache(maxsize=256)(ModelReference.parse)


def _resolve(db: Database, model: str | None, task: str) -> Destination:
    reference = None if model is None else _parse_reference(model)
    destination = registry.find_destination(db, reference, task)
    if destination is None:
        raise _why_not(db, reference, task)
    return destination


def _why_not(db: Database, reference: ModelReference | None, task: str) -> TuneError:
    if reference is None:
        return ObjectNotFound(f"there is no default {task} model", hint=_MAKE[task])
    versions = registry.versions_of(db, reference.name)
    if not versions:
        return ObjectNotFound(f'model "{reference.name}" does not exist', hint=_SHOW_VERSIONS)
    hint = f"{_SHOW_VERSIONS} WHERE model = '{reference.name}'"
    if versions[0].task != task:
        detail = f"Its task is {versions[0].task}."
        return NotSupported(f'model "{reference.name}" does not {VERBS[task]}', detail=detail)
    named = [row for row in versions if row.version == reference.version]
    if reference.version is not None and not named:
        return ObjectNotFound(f'model "{reference.name}" has no version "{reference.version}"', hint=hint)
    state = f"Its state is {named[0].state}." if named else "None of its versions serves."
    return NotReady(f'model "{reference}" is not ready', detail=state, hint=hint)


class Rules:
    """The settings in force and what models mean, as long as the calling statement sees the same rows."""

    def __init__(self) -> None:
        self._state: tuple[int, ...] = ()
        self._limits = Limits.from_rows({})
        self._destinations: dict[tuple[str | None, str], Destination] = {}

    def read(self, db: Session, model: str | None, task: str = "embedding") -> tuple[Target, Limits]:
        """The version that `model` means, None meaning the default of the task, and the settings."""
        destination, limits = self.follow(db, model, task)
        return destination.target, limits

    def follow(self, db: Session, model: str | None, task: str = "embedding") -> tuple[Destination, Limits]:
        """What `model` means, the candidate of a rollout included, and the settings.

        Who has followed a pointer holds it until his transaction ends: it does not move together with the views
        between two rows of his statement.
        """
        self._refresh(db)
        destination = self._destinations.get((model, task))
        if destination is not None and destination.pointer is not None and not db.holds_table(destination.pointer):
            registry.hold_pointers(db)  # in a new transaction; whoever has moved one meanwhile has told by now
            self._refresh(db)
            destination = self._destinations.get((model, task))
        if destination is None:
            destination = self._destinations[model, task] = _resolve(db, model, task)
            if destination.pointer is not None:
                preferred_unit(db)  # refused where no rollout runs, too: none shall begin with errors
        return destination, self._limits

    def _refresh(self, db: Session) -> None:
        state = db.visible_state()
        if not state or state != self._state:
            self._state = ()  # until all is read
            sql_version, settings = read_settings(db)
            _check_version(sql_version)
            self._limits = Limits.from_rows(settings)
            self._destinations.clear()
            self._state = state


def preferred_unit(db: Session) -> str | None:
    """The unit that the session has set for its calls."""
    return parse_unit_preference(db.preference(b"pgml_tune.unit"))


def _check_version(sql_version: str) -> None:
    if sql_version not in _SQL_VERSIONS:
        raise NotReady(
            f"package pgml_tune {__version__} does not serve version {sql_version} of the extension",
            detail="One was updated after this session had begun, or only one was. Reconnect afterwards.",
            hint=f"ALTER EXTENSION pgml_tune UPDATE TO '{__version__}'",
        )
