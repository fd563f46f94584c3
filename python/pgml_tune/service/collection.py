"""Tables kept embedded: what `auto_embed()` accepts, and the fill that every collection begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgml_tune.db import Session
from pgml_tune.errors import (
    InvalidArgument,
    LimitExceeded,
    NameTaken,
    NotReady,
    ObjectNotFound,
    UndefinedTable,
)
from pgml_tune.records import ModelReference
from pgml_tune.service import blocks
from pgml_tune.service.blocks import DEFAULT_BATCH, MAX_BATCH, Leaf, Outcome
from pgml_tune.service.options import parse_options
from pgml_tune.service.progress import Progress
from pgml_tune.service.resolution import Rules
from pgml_tune.service.source import check_source, literal
from pgml_tune.store import collection as store
from pgml_tune.store import filling, queue
from pgml_tune.store.collection import Collection, SourceFacts

MODES = ("trigger", "queue")
MAX_NAME = 200
_MAX_ROUNDS = 10
HNSW_DIMENSIONS = {"vector": 2000, "halfvec": 4000}  # pgvector's limits
# Opens a filled collection to its readers, and says how many rows are not filled.
Finish = Callable[[Session, int], int]
_SHOW = "SELECT collection, source, source_column FROM pgml_tune.embedding_collections"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `auto_embed()`; None means not given."""

    index: str | None = None
    storage: str | None = None
    chunk_tokens: int | None = None
    chunk_overlap: int | None = None
    batch_size: int | None = None
    text_search: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> Options:
        values = parse_options(text, cls.__slots__, "'index', 'hnsw'")
        for name, value in values.items():
            _check_option(name, value)
        return cls(**values)


_WORDS = {"index": ("auto", "hnsw", "none"), "storage": ("vector", "halfvec")}
_NUMBERS = {"chunk_tokens": (1, 1_000_000), "chunk_overlap": (0, 1_000_000), "batch_size": (1, MAX_BATCH)}


def _check_option(name: str, value: object) -> None:
    if value is None:
        return
    if name in _WORDS and value not in _WORDS[name]:
        raise InvalidArgument(f'option "{name}" is not one of {", ".join(_WORDS[name])}')
    if name in _NUMBERS:
        lowest, highest = _NUMBERS[name]
        if type(value) is not int or not lowest <= value <= highest:
            raise InvalidArgument(f'option "{name}" is not an integer from {lowest} to {highest}')
    if name == "text_search" and type(value) is not str:
        raise InvalidArgument('option "text_search" is neither the name of a text search configuration nor none')


def prepare(
    db: Session,
    longest_chunk: Callable[[Session, str], int],
    source: str | None,
    column: str | None,
    model: str | None,
    name: str | None,
    mode: str | None,
    options_text: str | None,
) -> int:
    """The number of the collection that these arguments describe; it is added and built unless it is there."""
    if source is None or column is None:
        raise InvalidArgument("source and source_column must not be NULL")
    options = Options.parse(options_text)
    if mode not in (None, *MODES):
        raise InvalidArgument("mode is not valid", detail=f"Valid are: {', '.join(MODES)}.")
    facts = store.source_facts(db, source, column, name)
    if facts is None:
        raise UndefinedTable("the table does not exist any more")
    check_source(facts, source, column)
    if name is None:
        name = facts.default_name
    existing = store.find_collection(db, name)
    if existing is not None:
        return _take_up(db, existing, facts, column, model, mode, options)
    _check_new_name(name, facts.default_name)
    if not facts.has_names:
        raise NameTaken(
            "the names of the view and the query function of the collection are taken in the schema of the table",
            detail="They begin with table and column, or a collection name of yours, and end in _embedding and _query.",
            hint=f"CALL auto_embed('{literal(source)}', '{literal(column)}', collection => 'another_name')",
        )
    settings = _settings(db, longest_chunk, options, model)
    settings |= {"name": name, "source_oid": facts.source_oid, "source_column": column, "mode": mode or MODES[0]}
    collection_id = store.add_collection(db, settings)
    if collection_id is not None:
        return collection_id
    # Another session has added it since.
    existing = store.find_collection(db, name)
    if existing is None:
        raise _taken(name)
    return _take_up(db, existing, facts, column, model, mode, options)


def _check_new_name(name: str, default_name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or (name != default_name and "." in name):
        raise InvalidArgument(
            "collection name is not valid",
            detail=f"A name of your own has 1 to {MAX_NAME} characters and no dot, as names of columns have.",
        )


def _take_up(
    db: Session,
    existing: Collection,
    facts: SourceFacts,
    column: str,
    model: str | None,
    mode: str | None,
    options: Options,
) -> int:
    """The number of a collection that is there already, if it is the one that was described."""
    if existing.is_lost:
        if existing.source_oid != facts.source_oid:
            raise NotReady(f'collection "{existing.name}" is of a table that was dropped', hint="CALL maintain()")
        raise NotReady(
            f'the column or the vectors of collection "{existing.name}" are not as they were made',
            hint=f"SELECT drop_auto_embed('{literal(existing.name)}')",
        )
    reference = None if model is None else ModelReference.parse(model)
    own_reference = ModelReference.parse(existing.model_reference)
    wanted = {
        "source": facts.source_oid,
        "source_column": column,
        "model": reference and reference.name,
        "version": reference and reference.version,
        "storage": options.storage,
        "chunk_tokens": options.chunk_tokens,
        "chunk_overlap": options.chunk_overlap,
        "text_search": options.text_search,
    }
    found = {
        "source": existing.source_oid,
        "source_column": existing.source_column,
        "model": own_reference.name,
        "version": own_reference.version,
        "storage": existing.storage,
        "chunk_tokens": existing.chunk_tokens,
        "chunk_overlap": existing.chunk_overlap,
        "text_search": existing.text_search or "none",
    }
    different = [key for key, value in wanted.items() if value is not None and value != found[key]]
    if different:
        raise _taken(existing.name, f"It differs in: {', '.join(different)}.")
    new_mode = mode if mode != existing.mode else None
    if options.index is not None or options.batch_size is not None or new_mode is not None:
        store.change_collection(db, existing.collection_id, options.index, options.batch_size, new_mode)
    return existing.collection_id


def _taken(name: str, detail: str = "") -> NameTaken:
    return NameTaken(
        f'collection "{name}" exists already', detail=detail, hint=f"SELECT drop_auto_embed('{literal(name)}')"
    )


def _settings(
    db: Session, longest_chunk: Callable[[Session, str], int], options: Options, model: str | None
) -> dict[str, Any]:
    """The columns of the row, with the defaults filled in."""
    target, _ = Rules().read(db, model)
    reference, _ = filling.version_facts(db, target.model_version_id)
    storage = options.storage or "vector"
    index = options.index or "auto"
    if index != "none" and target.dimensions > HNSW_DIMENSIONS[storage]:
        most = HNSW_DIMENSIONS[storage]
        raise LimitExceeded(
            f"an HNSW index on {storage} takes {most} dimensions, the model has {target.dimensions}",
            hint='Use the option {"storage": "halfvec"} or {"index": "none"}.',
        )
    overlap = options.chunk_overlap or 0
    if options.chunk_tokens is None:
        if overlap:
            raise InvalidArgument('option "chunk_overlap" needs the option "chunk_tokens"')
    else:
        longest = longest_chunk(db, reference)
        if options.chunk_tokens > longest:
            raise InvalidArgument(
                f'option "chunk_tokens" is {options.chunk_tokens}, model "{reference}" takes at most {longest}'
            )
        if overlap > options.chunk_tokens // 2:
            raise InvalidArgument('option "chunk_overlap" is more than half of "chunk_tokens"')
    text_search = None
    if options.text_search != "none":
        text_search = store.find_text_search(db, options.text_search)
        if text_search is None:
            raise ObjectNotFound(
                "there is no text search configuration of the name given as text_search",
                hint="SELECT cfgname FROM pg_ts_config",
            )
    return {
        "model_version_id": target.model_version_id,
        "model_reference": reference,
        "dimensions": target.dimensions,
        "index_method": index,
        "storage": storage,
        "chunk_tokens": options.chunk_tokens,
        "chunk_overlap": overlap,
        "batch_size": options.batch_size or DEFAULT_BATCH,
        "text_search": text_search,
    }


def fill(db: Session, collection_id: int) -> None:
    """Embed the rows that need it in committed batches, then open the collection to its readers."""
    collection = store.get_collection(db, collection_id)
    if collection is None:
        raise ObjectNotFound("the collection does not exist any more")
    if collection.mode == "queue":
        _leave_to_worker(db, collection)
        return
    if not db.commit():
        db.notice(
            f'collection "{collection.name}": filled inside a transaction block, so nothing is committed before you do,'
            f" and writers of {collection.source} wait until then"
        )
    progress = Progress(db, f'collection "{collection.name}"', store.count_missing(db, collection_id))
    db.commit()
    left = fill_rows(db, collection, progress)
    store.delete_orphans(db, collection_id)
    db.commit()
    if left:
        raise NotReady(
            f'{left} rows of collection "{collection.name}" have no vectors yet',
            detail="Other sessions kept them locked. All other rows are done.",
            hint=f"CALL auto_embed('{literal(collection.source)}', '{literal(collection.source_column)}',"
            f" collection => '{literal(collection.name)}')",
        )
    progress.finish()


def _leave_to_worker(db: Session, collection: Collection) -> None:
    what = f'collection "{collection.name}"'
    if queue.refill(db, collection.collection_id):
        db.notice(f"{what}: the worker embeds its rows; pgml_tune.stat_progress shows how many wait")
    else:
        db.warn(f"{what}: its rows wait, since no worker serves this database: start pgml-tune worker")


def fill_rows(
    db: Session,
    collection: Collection,
    progress: Progress,
    finish: Finish = store.finish_collection,
    batch_size: int | None = None,
) -> int:
    """Embed the rows that need it, finish the collection when all have vectors, and say how many have not.

    A row that is updated may move to where the walk has been, so it is walked again until nothing is missing.
    """

    def keep(leaf: Leaf, first: int, end: int, max_rows: int) -> Outcome:
        return Outcome(*store.fill_part(db, collection.collection_id, leaf.oid, first, end, max_rows))

    missing = 0
    for _ in range(_MAX_ROUNDS):
        leaves = [Leaf(*leaf) for leaf in filling.leaves(db, collection.source_oid)]
        blocks.fill(db, leaves, batch_size or collection.batch_size, keep, progress)
        missing = finish(db, collection.collection_id)
        db.commit()
        if not missing:
            break
    return missing


def mend(db: Session) -> None:
    """Bring all collections in line with what has happened to their tables."""
    for name in store.drop_lost_collections(db):
        db.notice(f'collection "{name}": dropped, its table is gone')
    db.commit()
    for collection_id in store.collection_ids(db):
        # What the owner of one has done must not keep the others from being mended.
        failure = db.attempt(partial(_mend_one, db, collection_id))
        if failure is not None:
            db.notice(f"collection {collection_id} cannot be mended: {failure}")
        db.commit()


def _mend_one(db: Session, collection_id: int) -> None:
    changes = store.mend_collection(db, collection_id)
    db.commit()
    collection = store.get_collection(db, collection_id)
    if collection is None or collection.is_lost:
        return
    what = f'collection "{collection.name}"'
    if changes is None:
        db.notice(f"{what}: its table is in use, left for the next run")
        return
    if changes:
        db.notice(f"{what}: mended {', '.join(sorted(changes))}")
    if collection.is_ready and not collection.is_filled and collection.mode != "queue":
        # A run that was ended leaves any of the partitions behind, so all are looked at.
        progress = Progress(db, what, store.count_missing(db, collection_id))
        fill_rows(db, collection, progress)
        progress.finish()
    if "partition detached" in changes:
        store.delete_orphans(db, collection_id)


def drop(db: Session, name: str | None) -> None:
    """Remove a collection; its table stays."""
    collection = None if name is None else store.find_collection(db, name)
    if collection is None:
        raise ObjectNotFound("there is no such collection", hint=_SHOW)
    store.drop_collection(db, collection.collection_id)
