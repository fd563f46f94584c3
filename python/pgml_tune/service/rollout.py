"""Rolling versions out and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, NotReady, ObjectNotFound, QueryCanceled, TuneError
from pgml_tune.records import check_name
from pgml_tune.service.ab_report import look
from pgml_tune.service.guardrails import Guardrails, units_needed
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.rollout_options import RolloutOptions
from pgml_tune.service.rollout_plan import ALL, Action, Position, next_action
from pgml_tune.store import rollout as store
from pgml_tune.store.registry import versions_of
from pgml_tune.store.rollout import Facts, MissingStep, Move, Rollout

_DEFAULT_EXPIRY_SECONDS = 7 * 86400
_LONGEST_EXPIRY_SECONDS = 10 * 366 * 86400
_SHORT_LOCK_MS = 20  # who calls waits for the commit, and so does everybody whose searches are to change
_LONG_LOCK_MS = 100
_TRIES = 5
_ENDS = {"rollback": "rolled_back", "promote": "promoted"}  # the state that a step leads to
_MISSING = {
    "collection": "A collection has no vectors of it",
    "column": "A recorded column has no vectors of it",
    "untracked": "A column may hold vectors of the model, and nobody has said so",
}
_SHOW_VERSIONS = "SELECT model, version, state FROM pgml_tune.model_versions"


def roll_out(
    db: Session,
    name: str | None,
    version: str | None,
    percent: int | None,
    options_text: str | None,
    load: Callable[[str], None],
) -> dict[str, Any]:
    """Let a version answer a share of the units, or all, as soon as it is in memory; says what was done."""
    if name is None or version is None or percent is None:
        raise InvalidArgument("name, version and percent must not be NULL")
    check_name(name, "model")
    check_name(version, "version")
    if not 1 <= percent <= 100:
        raise InvalidArgument(
            f"percent is {percent}, valid are 1 to 100", hint=f"To take a model back: SELECT rollback_model('{name}')"
        )
    options = RolloutOptions.parse(options_text)
    guardrails = Guardrails.parse(options.guardrails or {})
    facts = _checked_facts(db, name, version)
    if facts.to_version_id == facts.from_version_id:
        done = {"model": name, "to_version": version, "state": "promoted"}
        if options.dry_run:
            return done
        return done | {"left": store.bring_along(db, facts.model_id)} | _follow(db, facts.model_id)
    blocking = [step for step in _missing_steps(db, facts) if not (step.what == "untracked" and options.untracked)]
    share = options.plan[0] if options.plan and percent == 100 else percent * 100
    plan: dict[str, Any] = {
        "model": name,
        "from_version": facts.from_version,
        "to_version": version,
        "percent": share / 100,
        "plan": _percentages(options.plan),
        "is_same_space": facts.is_same_space,
        "collections": facts.collections,
        "guardrails": guardrails.to_json(),
        "units_needed": units_needed(share, guardrails),
    }
    if options.dry_run:
        return plan | {"missing": [asdict(step) for step in blocking]}
    if blocking:
        raise NotReady(
            f'model "{name}" is not ready for version "{version}", which is of another space',
            detail="\n".join(f"{_MISSING[step.what]}: {step.object}." for step in blocking),
            hint=_how_to(name, version, blocking),
        )
    load(next(row.digest for row in versions_of(db, name) if row.version == version))
    settings = _settings(db, share, options, guardrails)
    if facts.rollout is None:
        rollout_id = _begin(db, name, facts, settings)
    else:
        rollout_id = facts.rollout["rollout_id"]
        if not store.change(db, rollout_id, settings | {"expected_phase": facts.rollout["phase"]}):
            raise _changed(name)
        # What was not said again goes on.
        if "plan" not in settings:
            plan["plan"] = _percentages(facts.rollout["plan"])
        if "guardrails" not in settings:
            plan["guardrails"] = facts.rollout["guardrails"]
    done = plan | {"rollout_id": rollout_id, "state": "running"}
    if share < ALL:
        return done | {"next": "CALL rollout_tick()"}
    return done | {"state": "promoted"} | _promote(db, name, facts.model_id, rollout_id, options.reason)


def roll_back(db: Session, name: str | None, reason: str | None) -> dict[str, Any]:
    """End the rollout that runs, or undo the last promotion; says from which version to which, and how fast."""
    if name is None:
        raise InvalidArgument("name must not be NULL", hint="SELECT model FROM pgml_tune.traffic")
    check_name(name, "model")
    began = time.monotonic()
    serving: int | None = None
    for _ in range(_TRIES):
        facts = store.facts(db, name, None)
        if facts is None:
            raise _no_model(name)
        if serving not in (None, facts.from_version_id):
            raise _changed(name)  # who called has seen another version serve
        serving = facts.from_version_id
        move = _move_back(db, facts, reason)
        if move is not None:
            break
    else:
        raise _changed(name)
    done = {"model": name, "from": move.from_version, "to": move.to_version, "searches_ms": _milliseconds(began)}
    if move.left:
        # They have come since, or have lost their vectors of that version.
        call = f"('{name}', '{move.to_version}')"
        done |= {"left": move.left, "do": f"CALL prepare_rollout{call}; SELECT rollout_model{call}"}
    return done | _follow(db, facts.model_id)


def _move_back(db: Session, facts: Facts, reason: str | None) -> Move | None:
    """End the rollout that runs, or undo the last promotion; None if somebody has begun or promoted one meanwhile."""
    if facts.rollout is None:
        return store.step_back(db, facts.model_id, reason, facts.from_version_id)
    rollout_id, to_version = facts.rollout["rollout_id"], facts.rollout["to_version"]
    if not store.end(db, rollout_id, "rolled_back", reason):
        ended = store.explain(db, rollout_id)
        if ended is None or ended["state"] != "rolled_back":
            return None
    return Move(f"{to_version} {facts.rollout['share'] / 100:g} %", facts.rollout["from_version"], [])


def explain(db: Session, rollout_id: int | None) -> dict[str, Any]:
    """A rollout with its history and every number behind its last verdict."""
    explained = None if rollout_id is None else store.explain(db, rollout_id)
    if explained is None:
        raise ObjectNotFound("there is no such rollout", hint="SELECT * FROM pgml_tune.rollouts")
    return explained


def tick(db: Session) -> None:
    """Look at each rollout that runs and let it go on, hold or go back; then let plain embed() follow."""
    db.commit()
    failure = db.attempt(partial(_ingest, db))
    if failure is not None:
        db.notice(f"the logs of calls cannot be taken over now: {failure}")
    db.commit()
    with own_settings(db):
        rollouts = store.running(db)
    db.commit()
    for rollout in rollouts:
        verdict = _judge(db, rollout)
        db.commit()
        failure = db.attempt(partial(_go_on, db, rollout, verdict))
        if failure is not None:
            db.notice(f"{_label(rollout)}: stays as it is: {failure}")
        db.commit()
    follow_all(db)


def follow_all(db: Session) -> None:
    """Let plain embed(), views and query functions follow wherever they have not yet."""
    with own_settings(db):
        unaligned = store.unaligned_models(db)
    if not db.commit():
        return
    for model_id, model in unaligned:
        for number in range(_TRIES):
            if number:
                db.sleep(0.05 * 2**number)
            obstacle = store.align(db, model_id, _LONG_LOCK_MS)
            db.commit()
            if obstacle is None:
                break
        else:
            db.notice(f'model "{model}": plain embed(), views and query functions do not follow yet: {obstacle}')


def retire(db: Session) -> None:
    """Give up vectors that no rollback shall come back to."""
    with own_settings(db):
        retired = store.retire(db)
    db.commit()
    for what, reference, outcome in retired:
        db.notice(f"{what}: vectors of {reference}: {outcome}")


def _ingest(db: Session) -> None:
    with own_settings(db):
        store.limit_lock_waits(db)
        store.ingest_logs(db)


def _judge(db: Session, rollout: Rollout) -> dict[str, Any]:
    """The verdict on a rollout; one that cannot be judged has no data, and keeps nobody from looking at the others."""
    verdicts: list[dict[str, Any]] = []

    def judge() -> None:
        with own_settings(db):
            store.limit_lock_waits(db)
            verdicts.append(look(db, rollout.rollout_id).to_json())

    failure: object = None
    try:
        failure = db.attempt(judge)
    except QueryCanceled:
        raise
    except (TuneError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        failure = error
    return verdicts[0] if verdicts else {"outcome": "no_data", "words": f"cannot be judged: {failure}", "findings": []}


def _go_on(db: Session, rollout: Rollout, verdict: dict[str, Any]) -> None:
    position = Position(rollout.state, rollout.share, rollout.plan, rollout.on_expiry, rollout.is_expired)
    action = next_action(position, verdict["outcome"], verdict["words"])
    if rollout.is_incomplete and action.step in ("share", "promote"):
        action = Action("hold", f"{action.reason}, but rows lack vectors of the candidate: CALL maintain()")
    with own_settings(db):
        store.set_verdict(db, rollout.rollout_id, verdict, "paused" if action.step == "pause" else None)
        is_done = _act(db, rollout, action)
    db.notice(f"{_label(rollout)}: {action.step}: {action.reason}" if is_done else f"{_label(rollout)}: has moved on")


def _act(db: Session, rollout: Rollout, action: Action) -> bool:
    """Do it, unless somebody has changed the rollout since it was looked at."""
    if action.step in _ENDS:
        return store.end(db, rollout.rollout_id, _ENDS[action.step], action.reason, rollout.phase)
    if action.share is not None:
        settings = {"share": action.share, "reason": action.reason, "expected_phase": rollout.phase}
        return store.change(db, rollout.rollout_id, settings)
    return True


def _checked_facts(db: Session, name: str, version: str) -> Facts:
    facts = store.facts(db, name, version)
    if facts is None:
        raise _no_model(name)
    if facts.to_version_id is None:
        raise ObjectNotFound(
            f'model "{name}" has no version "{version}"', hint=f"{_SHOW_VERSIONS} WHERE model = '{name}'"
        )
    if facts.to_state != "ready":
        raise NotReady(f'version "{name}@{version}" is not ready', detail=f"Its state is {facts.to_state}.")
    if facts.rollout is None:
        if facts.to_version_id == facts.from_version_id and not facts.has_strays:
            raise NotReady(
                f'version "{version}" serves model "{name}" already', hint="SELECT * FROM pgml_tune.traffic"
            )
    elif facts.rollout["to_version_id"] != facts.to_version_id:
        raise NotReady(
            f'a rollout of model "{name}" to version "{facts.rollout["to_version"]}" is running',
            detail="A model has one at a time.",
            hint=f"SELECT rollback_model('{name}')",
        )
    return facts


def _missing_steps(db: Session, facts: Facts) -> list[MissingStep]:
    if facts.is_same_space or facts.to_version_id is None:
        return []
    return store.missing_steps(db, facts.model_id, facts.to_version_id)


def _how_to(name: str, version: str, blocking: list[MissingStep]) -> str:
    hint = "; ".join(dict.fromkeys(step.statement for step in blocking))
    if all(step.what == "untracked" for step in blocking):
        accept = """'{"untracked": "accept"}'"""
        hint += f"; or leave them: SELECT rollout_model('{name}', '{version}', options => {accept})"
    return hint


def _settings(db: Session, share: int, options: RolloutOptions, guardrails: Guardrails) -> dict[str, Any]:
    """What was said of a rollout; what was not is left out."""
    settings: dict[str, Any] = {
        "share": share,
        "plan": options.plan,
        "guardrails": None if options.guardrails is None else guardrails.to_json(),
        "seconds": None if options.expires is None else _seconds(db, options.expires),
        "on_expiry": options.on_expiry,
        "reason": options.reason,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _seconds(db: Session, interval: str) -> float:
    seconds = store.interval_seconds(db, interval)
    if not 0 < seconds <= _LONGEST_EXPIRY_SECONDS:
        raise InvalidArgument('option "expires" is not an interval of up to 10 years')
    return seconds


def _begin(db: Session, name: str, facts: Facts, settings: dict[str, Any]) -> int:
    defaults = {
        "model_id": facts.model_id,
        "from_version_id": facts.from_version_id,
        "to_version_id": facts.to_version_id,
        "guardrails": Guardrails().to_json(),
        "seconds": _DEFAULT_EXPIRY_SECONDS,
        "on_expiry": "rollback",
    }
    rollout_id = store.begin(db, defaults | settings)
    if rollout_id is None:
        raise _changed(name)
    return rollout_id


def _promote(db: Session, name: str, model_id: int, rollout_id: int, reason: str | None) -> dict[str, Any]:
    began = time.monotonic()
    if not store.end(db, rollout_id, "promoted", reason):
        raise _changed(name)
    return {"searches_ms": _milliseconds(began), **_follow(db, model_id)}


def _follow(db: Session, model_id: int) -> dict[str, Any]:
    """Let plain embed() follow if nobody holds a lock; in milliseconds, or what has yet to be called."""
    began = time.monotonic()
    if db.transaction().is_block:
        # Everybody's embed() would wait for its end, which may be far off.
        obstacle: str | None = "the end of your transaction"
    else:
        obstacle = store.align(db, model_id, _SHORT_LOCK_MS)
    if obstacle is None:
        return {"embed_ms": _milliseconds(began)}
    return {"embed_ms": None, "embed_waits_for": obstacle, "next": "CALL rollout_tick()"}


def _percentages(shares: list[int] | None) -> list[float] | None:
    return None if shares is None else [share / 100 for share in shares]


def _milliseconds(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def _label(rollout: Rollout) -> str:
    return (
        f'rollout {rollout.rollout_id} of model "{rollout.model}" from {rollout.from_version} to {rollout.to_version},'
        f" {rollout.share / 100:g} %"
    )


def _no_model(name: str) -> ObjectNotFound:
    return ObjectNotFound(f'model "{name}" does not exist', hint="SELECT model, task FROM pgml_tune.models")


def _changed(name: str) -> NotReady:
    return NotReady(f'model "{name}" has changed meanwhile', hint="SELECT * FROM pgml_tune.traffic")
