"""Vector columns of users' own tables: what may be filled, and the filling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgml_tune.db import Session
from pgml_tune.errors import (
    DatatypeMismatch,
    InvalidArgument,
    LimitExceeded,
    NotReady,
    NotSupported,
    UndefinedColumn,
    UndefinedTable,
    WrongObjectType,
)
from pgml_tune.service import blocks
from pgml_tune.service.blocks import DEFAULT_BATCH, MAX_BATCH, Leaf, Outcome, Store
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.progress import Progress
from pgml_tune.service.resolution import Rules
from pgml_tune.store import filling
from pgml_tune.store.filling import Column, TargetFacts
from pgml_tune.store.registry import Target

_MAX_ROUNDS = 5

# The vectors of texts under a version, and how many texts were cut.
Embed = Callable[[Sequence[str], str], tuple[list[str], int]]


def embed_table(
    db: Session,
    embed: Embed,
    source: str | None,
    source_column: str | None,
    target_column: str | None,
    model: str | None,
    batch_size: int | None,
    overwrite: bool | None,
) -> None:
    """Give every row with a text its vector, and commit as it goes."""
    if source is None or not source_column or not target_column or overwrite is None:
        raise InvalidArgument(
            "source, source_column, target_column and overwrite must not be empty",
            hint="CALL embed_table('table', 'text column', 'vector column')",
        )
    size = DEFAULT_BATCH if batch_size is None else batch_size
    if not 1 <= size <= MAX_BATCH:
        raise InvalidArgument(f"batch_size is {size}, it must be 1 to {MAX_BATCH}")
    column = _begin(db, source, source_column, target_column, model, overwrite)
    if not db.commit():
        db.notice(f"{column.label}: in a transaction block nothing is committed before you commit it")
    if column.is_mixed:
        _clear(db, column, size)
    progress = Progress(db, column.label, filling.count_unfilled(db, column))
    left = fill_column(db, embed, column, size, progress)
    progress.finish()
    if left:
        db.notice(f"{column.label}: {left} rows are without a vector, because others kept changing them; call again")


def _begin(
    db: Session, source: str, source_column: str, target_column: str, model: str | None, overwrite: bool
) -> Column:
    """Check that a column can be filled, add it if it is missing, and record its version."""
    relation = filling.relation_oid(db, source)
    facts = _checked_facts(db, relation, source, source_column, target_column)
    with own_settings(db):
        target, _ = Rules().read(db, model)
        model_version, space_id = filling.version_facts(db, target.model_version_id)
        tracked = filling.tracked_space(db, relation, target_column)
    is_mixed = False
    if not facts.has_target:
        filling.add_column(db, relation, target_column, target.dimensions)
    else:
        _check_target(facts, target_column, target)
        if facts.is_generated:
            raise NotSupported(f'column "{target_column}" is generated: PostgreSQL fills it itself')
        is_mixed = overwrite or tracked == (space_id, True)  # a run that was to overwrite did not come to its end
        if not is_mixed and tracked != (space_id, False) and filling.has_vectors(db, relation, target_column):
            raise NotReady(
                f'column "{target_column}" holds vectors that are not known to be of model "{model_version}"',
                detail="It is not recorded." if tracked is None else f"It is recorded with space {tracked[0]}.",
                hint="overwrite => true makes all of them anew. If somebody else filled the column with this model:"
                f" SELECT track_column('{source}', '{target_column}', '{model_version}')",
            )
    filling.record_filled(db, relation, target_column, target.model_version_id, source_column, is_mixed)
    label = f"{facts.schema_name}.{facts.table_name}.{target_column}"
    return Column(relation, source_column, target_column, target.model_version_id, model_version, label, is_mixed)


def track_column(db: Session, source: str | None, target_column: str | None, model: str | None) -> None:
    """Record that a column holds vectors of a version."""
    if source is None or not target_column or model is None:
        raise InvalidArgument(
            "source, target_column and model must not be empty",
            hint="SELECT track_column('table', 'vector column', 'model@version')",
        )
    relation = filling.relation_oid(db, source)
    facts = _checked_facts(db, relation, source, None, target_column)
    if not facts.has_target:
        raise UndefinedColumn(f'column "{target_column}" of table "{_name(facts)}" does not exist')
    target, _ = Rules().read(db, model)
    _check_target(facts, target_column, target)
    filling.record_foreign(db, relation, target_column, target.model_version_id)


def _checked_facts(
    db: Session, relation: int, source: str, source_column: str | None, target_column: str
) -> TargetFacts:
    facts = filling.target_facts(db, relation, source_column, target_column)
    if facts is None:
        raise UndefinedTable(f"table {source} does not exist")
    if facts.kind not in "rp" or facts.is_temporary or facts.is_ours:
        raise WrongObjectType(
            f'"{_name(facts)}" is not a table that can be filled',
            detail="It must be a plain or partitioned table, neither temporary nor of a system schema or of pgml_tune.",
        )
    if facts.is_inherited:
        raise NotSupported(f'table "{_name(facts)}" has children by inheritance', hint="Name the children one by one.")
    if source_column is not None:
        if not facts.has_source:
            raise UndefinedColumn(f'column "{source_column}" of table "{_name(facts)}" does not exist')
        if not facts.is_text:
            raise DatatypeMismatch(f'column "{source_column}" of table "{_name(facts)}" is not of a text type')
    if facts.is_system:
        raise InvalidArgument(f'"{target_column}" is the name of a system column')
    return facts


def _check_target(facts: TargetFacts, target_column: str, target: Target) -> None:
    if facts.target_type is None:
        raise DatatypeMismatch(f'column "{target_column}" of table "{_name(facts)}" is neither a vector nor a halfvec')
    if facts.target_dimensions not in (None, target.dimensions):
        raise DatatypeMismatch(
            f'column "{target_column}" has {facts.target_dimensions} dimensions, the model has {target.dimensions}',
        )


def _clear(db: Session, column: Column, batch_size: int) -> None:
    """Take all vectors away, so that never vectors of two spaces stand in the column, nor two runs of one row."""

    def clear(leaf: Leaf, first_block: int, end_block: int, max_rows: int) -> Outcome:
        return Outcome(*filling.clear_part(db, column, leaf.oid, first_block, end_block, max_rows))

    progress = Progress(db, f"{column.label}, clearing", 0)
    left = _repeat(db, column, batch_size, clear, progress)
    if left:
        raise NotReady(
            f"{left} rows of {column.label} are locked by others and keep their vectors",
            hint="Call embed_table() again: it goes on where this call ended.",
        )
    filling.record_filled(db, column.relation, column.target_column, column.version_id, column.source_column)
    db.commit()


def fill_column(db: Session, embed: Embed, column: Column, batch_size: int, progress: Progress) -> int:
    """Give the rows of a column their vectors, and say how many are left because others kept changing them."""
    truncated = 0

    def store(leaf: Leaf, first_block: int, end_block: int, max_rows: int) -> Outcome:
        nonlocal truncated
        part = filling.read_part(db, column, leaf.oid, first_block, end_block, max_rows)
        if not part.texts:
            return Outcome(0, 0)
        db.commit()  # the model works without a lock or a snapshot
        try:
            with own_settings(db):
                vectors, cut = embed(part.texts, column.model_version)
        except LimitExceeded as error:
            longest = max(range(len(part.texts)), key=lambda place: len(part.texts[place]))
            detail = f"The longest text of this batch is in the row with ctid {part.places[longest]}."
            raise LimitExceeded(error.message, detail=detail, hint=error.hint) from None
        stored = filling.store_part(db, column, leaf.oid, part, vectors)
        if stored is None:
            raise NotReady(
                f"{column.label} gets vectors of another version by now",
                hint="SELECT * FROM pgml_tune.tracked_columns",
            )
        truncated += cut
        return Outcome(len(part.texts), stored, part.is_cut)

    left = _repeat(db, column, batch_size, store, progress)
    if truncated:
        db.notice(f"{column.label}: {truncated} texts were longer than the model reads and were cut")
    return left


def _repeat(db: Session, column: Column, batch_size: int, store: Store, progress: Progress) -> int:
    """Walk over the table until nothing is found: what others change meanwhile moves to blocks already seen."""
    left = 0
    for _ in range(_MAX_ROUNDS):
        counting = _Counting(store)
        leaves = [Leaf(*leaf) for leaf in filling.leaves(db, column.relation)]
        left = blocks.fill(db, leaves, batch_size, counting, progress)
        if left or not counting.stored:
            break
    return left


class _Counting:
    """A `Store` that remembers how much it has stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stored = 0

    def __call__(self, leaf: Leaf, first_block: int, end_block: int, max_rows: int) -> Outcome:
        outcome = self._store(leaf, first_block, end_block, max_rows)
        self.stored += outcome.stored
        return outcome


def _name(facts: TargetFacts) -> str:
    return f"{facts.schema_name}.{facts.table_name}"
