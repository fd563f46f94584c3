"""The walk over the blocks of a table: what is read next, and what is left."""

import random

import pytest

from pgml_tune.service.blocks import MAX_BLOCKS, MAX_PASSES, Leaf, Outcome, Range, fill, next_range


class Session:
    def __init__(self):
        self.commits = 0
        self.pauses = []

    def commit(self):
        self.commits += 1
        return True

    def sleep(self, seconds):
        self.pauses.append(seconds)


class Silence:
    def __init__(self):
        self.rows = 0

    def add(self, rows):
        self.rows += rows


class Table:
    """Blocks with rows that need something; `locked` rows are found and cannot be stored for so many looks."""

    def __init__(self, rows_per_block, locked=None):
        self.waiting = [set(range(rows)) for rows in rows_per_block]
        self.locked = dict(locked or {})
        self.sizes = []

    @property
    def leaf(self):
        return Leaf(1, len(self.waiting))

    @property
    def rows_waiting(self):
        return sum(map(len, self.waiting))

    def store(self, leaf, first, end, max_rows):
        assert 0 <= first < end <= len(self.waiting)
        found = [(block, row) for block in range(first, end) for row in sorted(self.waiting[block])][:max_rows]
        stored = 0
        for block, row in found:
            if self.locked.get((block, row), 0) > 0:
                self.locked[block, row] -= 1
            else:
                self.waiting[block].remove(row)
                stored += 1
        self.sizes.append(len(found))
        return Outcome(len(found), stored)


def run(table, batch_size):
    db, progress = Session(), Silence()
    return fill(db, [table.leaf], batch_size, table.store, progress), db, progress


@pytest.mark.parametrize(
    ("part", "outcome", "expected"),
    [
        (Range(0, 16), Outcome(0, 0), Range(16, 64)),  # nothing here: look further at once
        (Range(0, 16), Outcome(75, 75), Range(16, 16)),  # three quarters of a batch: just right
        (Range(0, 16), Outcome(50, 50), Range(16, 24)),
        (Range(0, 16), Outcome(1, 1), Range(16, 64)),
        (Range(0, 16), Outcome(99, 99), Range(16, 12)),
        (Range(0, 16), Outcome(100, 100), Range(0, 4)),  # more than a batch: again from its beginning
        (Range(0, 16), Outcome(100, 0), Range(0, 4)),  # all of these are being changed: pass them in small steps
        (Range(0, 16), Outcome(3, 3, is_cut=True), Range(0, 4)),  # few rows with very long texts
        (Range(7, 1), Outcome(100, 100), Range(7, 1, 1)),
        (Range(7, 1, 1), Outcome(100, 0), Range(8, 1)),
        (Range(900, 64), Outcome(0, 0), Range(964, 36)),  # no further than the table
        (Range(964, 36), Outcome(9, 9), Range(1000, 0)),  # its end
    ],
)
def test_the_next_range_holds_about_a_batch(part, outcome, expected):
    assert next_range(part, outcome, 100, 1000) == expected


def test_a_range_never_grows_beyond_what_one_statement_should_read():
    assert next_range(Range(0, MAX_BLOCKS), Outcome(0, 0), 100, 10**9).blocks == MAX_BLOCKS


def test_a_block_whose_rows_are_found_for_ever_is_left_behind():
    part, looks = Range(0, 1), 0
    while part.first == 0:
        part, looks = next_range(part, Outcome(1, 1), 1, 2), looks + 1
    assert looks < 10_000


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_stored_in_parts_no_larger_than_a_batch(batch_size, seed):
    rows = random.Random(seed).choices([0, 0, 0, 1, 40, 226], k=300)
    table = Table(rows)
    left, db, progress = run(table, batch_size)
    assert (left, table.rows_waiting, progress.rows) == (0, 0, sum(rows))
    assert max(table.sizes) <= batch_size
    assert db.commits == len(table.sizes)
    assert db.pauses == []


def test_parts_are_near_a_batch_in_an_even_table():
    table = Table([20] * 2000)
    run(table, 1000)
    full = [size for size in table.sizes if size >= 500]
    assert len(full) > 0.9 * len(table.sizes)


def test_rows_that_others_change_are_stored_in_a_later_pass():
    table = Table([20] * 100, locked={(3, 5): 2, (99, 19): 1})
    left, db, _ = run(table, 1000)
    assert (left, table.rows_waiting) == (0, 0)
    assert len(db.pauses) == 2


def test_rows_that_others_change_without_end_are_counted_as_left():
    table = Table([20] * 100, locked={(3, 5): 1000, (50, 0): 1000, (99, 19): 1000})
    left, db, progress = run(table, 1000)
    assert (left, table.rows_waiting) == (3, 3)
    assert len(db.pauses) == MAX_PASSES - 1
    assert progress.rows == 1997


def test_a_batch_of_rows_that_others_change_does_not_hide_those_behind_it():
    locked = {(block, row): 1000 for block in range(2) for row in range(20)}
    table = Table([20] * 20, locked=locked)
    left, _, progress = run(table, 10)
    assert progress.rows == 18 * 20
    assert left >= 20  # in each block only a batch of them was looked at


def test_an_empty_table_is_not_read():
    table = Table([])
    assert run(table, 10)[0] == 0
    assert table.sizes == []


def test_all_tables_are_walked():
    one, two = Table([5] * 3), Table([5] * 40)
    left = fill(
        Session(), [Leaf(1, 3), Leaf(2, 40)], 10,
        lambda leaf, *part: (one if leaf.oid == 1 else two).store(leaf, *part), Silence(),
    )  # fmt: skip
    assert (left, one.rows_waiting, two.rows_waiting) == (0, 0, 0)
