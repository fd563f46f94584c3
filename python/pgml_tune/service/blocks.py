"""The walk over a table that is being used: block range by block range, each committed before the next is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgml_tune.db import Session
from pgml_tune.service.progress import Progress

DEFAULT_BATCH = 1000
MAX_BATCH = 100_000
MAX_PASSES = 5
FIRST_BLOCKS = 16
MAX_BLOCKS = 16_384  # 128 MB: what one statement reads where nothing is to be done
_AIM = 0.75  # of a batch: a range that holds more than one is read again from its beginning
_FACTOR = 4  # by which a range may grow or shrink at once
_MAX_REPEATS = 2_000  # of one block, which holds fewer rows: an end even where what was stored is found again
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table with rows of its own, and how many blocks it had when it was measured."""

    oid: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a range: rows that needed something, rows that have it now, and whether it may hold more of them."""

    found: int
    stored: int
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks of a table, the last not included; `repeats` counts how often it was read again."""

    first: int
    blocks: int
    repeats: int = 0

    @property
    def end(self) -> int:
        return self.first + self.blocks


# Looks at rows of these blocks (leaf, first block, end block, most rows) and stores what they need.
Store = Callable[[Leaf, int, int, int], Outcome]


def fill(db: Session, leaves: Sequence[Leaf], batch_size: int, store: Store, progress: Progress) -> int:
    """Store what the rows of these tables need, and say how many are left because others kept changing them.

    Commits after each part, also where nothing was to be done: a lock on the table must not outlast its use. In a
    transaction block nothing is committed.
    """
    left = 0
    for turn in range(MAX_PASSES):
        if turn:
            db.sleep(_PAUSE_SECONDS * 2**turn)
        left = sum(_walk(db, leaf, batch_size, store, progress) for leaf in leaves)
        if not left:
            break
    return left


def _walk(db: Session, leaf: Leaf, batch_size: int, store: Store, progress: Progress) -> int:
    left = 0
    part = Range(0, min(FIRST_BLOCKS, leaf.blocks))
    while part.blocks > 0:
        outcome = store(leaf, part.first, part.end, batch_size)
        db.commit()
        if outcome.stored:
            progress.add(outcome.stored)
        following = next_range(part, outcome, batch_size, leaf.blocks)
        if following.first > part.first:
            left += outcome.found - outcome.stored
        part = following
    return left


def next_range(part: Range, outcome: Outcome, batch_size: int, table_blocks: int) -> Range:
    """The range to look at after this one: about a batch of rows, none where the table ends."""
    if outcome.is_cut or outcome.found >= batch_size:
        if part.blocks > 1:
            return Range(part.first, max(1, part.blocks // _FACTOR))
        if outcome.stored and part.repeats < _MAX_REPEATS:
            return Range(part.first, 1, part.repeats + 1)
    wanted = part.blocks * _FACTOR
    if outcome.found:
        fitting = int(part.blocks * batch_size * _AIM / outcome.found)
        wanted = max(part.blocks // _FACTOR, min(fitting, wanted))
    size = max(1, min(wanted, MAX_BLOCKS, table_blocks - part.end))
    return Range(part.end, size if part.end < table_blocks else 0)
