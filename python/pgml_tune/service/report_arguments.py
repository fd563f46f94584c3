"""The arguments that reports have in common."""

from __future__ import annotations

from pgml_tune.db import Database
from pgml_tune.errors import InvalidArgument, ObjectNotFound
from pgml_tune.records import check_name
from pgml_tune.store.experiment import is_model
from pgml_tune.store.rollout import interval_seconds

_SHOW_MODELS = "SELECT model FROM pgml_tune.models"
_LONGEST_SECONDS = 10 * 366 * 86_400.0


def check_model(db: Database, name: str | None) -> str:
    """The name of a model that exists."""
    if name is None:
        raise InvalidArgument("name is NULL", hint=_SHOW_MODELS)
    if not is_model(db, check_name(name, "model")):
        raise ObjectNotFound(f'model "{name}" does not exist', hint=_SHOW_MODELS)
    return name


def check_interval(db: Database, interval: str | None, what: str) -> float:
    """The seconds of an interval that lies in the past and is not too long."""
    seconds = 0.0 if interval is None else interval_seconds(db, interval)
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise InvalidArgument(f"{what} is not an interval of up to 10 years", hint="SELECT interval '1 day'")
    return seconds
