"""Rows that are held out to measure with."""

from __future__ import annotations

import pytest

from pgml_tune.jobs.shares import hold_out

ROWS = [[f"text {number // 2}", f"other {number}"] for number in range(100)]


def test_a_share_is_held_out_and_nothing_is_lost() -> None:
    train, held = hold_out(ROWS, 0.1, 42)
    assert len(held) == 10
    assert sorted(train + held) == sorted(ROWS)


def test_rows_that_begin_alike_stay_together() -> None:
    train, held = hold_out(ROWS, 0.2, 42)
    assert not {row[0] for row in train} & {row[0] for row in held}


def test_the_seed_decides() -> None:
    assert hold_out(ROWS, 0.1, 1) == hold_out(ROWS, 0.1, 1) != hold_out(ROWS, 0.1, 2)


@pytest.mark.parametrize("count", [10, 11, 20])
def test_few_rows_leave_enough_for_both(count: int) -> None:
    train, held = hold_out([[str(number), ""] for number in range(count)], 0.1, 42)
    assert len(held) == 3
    assert len(train) == count - 3


def test_rows_that_all_begin_alike_are_all_trained_with() -> None:
    assert hold_out([["same", str(number)] for number in range(50)], 0.1, 42)[1] == []


def test_no_share_holds_nothing_out() -> None:
    assert hold_out(ROWS, 0, 42) == (ROWS, [])
