"""Units and the variants they belong to."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgml_tune.service.assignment import BUCKETS, CANDIDATE, SERVING, unit_number, variant_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
SHARE = st.integers(0, BUCKETS)


@given(TEXT, TEXT)
def test_a_unit_is_the_first_60_bits_of_its_salted_hash(salt, unit):
    number = unit_number(salt, unit)
    assert f"{number:015x}" == hashlib.sha256(f"{salt}:{unit}".encode()).hexdigest()[:15]
    assert 0 <= number < 1 << 60


@given(st.integers(0, (1 << 60) - 1), SHARE, SHARE)
def test_as_the_share_grows_nobody_leaves_the_candidate(unit, share, other):
    lower, higher = sorted((share, other))
    if variant_of(unit, lower) == CANDIDATE:
        assert variant_of(unit, higher) == CANDIDATE


@given(st.integers(0, (1 << 60) - 1))
def test_no_share_is_nobody_and_the_whole_is_everybody(unit):
    assert variant_of(unit, 0) == SERVING
    assert variant_of(unit, BUCKETS) == CANDIDATE


@pytest.mark.parametrize("share", [100, 2000, 5000])
def test_the_share_of_many_units_is_the_share_that_was_asked_for(share):
    size = 20_000
    found = sum(variant_of(unit_number("salt", f"user {number}"), share) == CANDIDATE for number in range(size))
    deviation = (size * share / BUCKETS * (1 - share / BUCKETS)) ** 0.5
    assert abs(found - size * share / BUCKETS) < 4 * deviation


def test_two_salts_choose_independently():
    size = 10_000
    both = sum(
        variant_of(unit_number("a", str(number)), 5000) == variant_of(unit_number("b", str(number)), 5000)
        for number in range(size)
    )
    assert abs(both - size / 2) < 4 * (size / 4) ** 0.5
