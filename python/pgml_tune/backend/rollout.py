"""Entry points of sql/functions/rollout.sql."""

from __future__ import annotations

import json

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.service import rollout


@entrypoint
def rollout_model(db: Session, name: str | None, version: str | None, percent: int | None, options: str | None) -> str:
    return json.dumps(rollout.roll_out(db, name, version, percent, options, session.load_in_worker))


@entrypoint
def rollback_model(db: Session, name: str | None, reason: str | None) -> str:
    return json.dumps(rollout.roll_back(db, name, reason))


@entrypoint
def rollout_explain(db: Session, rollout_id: int | None) -> str:
    return json.dumps(rollout.explain(db, rollout_id))


@entrypoint
def rollout_tick(db: Session) -> None:
    rollout.tick(db)


@entrypoint
def retire(db: Session) -> None:
    rollout.follow_all(db)
    rollout.retire(db)
