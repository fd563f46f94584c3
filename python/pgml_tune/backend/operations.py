"""Entry points of sql/functions/operations.sql."""

from __future__ import annotations

from dataclasses import asdict

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.engine.orphans import remove, survey
from pgml_tune.service import configuration
from pgml_tune.service.doctor import examine
from pgml_tune.settings import read_paths
from pgml_tune.store.job import file_users


@entrypoint
def configure(db: Session, name: str | None, value: str | None) -> str:
    return configuration.configure(db, name, value)


@entrypoint
def settings(db: Session) -> list[dict[str, str]]:
    return configuration.describe(db)


@entrypoint
def doctor(db: Session) -> list[dict[str, str]]:
    return [asdict(check) for check in examine(db, read_paths)]


@entrypoint
def clear_files(db: Session) -> int:
    paths = read_paths()
    seen = survey(paths.model_root, paths.spool_dir)
    # Asked for after looking: a job is known before it makes its folder.
    return len(remove(paths.model_root, paths.spool_dir, seen, file_users(db)))
