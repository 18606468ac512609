"""Comparisons of experiments: against references by hand, and by simulations of equals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dure.metrics.metric import Metric
from dure.studies.crossval.comparison import compare, is_clearly_worse

SHARE, LOSS = Metric("accuracy", "max", "share"), Metric("loss", "min")

scores = st.lists(st.floats(0, 1), min_size=2, max_size=10)


def test_the_corrected_test_is_the_formula_of_nadeau_and_bengio():
    a, b = [0.81, 0.84, 0.79, 0.86, 0.83], [0.80, 0.80, 0.79, 0.83, 0.80]
    found = compare(a, b)
    # By hand: differences .01 .04 .00 .03 .03, mean .022, s² = .00027, s² (1/5 + 1/4) = .0001215.
    error = math.sqrt(0.00027 * 0.45)
    assert found.value == pytest.approx(0.022)
    assert found.p_value == pytest.approx(2 * (1 - stats.t.cdf(0.022 / error, 4)))
    assert found.high - found.value == pytest.approx(2.7764451 * error)
    assert found.value - found.low == pytest.approx(2.7764451 * error)
    plain = stats.ttest_rel(a, b)
    assert found.value / error == pytest.approx(plain.statistic * math.sqrt((1 / 5) / 0.45))
    assert found.p_value > plain.pvalue


def test_three_of_five_folds_are_corrected_by_the_overlap_of_five():
    found = compare([0.9, 0.8, 0.85], [0.8, 0.75, 0.7], num_folds=5, level=0.9)
    error = math.sqrt(np.var([0.1, 0.05, 0.15], ddof=1) * (1 / 3 + 1 / 4))
    assert (found.low, found.high) == pytest.approx((0.1 - 2.9199856 * error, 0.1 + 2.9199856 * error))


@given(a=scores, shift=st.floats(-1, -0.01) | st.just(0.0) | st.floats(0.01, 1))
def test_equal_differences_are_tested_by_their_signs_alone(a, shift):
    """Small folds that differ by one row each have no spread; of two folds, every second pair of equals has one sign."""
    found = compare([score + shift for score in a], a)
    assert found.low <= found.value <= found.high
    assert found.p_value == (pytest.approx(2 * 0.5 ** len(a)) if shift else 1)


def test_an_experiment_is_not_dropped_for_equal_differences_of_three_folds():
    assert not is_clearly_worse([0.4, 0.5, 0.6], [0.5, 0.6, 0.7], num_folds=5, metric=SHARE)
    assert is_clearly_worse([0.4, 0.5, 0.61], [0.5, 0.6, 0.7], num_folds=5, metric=SHARE)


@given(a=scores, seed=st.integers(0, 99))
def test_swapping_the_experiments_turns_the_difference(a, seed):
    b = np.random.default_rng(seed).random(len(a)).tolist()
    one, other = compare(a, b), compare(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


@pytest.mark.parametrize(
    ("a", "b", "folds"),
    [([1], [1], None), ([1, 2], [1], None), ([1, 2, 3], [1, 2, 3], 2), ([1, math.nan], [1, 2], 5)],
)
def test_scores_that_do_not_pair_up_are_refused(a, b, folds):
    with pytest.raises(ValueError, match=r"pairs|more than|finite"):
        compare(a, b, num_folds=folds)


def cross_validations(rng, number, num_folds=5, rows=60):
    """Accuracies of two equally good least-squares classifiers, each on features of its own: really trained."""
    for _ in range(number):
        labels = rng.choice([-1.0, 1.0], rows)
        folds = np.arange(rows) % num_folds
        result = []
        for _ in range(2):
            features = np.column_stack([np.ones(rows), labels[:, None] * 0.35 + rng.normal(size=(rows, 4))])
            accuracies = []
            for fold in range(num_folds):
                train, test = folds != fold, folds == fold
                weights = np.linalg.lstsq(features[train], labels[train], rcond=None)[0]
                accuracies.append(float((np.sign(features[test] @ weights) == labels[test]).mean()))
            result.append(accuracies)
        yield result


def test_equal_classifiers_rarely_differ_and_the_plain_test_is_wrong_more_often():
    pairs = list(cross_validations(np.random.default_rng(1), 1500))
    corrected = np.mean([compare(a, b).p_value < 0.05 for a, b in pairs])
    with warnings.catch_warnings(action="ignore"):
        plain = np.mean([stats.ttest_rel(a, b).pvalue < 0.05 for a, b in pairs])
    assert corrected <= 0.06
    assert plain > corrected


def dropped(a, b):
    """Whether the first is dropped when it is asked after three and after four of five folds."""
    return any(is_clearly_worse(a[:seen], b[:seen], num_folds=5, metric=SHARE) for seen in (3, 4))


@pytest.mark.heavy
def test_of_two_equal_experiments_one_is_rarely_dropped():
    rng = np.random.default_rng(2)
    # Differences correlated by 1/k, as the correction assumes of k folds whose training sets overlap.
    shared, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 5))
    differences = math.sqrt(1 / 5) * shared + math.sqrt(4 / 5) * own
    assert 0.02 < np.mean([dropped(row, np.zeros(5)) for row in differences]) < 0.05
    really = [dropped(a, b) for a, b in cross_validations(np.random.default_rng(3), 1000)]
    assert np.mean(really) < 0.05


def test_a_clearly_worse_experiment_is_dropped_but_not_before_the_third_fold():
    worse, best = [0.60, 0.62, 0.61], [0.80, 0.81, 0.82]
    assert is_clearly_worse(worse, best, num_folds=5, metric=SHARE)
    assert not is_clearly_worse(worse[:2], best[:2], num_folds=5, metric=SHARE)
    assert not is_clearly_worse(best, worse, num_folds=5, metric=SHARE)
    assert is_clearly_worse(best, worse, num_folds=5, metric=LOSS)
