"""jobs/caller.py: whether two statements return the same."""

from __future__ import annotations

import json

import pytest

from pgml_tune.errors import PermissionDenied
from pgml_tune.jobs.caller import Outcome, outcome_of
from pgml_tune.jobs.job import Access, Job


def outcome(rows: list[list[object]], is_ordered: bool = False, is_cut: bool = False) -> Outcome:
    return outcome_of(json.dumps({"error": None, "rows": rows, "is_ordered": is_ordered, "is_cut": is_cut}))


def test_rows_are_compared_without_order_unless_the_right_statement_orders() -> None:
    assert outcome([["a"], ["b"]]).matches(outcome([["b"], ["a"]], is_ordered=True))
    assert not outcome([["a"], ["b"]], is_ordered=True).matches(outcome([["b"], ["a"]]))


def test_a_row_twice_is_not_a_row_once() -> None:
    assert not outcome([["a"]]).matches(outcome([["a"], ["a"]]))


def test_numbers_are_equal_whatever_their_type_and_their_last_digits() -> None:
    assert outcome([[3, 0.1 + 0.2]]).matches(outcome([[3.0, 0.3]]))
    assert not outcome([[3]]).matches(outcome([["3"]]))
    assert not outcome([[True]]).matches(outcome([["true"]]))


def test_documents_and_nulls_are_compared() -> None:
    assert outcome([[{"b": 1, "a": [2]}, None]]).matches(outcome([[{"a": [2], "b": 1}, None]]))
    assert not outcome([[None]]).matches(outcome([[0]]))


def test_what_failed_or_was_cut_matches_nothing() -> None:
    failed = outcome_of('{"error": "it names a table that does not exist for you"}')
    assert not failed.is_valid
    assert not failed.matches(failed)
    assert not outcome([["a"]], is_cut=True).matches(outcome([["a"]], is_cut=True))


def test_a_job_without_access_is_refused(tmp_path) -> None:
    from job_folder import lay_out

    job = lay_out(tmp_path / "job", "evaluate_model", tmp_path, {})
    assert isinstance(job, Job)
    with pytest.raises(PermissionDenied):
        _ = job.access


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Access("password=secret", "somebody"))
