"""`prepare_rollout()`: vectors of a version in another space, made and measured beside those that answer."""

from __future__ import annotations

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, NotReady, PermissionDenied
from pgml_tune.records import ModelReference
from pgml_tune.service.filling import Embed
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.preparation_options import Options
from pgml_tune.service.resolution import Rules
from pgml_tune.service.shadows import drop_shadow, prepare_column
from pgml_tune.service.twins import LongestChunk, drop_twin, prepare_collection
from pgml_tune.service.validation import Golden, read_golden
from pgml_tune.store import preparation as store
from pgml_tune.store.preparation import Goal, PlannedCollection, PlannedColumn


def prepare(
    db: Session,
    embed: Embed,
    longest_chunk: LongestChunk,
    name: str | None,
    version: str | None,
    options_text: str | None,
) -> None:
    """Prepare all collections and recorded columns of a model that are the caller's, and commit as it goes."""
    options = Options.parse(options_text)
    goal = _goal(db, name, version)
    all_collections, all_columns = store.planned_collections(db, goal), store.planned_columns(db, goal)
    own_collections = [planned for planned in all_collections if planned.is_own]
    own_columns = [planned for planned in all_columns if planned.is_own]
    _tell_of_others(db, goal, all_collections, all_columns)
    if not own_collections and not own_columns:
        db.notice(f'model "{goal.model}": nothing has vectors in another space than that of version "{goal.version}"')
        return
    if options.drop:
        for collection in own_collections:
            drop_twin(db, collection)
        for column in own_columns:
            drop_shadow(db, column)
        return
    golden = [] if options.golden_query is None else _read_golden(db, options.golden_query, own_collections)
    if not db.commit():
        db.notice("in a transaction block nothing is committed before you do, and writers of the tables wait for that")
    failed = [
        planned.name
        for planned in own_collections
        if not prepare_collection(db, goal, options, longest_chunk, planned, golden)
    ]
    for planned in own_columns:
        prepare_column(db, embed, goal, options, planned)
    store.end_progress(db)
    db.commit()
    if failed:
        raise NotReady(
            f"the vectors of {len(failed)} collections are not as good as they have to be",
            detail="They are: " + ", ".join(f'"{name}"' for name in failed) + ".",
            hint="SELECT collection, validation FROM pgml_tune.embedding_collections",
        )


def _goal(db: Session, name: str | None, version: str | None) -> Goal:
    if name is None or version is None:
        raise InvalidArgument("name and version must not be NULL", hint="CALL prepare_rollout('model', 'version')")
    if ModelReference.parse(name).version is not None:
        raise InvalidArgument("name is the name of a model, without a version")
    with own_settings(db):
        target, _ = Rules().read(db, str(ModelReference.parse(f"{name}@{version}")))
        return store.read_goal(db, target.model_version_id)


def _tell_of_others(
    db: Session, goal: Goal, all_collections: list[PlannedCollection], all_columns: list[PlannedColumn]
) -> None:
    """Say what only others can prepare; an error if there is nothing else."""
    things: dict[str, PlannedCollection | PlannedColumn]
    things = {f'collection "{planned.name}"': planned for planned in all_collections}
    things |= {f"column {planned.label}": planned for planned in all_columns}
    if things and not any(planned.is_own for planned in things.values()):
        owners = ", ".join(sorted({f'"{planned.owner}"' for planned in things.values()}))
        raise PermissionDenied(
            f'must be owner of the tables that model "{goal.model}" is used in', detail=f"They belong to {owners}."
        )
    for thing, planned in things.items():
        if not planned.is_own and not planned.is_done:
            db.warn(f'{thing} is left out: its table belongs to "{planned.owner}", who has to {goal.call}')


def _read_golden(db: Session, query: str, planned: list[PlannedCollection]) -> list[Golden]:
    if len(planned) != 1:
        raise InvalidArgument(
            f'option "golden_query" needs one collection, and there are {len(planned)}',
            detail="The keys that it names are those of one table.",
        )
    # It becomes a part of another query.
    return read_golden(db, query.rstrip("; \t\r\n"))
