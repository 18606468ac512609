from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from dure.epochs.sweet_spot import mann_kendall


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12, unique=True))
def test_without_ties_it_is_the_exact_test_of_kendalls_tau_with_time(values):
    trend = mann_kendall(values)
    reference = kendalltau(range(len(values)), values, method="exact")
    assert trend.s == round(reference.statistic * len(values) * (len(values) - 1) / 2)
    assert trend.p_value == pytest.approx(reference.pvalue)


def test_ties_lower_the_variance_as_kendall_says():
    # By hand: pairs of 1 2 2 3 4 rise 9 times, one is tied. Variance (5·4·15 - 2·1·9) / 18 = 282 / 18.
    trend = mann_kendall([1, 2, 2, 3, 4])
    assert trend.s == 9
    z = (9 - 1) / math.sqrt(282 / 18)
    assert trend.p_value == pytest.approx(math.erfc(z / math.sqrt(2)))


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [1.0, 2.0, 2.0, 1.0]])
def test_a_series_that_goes_nowhere_has_no_trend(values):
    assert mann_kendall(values) == (0, 1.0)


def test_five_values_that_only_fall_are_as_rare_as_two_orders_in_120():
    assert mann_kendall([5, 4, 3, 2, 1]) == (-10, pytest.approx(2 / 120))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        mann_kendall([1.0, math.nan])
