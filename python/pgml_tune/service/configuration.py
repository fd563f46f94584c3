"""Reading and writing settings."""

from __future__ import annotations

from pgml_tune.db import Database
from pgml_tune.errors import InvalidArgument
from pgml_tune.settings import SETTINGS, setting_named
from pgml_tune.store import setting as store


def configure(db: Database, name: str | None, value: str | None) -> str:
    """Set a setting, or with None take it back to its default; returns the value in force."""
    if name is None:
        raise InvalidArgument("name must not be NULL", hint="SELECT name, value FROM pgml_tune.settings")
    setting = setting_named(name)
    checked = None if value is None else setting.check(value)
    if setting.is_for_superusers:
        store.write_superuser_setting(db, name, checked)
    else:
        store.write_setting(db, name, checked)
    return setting.default if checked is None else checked


def describe(db: Database) -> list[dict[str, str]]:
    """Every setting with its value, default, range and what it trades."""
    _, values = store.read_settings(db)
    return [
        {
            "name": setting.name,
            "value": values.get(setting.name, setting.default),
            "default_value": setting.default,
            "valid": setting.range,
            "trades": setting.trades,
        }
        for setting in SETTINGS.values()
    ]
