"""Statements on rollouts.

A procedure that commits runs them under the search_path of its caller, so they only call functions of ours or stand
inside own_settings().
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pgml_tune.db import Database

_FACTS = "SELECT pgml_tune._rollout_facts($1::pg_catalog.text, $2::pg_catalog.text) AS facts"
_MISSING = """
SELECT m.what, m.object, m.statement
FROM pgml_tune._missing_steps($1::pg_catalog.int8, $2::pg_catalog.int8) AS m
"""
_BEGIN = "SELECT pgml_tune._begin_rollout($1::pg_catalog.jsonb) AS rollout_id"
_CHANGE = "SELECT pgml_tune._change_rollout($1::pg_catalog.int8, $2::pg_catalog.jsonb) AS is_done"
_SET_VERDICT = """
SELECT pgml_tune._set_verdict(
    $1::pg_catalog.int8, $2::pg_catalog.jsonb, $3::pg_catalog.text::pgml_tune.rollout_state
)
"""
_END = """
SELECT pgml_tune._end_rollout(
    $1::pg_catalog.int8, $2::pg_catalog.text::pgml_tune.rollout_state, $3::pg_catalog.text, $4::pg_catalog.int4
) AS is_done
"""
_STEP_BACK = """
SELECT pgml_tune._step_back($1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.int8) AS move
"""
_BRING_ALONG = "SELECT pgml_tune._bring_along($1::pg_catalog.int8) AS behind"
# Until the next commit: what others have locked keeps nobody from looking at the rest.
_LIMIT_LOCK_WAITS = "SELECT pg_catalog.set_config('lock_timeout', '3s', true)"
_ALIGN = "SELECT pgml_tune._align_model($1::pg_catalog.int8, $2::pg_catalog.int4) AS obstacle"
_UNALIGNED = "SELECT u.model_id, u.model FROM pgml_tune._unaligned_models() AS u"
_INGEST = "SELECT pgml_tune._ingest_logs()"
_RETIRE = """
SELECT r.collection AS object, r.model_reference, r.outcome
FROM pgml_tune._retire_vectors() AS r
UNION ALL
SELECT s.object, s.model_reference, s.outcome
FROM pgml_tune._retire_shadows() AS s
"""
_SECONDS = "SELECT extract(epoch FROM $1::interval)::float8 AS seconds"
_RUNNING = """
SELECT r.rollout_id, r.model, r.from_version, r.to_version, r.state::text AS state, r.share, r.phase, r.plan,
       r.on_expiry, r.expires_at <= now() AS is_expired,
       EXISTS (
           SELECT FROM pgml_tune.collection_route AS c
           JOIN pgml_tune.vectors_missed AS m ON m.collection_id = c.candidate_id
           WHERE c.rollout_id = r.rollout_id
       ) AS is_incomplete
FROM pgml_tune.rollout AS r
WHERE r.ended_at IS NULL
ORDER BY r.rollout_id
"""
_FAULTS = "SELECT f.model, f.fault, f.fix FROM pgml_tune._rollout_faults() AS f"
_IS_WANTED = """
SELECT EXISTS (SELECT FROM pgml_tune.rollout AS r WHERE r.ended_at IS NULL)
    OR EXISTS (SELECT FROM pgml_tune.serving AS s WHERE s.wanted_version_id IS NOT NULL) AS is_wanted
"""
_TICK = "CALL pgml_tune._tick()"
_EXPLAIN = """
SELECT to_jsonb(r) - 'salt' || jsonb_build_object(
           'history', (
               SELECT coalesce(jsonb_agg(to_jsonb(h) ORDER BY h.rollout_history_id), '[]')
               FROM pgml_tune.rollout_history AS h WHERE h.rollout_id = r.rollout_id
           )
       ) AS explained
FROM pgml_tune.rollout AS r
WHERE r.rollout_id = $1::int8
"""


@dataclass(frozen=True, slots=True)
class MissingStep:
    """What stands between a model and a version of another space."""

    what: str  # collection, column or untracked
    object: str
    statement: str  # which does it


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout that runs."""

    rollout_id: int
    model: str
    from_version: str
    to_version: str
    state: str  # running or paused
    share: int  # units of 10,000
    phase: int
    plan: list[int] | None  # shares, ascending
    on_expiry: str  # rollback, hold or promote
    is_expired: bool
    is_incomplete: bool  # rows lack vectors of the candidate, because they could not be made


@dataclass(frozen=True, slots=True)
class Move:
    """A way back that was gone."""

    from_version: str
    to_version: str
    left: list[str]  # collections that could not go along


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model serves, what another version of it is, and the rollout that runs."""

    model_id: int
    from_version_id: int
    from_version: str
    to_version_id: int | None  # None: there is no such version
    to_state: str | None
    is_same_space: bool | None
    collections: int
    has_strays: bool | None  # of the version that serves: a collection or column could follow it, and has not
    rollout: dict[str, Any] | None


def facts(db: Database, name: str, version: str | None) -> Facts | None:
    """What decides whether a version can be rolled out; None: no such model serves."""
    text = db.fetch(_FACTS, name, version)[0]["facts"]
    return None if text is None else Facts(**json.loads(text))


def missing_steps(db: Database, model_id: int, version_id: int) -> list[MissingStep]:
    """What stands between a model and a version of another space."""
    return [MissingStep(**row) for row in db.fetch(_MISSING, model_id, version_id)]


def begin(db: Database, settings: dict[str, Any]) -> int | None:
    """Add a rollout and send it its first share; None if the model has changed meanwhile."""
    rollout_id: int | None = db.fetch(_BEGIN, json.dumps(settings))[0]["rollout_id"]
    return rollout_id


def change(db: Database, rollout_id: int, settings: dict[str, Any]) -> bool:
    """Change the share of a rollout, and what else is given; False if it has ended, or is not in the phase expected."""
    return bool(db.fetch(_CHANGE, rollout_id, json.dumps(settings))[0]["is_done"])


def set_verdict(db: Database, rollout_id: int, verdict: dict[str, Any], state: str | None = None) -> None:
    """Keep what the last look has found, and pause the rollout or let it go on."""
    db.fetch(_SET_VERDICT, rollout_id, json.dumps(verdict), state)


def end(db: Database, rollout_id: int, state: str, reason: str | None, expected_phase: int | None = None) -> bool:
    """Promote a rollout or roll it back; False if it has ended already, or is not in the phase expected."""
    return bool(db.fetch(_END, rollout_id, state, reason, expected_phase)[0]["is_done"])


def limit_lock_waits(db: Database) -> None:
    """Wait for no lock longer than 3 seconds until the transaction ends."""
    db.fetch(_LIMIT_LOCK_WAITS)


def bring_along(db: Database, model_id: int) -> list[str]:
    """Let what a rollback has left behind follow; what still cannot."""
    return list(db.fetch(_BRING_ALONG, model_id)[0]["behind"])


def step_back(db: Database, model_id: int, reason: str | None, expected_version_id: int) -> Move | None:
    """Take back the last move of a model; None if a rollout runs, or another version serves than expected."""
    move = db.fetch(_STEP_BACK, model_id, reason, expected_version_id)[0]["move"]
    return None if move is None else Move(**json.loads(move))


def align(db: Database, model_id: int, lock_ms: int) -> str | None:
    """Let plain embed(), views and query functions follow; what prevents it, if anything does."""
    obstacle: str | None = db.fetch(_ALIGN, model_id, lock_ms)[0]["obstacle"]
    return obstacle


def unaligned_models(db: Database) -> list[tuple[int, str]]:
    """Models whose plain embed() has yet to follow their searches."""
    return [(row["model_id"], row["model"]) for row in db.fetch(_UNALIGNED)]


def ingest_logs(db: Database) -> None:
    """Take the logs of calls over from the spool."""
    db.fetch(_INGEST)


def retire(db: Database) -> list[tuple[str, str, str]]:
    """Give up vectors that no search has gone to for so long: of what, name@version, what became of them."""
    return [(row["object"], row["model_reference"], row["outcome"]) for row in db.fetch(_RETIRE)]


def interval_seconds(db: Database, text: str) -> float:
    """The seconds of an interval."""
    return float(db.fetch(_SECONDS, text)[0]["seconds"])


def running(db: Database) -> list[Rollout]:
    """The rollouts that run, oldest first."""
    return [Rollout(**row) for row in db.fetch(_RUNNING)]


def explain(db: Database, rollout_id: int) -> dict[str, Any] | None:
    """A rollout with its history and its last verdict."""
    rows = db.fetch(_EXPLAIN, rollout_id)
    return json.loads(rows[0]["explained"]) if rows else None


def faults(db: Database) -> list[tuple[str, str, str]]:
    """Models, what is wrong with their rollouts, and what mends it."""
    return [(row["model"], row["fault"], row["fix"]) for row in db.fetch(_FAULTS)]


def tick_if_wanted(db: Database) -> None:
    """Let a session of its own do what rollout_tick() does, if there is anything to look at."""
    if db.fetch(_IS_WANTED)[0]["is_wanted"]:
        db.fetch(_TICK)
