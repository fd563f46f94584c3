"""Which waiting texts are computed together, and when."""

from dataclasses import replace

import pytest

from pgml_tune.engine.dynamic_batching import BatchLimits, Part, Wait, form_batch

LIMITS = BatchLimits(texts=8, wait_seconds=0.1, bulk_wait_seconds=1.0)
PART = Part(
    number=0, digest="d", session=1, is_bulk=False, arrived=100.0, texts=1, tokens=10, longest=10, most_tokens=1000,
    is_mixable=True, most_texts=100,
)  # fmt: skip
NOW = 100.01


def parts(count, **changes):
    return [replace(PART, number=number, session=number, **changes) for number in range(count)]


def numbers(batch):
    return [part.number for part in batch]


def test_nothing_waits_where_nothing_is_computed():
    assert form_batch([PART], NOW, True, LIMITS, {}) == [PART]


def test_a_small_batch_waits_for_more_while_another_is_computed_but_no_longer_than_it_may():
    assert form_batch([PART], 100.04, False, LIMITS, {}) == Wait(pytest.approx(0.06))
    assert form_batch([PART], 100.1, False, LIMITS, {}) == [PART]


def test_a_batch_that_is_full_does_not_wait():
    assert len(form_batch(parts(5), NOW, False, LIMITS, {})) == 5
    assert form_batch([replace(PART, tokens=600, longest=600)], NOW, False, LIMITS, {}) != Wait(0.1)


def test_a_batch_has_no_more_texts_than_are_best_for_its_model():
    assert len(form_batch(parts(20, most_texts=3), NOW, True, LIMITS, {})) == 3


def test_a_batch_has_no_more_texts_and_padded_tokens_than_it_may():
    assert len(form_batch(parts(20), NOW, True, LIMITS, {})) == LIMITS.texts
    assert len(form_batch(parts(20, most_tokens=35), NOW, True, LIMITS, {})) == 3


def test_a_part_larger_than_a_batch_goes_alone():
    long = replace(PART, tokens=5000, longest=5000)
    assert form_batch([long, *parts(3, arrived=101.0)], NOW, True, LIMITS, {}) == [long]


def test_short_texts_are_not_padded_to_a_long_one():
    waiting = [*parts(3), replace(PART, number=9, session=9, tokens=200, longest=200)]
    assert numbers(form_batch(waiting, NOW, True, LIMITS, {})) == [0, 1, 2]


def test_models_are_not_mixed():
    waiting = [PART, replace(PART, number=1, digest="e"), replace(PART, number=2)]
    assert numbers(form_batch(waiting, NOW, True, LIMITS, {})) == [0, 2]


def test_what_neighbours_would_change_goes_alone():
    alone = replace(PART, is_mixable=False)
    assert form_batch([alone, *parts(3, arrived=101.0)], NOW, True, LIMITS, {}) == [alone]
    assert 5 not in numbers(form_batch([PART, replace(alone, number=5)], NOW, True, LIMITS, {}))


def test_interactive_parts_come_before_bulk_ones_until_those_have_waited_for_long():
    bulk = replace(PART, number=1, session=2, is_bulk=True, arrived=99.5, is_mixable=False)
    assert form_batch([bulk, PART], NOW, True, LIMITS, {}) == [PART]
    assert form_batch([bulk, PART], 100.6, True, LIMITS, {}) == [bulk]


def test_each_session_has_its_first_part_before_any_has_its_second():
    many = [replace(PART, number=number, session=1, is_mixable=False) for number in range(50)]
    late = replace(PART, number=99, session=2, arrived=100.005, is_mixable=False)
    order, waiting, served = [], [*many, late], {}
    while waiting:
        (chosen,) = form_batch(waiting, NOW, True, LIMITS, served)
        waiting.remove(chosen)
        served[chosen.session] = len(order) + 1
        order.append(chosen.number)
    assert order.index(99) == 1
    assert order[2:] == list(range(1, 50))


def test_the_order_in_which_parts_are_listed_decides_nothing():
    waiting = [*parts(6), *(replace(PART, number=10 + number, session=1) for number in range(4))]
    assert numbers(form_batch(waiting, NOW, True, LIMITS, {})) == numbers(
        form_batch(waiting[::-1], NOW, True, LIMITS, {})
    )
