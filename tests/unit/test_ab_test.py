"""The mathematics of A/B tests, against scipy and by what it promises."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pgml_tune.service.ab_test import (
    Counts,
    Sample,
    half_width,
    ln_e_above,
    ln_e_fewer,
    ln_e_more,
    ln_e_share,
    ln_tail,
    rate_bound,
    ratio_interval,
    student_p,
    welch,
)

ALPHA = 0.05 / 3
shapes = st.floats(0.01, 20_000)
shares = st.floats(0.001, 0.999)
counts = st.integers(0, 5000)


@given(shapes, shapes, shares)
def test_the_tail_of_the_beta_distribution_is_that_of_scipy(a, b, x):
    expected = stats.beta.logsf(x, a, b)
    if expected > -600:
        assert ln_tail(a, b, x) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(st.floats(0, 30), st.floats(1, 10_000))
def test_the_p_value_of_students_t_is_that_of_scipy(t, freedom):
    assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-7, abs=1e-200)


@given(counts, counts, shares, st.sampled_from([1, 20, 10_000]))
def test_the_e_value_of_a_share_is_a_ratio_of_the_likelihoods_of_scipy(serving, candidate, share, concentration):
    total = serving + candidate
    mixed = stats.betabinom.logpmf(candidate, total, concentration * share, concentration * (1 - share))
    null = stats.binom.logpmf(candidate, total, share)
    if null > -600:
        found = ln_e_share(Counts(serving, candidate, share), concentration)
        assert found == pytest.approx(mixed - null, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("test", [ln_e_share, ln_e_more, ln_e_fewer])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_mean_of_an_e_value_under_the_null_is_one(test, share):
    total = 60
    mean = sum(
        stats.binom.pmf(k, total, share) * math.exp(test(Counts(total - k, k, share), 20)) for k in range(total + 1)
    )
    assert mean == pytest.approx(1)


def test_an_e_value_for_more_says_nothing_of_fewer():
    assert ln_e_more(Counts(10, 90, 0.5), 20) > 10 > 0 > ln_e_fewer(Counts(10, 90, 0.5), 20)


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_of_all_or_nothing_proves_nothing(share):
    assert ln_e_share(Counts(5, 5, share), 20) == ln_e_more(Counts(5, 5, share), 20) == 0
    assert ratio_interval([Counts(5, 5, share)], 20, ALPHA) is None


@given(st.builds(Counts, counts, counts, st.floats(0.01, 0.99)), st.integers(1, 3))
def test_the_interval_of_a_ratio_holds_one_exactly_where_the_tests_do_not_reject(stratum, times):
    strata = times * [stratum]
    interval = ratio_interval(strata, 20, ALPHA)
    if interval is None:
        assert not stratum.serving + stratum.candidate
        return
    low, high = interval
    assert low <= high
    if abs(math.log(low)) > 1e-6:
        assert (low > 1) == (sum(ln_e_more(s, 20) for s in strata) > -math.log(ALPHA))
    if abs(math.log(high)) > 1e-6:
        assert (high < 1) == (sum(ln_e_fewer(s, 20) for s in strata) > -math.log(ALPHA))


def test_many_events_make_the_interval_of_a_ratio_narrow():
    low, high = ratio_interval([Counts(8000, 4000, 0.2), Counts(5000, 10_000, 0.5)], 20, ALPHA)
    assert 1.85 < low < 2 < high < 2.15


@given(st.integers(0, 100), st.integers(100, 100_000))
def test_the_bound_of_a_rate_lies_above_the_one_for_a_fixed_horizon(events, units):
    fixed = stats.beta.isf(ALPHA, events + 1, units - events) if events < units else 1.0
    assert rate_bound(events, units, 20, ALPHA) >= 0.999 * fixed


def test_the_bound_of_a_rate_falls_to_the_rate():
    assert [round(rate_bound(units // 100, units, 20, ALPHA), 3) for units in (100, 10_000, 1_000_000)] == [
        0.081,
        0.014,
        0.01,
    ]  # noqa: E501


@given(st.floats(0.001, 10), st.integers(2, 10**7), st.floats(1e-6, 0.3))
def test_the_e_value_of_a_mean_is_one_over_alpha_where_its_interval_touches_zero(error, units, alpha):
    width = half_width(error, units, alpha, 10_000)
    assert ln_e_above(width, error, units, alpha, 10_000) == pytest.approx(-math.log(alpha), rel=1e-6)


def test_an_estimate_of_no_error_at_all_is_certain():
    assert ln_e_above(0.1, 0.0, 100, ALPHA, 10_000) == math.inf
    assert ln_e_above(-0.1, 1.0, 100, ALPHA, 10_000) == 0


def test_an_estimate_of_next_to_nothing_proves_nothing():
    assert ln_e_above(1e-17, 0.01, 100, ALPHA, 10_000) == 0


def test_the_interval_is_about_as_narrow_as_any_where_it_shall_be():
    widths = [half_width(1 / math.sqrt(10_000), 10_000, ALPHA, expected) for expected in (100, 3000, 10_000, 10**6)]
    assert min(widths) == widths[2]


@given(st.integers(2, 500), st.integers(2, 500), st.floats(-3, 3), st.floats(0.1, 5))
def test_welchs_test_is_that_of_scipy(serving_n, candidate_n, mean, variance):
    found = welch(Sample(serving_n, 0.0, 1.0), Sample(candidate_n, mean, variance), 0.05)
    expected = stats.ttest_ind_from_stats(mean, math.sqrt(variance), candidate_n, 0, 1, serving_n, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    parts = 1 / serving_n, variance / candidate_n
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (serving_n - 1) + parts[1] ** 2 / (candidate_n - 1))
    width = stats.t.isf(0.025, freedom) * math.sqrt(sum(parts))
    if width < 10:
        assert (found.low, found.high) == pytest.approx((mean - width, mean + width), rel=1e-6)


def test_welchs_test_of_equal_figures_says_nothing():
    assert welch(Sample(5, 1.0, 0.0), Sample(5, 1.0, 0.0), 0.05) is None
