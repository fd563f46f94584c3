"""Vectors of a recorded column in another space, in a column beside it that takes its name at a promotion."""

from __future__ import annotations

from functools import partial

from pgml_tune.db import Session
from pgml_tune.errors import NotReady, UndefinedColumn
from pgml_tune.service.blocks import DEFAULT_BATCH
from pgml_tune.service.filling import Embed, fill_column
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.pace import Pace, insist
from pgml_tune.service.preparation_options import Options
from pgml_tune.store import filling
from pgml_tune.store import preparation as store
from pgml_tune.store.filling import Column
from pgml_tune.store.preparation import Goal, PlannedColumn


def prepare_column(db: Session, embed: Embed, goal: Goal, options: Options, planned: PlannedColumn) -> None:
    """Give a recorded column its shadow."""
    facts = filling.target_facts(db, planned.relation, planned.source_column, "")
    if facts is None or not facts.has_source:
        raise UndefinedColumn(
            f'{planned.label} was filled from column "{planned.source_column}", which is gone',
            hint="CALL embed_table('table', 'text column', 'vector column') once more",
        )
    if planned.shadow_id is None:
        insist(db, planned.label, partial(store.add_shadow, db, planned.column_id, goal.version_id))
        found = [other for other in store.planned_columns(db, goal) if other.column_id == planned.column_id]
        planned = found[0] if found else planned
    shadow_id, shadow = _find_shadow(db, planned)
    total = filling.count_unfilled(db, shadow)
    if planned.is_done and not total:
        db.notice(f"{planned.label}: prepared already")
    else:
        _fill_shadow(db, embed, goal, options, shadow, total)
    insist(db, planned.label, partial(store.finish_shadow, db, planned.column_id, shadow_id))


def drop_shadow(db: Session, planned: PlannedColumn) -> None:
    """Give up what was prepared for a column."""
    if planned.shadow_id is not None:
        insist(db, planned.label, partial(store.drop_shadow, db, planned.shadow_id))
        db.notice(f'{planned.label}: column "{planned.shadow_column}" is dropped')


def _fill_shadow(db: Session, embed: Embed, goal: Goal, options: Options, shadow: Column, total: int) -> None:
    pace = Pace(db, goal, shadow.label, total, options.rows_per_second)
    left = fill_column(db, embed, shadow, options.batch(DEFAULT_BATCH), pace)
    pace.finish()
    if left:
        raise NotReady(
            f"{left} rows of {shadow.label} are without a vector, because others kept changing them", hint=goal.call
        )
    pace.enter("indexing")


def _find_shadow(db: Session, planned: PlannedColumn) -> tuple[int, Column]:
    """The number of a shadow, and what it takes to fill it."""
    if planned.shadow_id is None or planned.shadow_column is None or planned.shadow_version_id is None:
        raise NotReady(f"what is prepared for {planned.label} was dropped meanwhile")
    with own_settings(db):
        reference, _ = filling.version_facts(db, planned.shadow_version_id)
    label = f"{planned.label} ({planned.shadow_column})"
    source, target = planned.source_column, planned.shadow_column
    column = Column(planned.relation, source, target, planned.shadow_version_id, reference, label, is_mixed=False)
    return planned.shadow_id, column
