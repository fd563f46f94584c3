"""Vectors of a collection in another space, beside those that answer its searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pgml_tune.db import Session
from pgml_tune.errors import LimitExceeded, NotReady
from pgml_tune.service import collection as collections
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.pace import Pace, insist
from pgml_tune.service.preparation_options import Options
from pgml_tune.service.validation import Golden, describe, validate
from pgml_tune.store import collection as collection_store
from pgml_tune.store import preparation as store
from pgml_tune.store import queue
from pgml_tune.store.collection import Collection
from pgml_tune.store.preparation import Goal, PlannedCollection

# The longest chunk that a model takes.
LongestChunk = Callable[[Session, str], int]


def prepare_collection(
    db: Session,
    goal: Goal,
    options: Options,
    longest_chunk: LongestChunk,
    planned: PlannedCollection,
    golden: Sequence[Golden],
) -> bool:
    """Give a collection its twin; whether that may answer searches."""
    thing = f'collection "{planned.name}"'
    if planned.is_done and not golden:
        db.notice(f"{thing}: prepared already")
        return True
    if planned.is_retired:
        raise NotReady(f"{thing} gives up its vectors of this space just now", hint="CALL maintain()")
    twin = None if planned.twin_id is None else collection_store.get_collection(db, planned.twin_id)
    if twin is None:
        _check_fit(db, goal, longest_chunk, planned)
        insist(db, thing, partial(store.add_twin, db, planned.collection_id, goal.version_id))
        twin = _find_twin(db, goal, planned)
    if twin.is_lost:
        raise NotReady(
            f"the vectors that were prepared for {thing} are not as they were made",
            hint=f"""{goal.call[:-1]}, '{{"drop": true}}'); {goal.call}""",
        )
    if not planned.is_done:
        _fill_twin(db, goal, options, twin, thing)
    store.show_progress(db, goal, thing, "measuring", 0, 0)
    db.commit()
    figures = validate(db, twin.collection_id, planned.collection_id, options.sample, options.min_recall, golden)
    store.record_validation(db, twin.collection_id, figures)
    db.commit()
    db.notice(f"{thing}: {describe(figures)}")
    return bool(figures["passed"])


def drop_twin(db: Session, planned: PlannedCollection) -> None:
    """Give up what was prepared of a collection, unless searches may go there."""
    if planned.twin_id is None:
        return
    outcome: list[bool | None] = []

    def drop(twin_id: int) -> bool:
        outcome.append(store.drop_twin(db, twin_id))
        return outcome[-1] is not None

    thing = f'collection "{planned.name}"'
    insist(db, thing, partial(drop, planned.twin_id))
    db.notice(f"{thing}: {'given up' if outcome[-1] else 'its searches may go there, so it stays'}")


def _check_fit(db: Session, goal: Goal, longest_chunk: LongestChunk, planned: PlannedCollection) -> None:
    """Refuse a version that cannot hold the collection as it is set up."""
    with own_settings(db):
        collection = _found(collection_store.get_collection(db, planned.collection_id), planned)
        most = collections.HNSW_DIMENSIONS[collection.storage]
        if collection.index_method != "none" and goal.dimensions > most:
            raise LimitExceeded(
                f'collection "{planned.name}" is stored as {collection.storage}, whose index takes {most} dimensions,'
                f" the version has {goal.dimensions}"
            )
        if collection.chunk_tokens is not None:
            longest = longest_chunk(db, f"{goal.model}@{goal.version}")
            if collection.chunk_tokens > longest:
                raise LimitExceeded(
                    f'collection "{planned.name}" has chunks of {collection.chunk_tokens} tokens, the version takes'
                    f" {longest}"
                )


def _find_twin(db: Session, goal: Goal, planned: PlannedCollection) -> Collection:
    for found in store.planned_collections(db, goal):
        if found.collection_id == planned.collection_id and found.twin_id is not None:
            return _found(collection_store.get_collection(db, found.twin_id), planned)
    return _found(None, planned)


def _found(collection: Collection | None, planned: PlannedCollection) -> Collection:
    if collection is None:
        raise NotReady(f'collection "{planned.name}" was dropped meanwhile')
    return collection


def _fill_twin(db: Session, goal: Goal, options: Options, twin: Collection, thing: str) -> None:
    # A call that was ended while the index was made has left its writers unfollowed.
    insist(db, thing, partial(store.follow_twin, db, twin.collection_id, True))
    pace = Pace(db, goal, thing, collection_store.count_missing(db, twin.collection_id), options.rows_per_second)

    def finish(db: Session, collection_id: int) -> int:
        if twin.mode == "queue":
            queue.fill(db, collection_id)  # what has changed since, the worker embeds
        elif missing := collection_store.count_missing(db, collection_id):
            return missing
        pace.enter("indexing")
        if store.wants_index(db, collection_id):
            _make_index(db, collection_id, thing)
        return collection_store.finish_collection(db, collection_id)

    left = collections.fill_rows(db, twin, pace, finish, options.batch(twin.batch_size))
    collection_store.delete_orphans(db, twin.collection_id)
    db.commit()
    if left:
        raise NotReady(
            f"{left} rows of {thing} have no vectors yet",
            detail="Other sessions kept them locked. All other rows are done.",
            hint=goal.call,
        )
    pace.finish()


def _make_index(db: Session, collection_id: int, thing: str) -> None:
    """Make the index while no writer feeds it, or all of them would wait; what they miss is found afterwards."""
    db.commit()
    insist(db, thing, partial(store.follow_twin, db, collection_id, False))
    store.make_index(db, collection_id)
    db.commit()
    insist(db, thing, partial(store.follow_twin, db, collection_id, True))
