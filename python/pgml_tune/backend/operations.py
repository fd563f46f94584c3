"""Entry points of sql/functions/operations.sql."""

from __future__ import annotations

from dataclasses import asdict

from pgml_tune.backend import entrypoint, session
from pgml_tune.db.spi import SpiDatabase
from pgml_tune.service import configuration
from pgml_tune.service.doctor import examine


@entrypoint
def configure(db: SpiDatabase, name: str | None, value: str | None) -> str:
    return configuration.configure(db, name, value)


@entrypoint
def settings(db: SpiDatabase) -> list[dict[str, str]]:
    return configuration.describe(db)


@entrypoint
def doctor(db: SpiDatabase) -> list[dict[str, str]]:
    return [asdict(check) for check in examine(db, session.paths)]
