"""Paired comparisons: against scipy, by hand, and by simulations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dure.metrics.metric import Metric
from dure.metrics.paired import (
    bootstrap_interval,
    corrected,
    holm,
    paired_difference,
    paired_gains,
    permutation_test,
)

LOSS, HITS = Metric("eval_loss", "min"), Metric("accuracy", "max", "share")


def by_scipy(differences, num_resamples=40_000):
    return stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        rng=np.random.default_rng(3),
    ).pvalue


@pytest.mark.parametrize("rows", [2, 5, 12])
def test_few_rows_are_tested_exactly_as_scipy_does(rows):
    differences = np.random.default_rng(rows).normal(0.4, 1, rows)
    # With zeros, which change no mean: scipy goes through twice as many signs.
    assert permutation_test([*differences, 0.0]) == pytest.approx(by_scipy(differences))


@pytest.mark.heavy
@pytest.mark.parametrize("shift", [0.0, 0.12, 0.2])
def test_many_rows_are_tested_by_draws_as_scipy_does(shift):
    differences = np.random.default_rng(1).standard_t(5, 200) + shift
    assert permutation_test(differences) == pytest.approx(by_scipy(differences), abs=0.02)
    assert permutation_test(differences) == permutation_test(-differences)


def test_hits_are_tested_by_mcnemar():
    hits = np.array([1] * 30 + [-1] * 12 + [0] * 400)
    assert permutation_test(hits) == pytest.approx(stats.binomtest(30, 42).pvalue)
    assert permutation_test(np.zeros(7)) == 1


def test_a_p_value_too_small_for_draws_is_bounded_and_never_too_small():
    differences = np.random.default_rng(2).normal(0.5, 1, 400)
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert 2 * stats.norm.sf(z) < permutation_test(differences) < 1e-8


def test_the_interval_is_the_bca_interval_of_scipy():
    losses = np.random.default_rng(4).exponential(1, 80)
    reference = stats.bootstrap(
        (losses,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    assert bootstrap_interval(losses) == pytest.approx((reference.low, reference.high), abs=0.02)
    assert bootstrap_interval(losses, seed=1) == bootstrap_interval(losses, seed=1)
    assert bootstrap_interval([2.5, 2.5]) == (2.5, 2.5)


def test_gains_are_positive_where_the_first_is_better():
    assert paired_gains([1.0, 2.0], [2.0, 2.0], LOSS).tolist() == [1, 0]
    assert paired_gains([1.0, 2.0], [2.0, 2.0], HITS).tolist() == [-1, 0]


def test_rows_are_counted_as_wins_ties_and_losses():
    found = paired_difference([1, 1, 0, 1], [0, 1, 1, 0], metric=HITS)
    assert (found.wins, found.ties, found.losses, found.num_rows) == (2, 1, 1, 4)
    assert found.value == 0.25
    assert found.verdict == "tie"  # three rows say nothing: p = 1


@given(seed=st.integers(0, 999), seeds=st.sampled_from([1, 3]))
def test_swapping_the_models_turns_the_difference(seed, seeds):
    ours, theirs = np.random.default_rng(seed).integers(0, 3, (2, seeds, 9))
    one, other = (paired_difference(*pair, metric=LOSS) for pair in ((ours, theirs), (theirs, ours)))
    assert one.value == -other.value
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.p_value == pytest.approx(other.p_value)


@pytest.mark.parametrize("seeds", [1, 5])
def test_equal_models_are_told_as_equal(seeds):
    scores = np.random.default_rng(0).random((seeds, 30))
    found = paired_difference(scores, scores, metric=LOSS)
    assert (found.value, found.low, found.high, found.p_value, found.ties) == (0, 0, 0, 1, 30)
    assert found.verdict == "equal"


@pytest.mark.parametrize(
    ("shape", "p_value"), [((2, 1), 0.5), ((5, 1), 1 / 16), ((2, 3), 0.25), ((3, 40), 2**-39)]
)
def test_the_same_difference_every_time_is_tested_by_its_signs(shape, p_value):
    """Two seeds on ten rows often differ by one row both: that has no spread, and is no certainty."""
    found = paired_difference(np.full(shape, 0.6), np.full(shape, 0.7), metric=LOSS)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.p_value == pytest.approx(p_value)
    assert found.verdict == ("better" if p_value < 0.05 else "tie")


def test_of_many_comparisons_only_what_is_certain_after_the_correction_is_no_tie():
    rng = np.random.default_rng(6)
    base = rng.normal(0, 1, 200)
    settings = [base + rng.normal(0, 0.5, 200) for _ in range(20)] + [base - 1 + rng.normal(0, 0.5, 200)]
    together = corrected([paired_difference(each, base, metric=LOSS) for each in settings])
    assert [each.verdict for each in together] == ["tie"] * 20 + ["better"]
    assert all(each.p_holm >= each.p_value for each in together)


def test_an_interval_over_seeds_is_that_of_student_where_rows_do_not_differ():
    by_seed = np.array([0.01, 0.04, 0.0, 0.03, 0.03])
    found = paired_difference(np.tile(by_seed[:, None], 50), np.zeros((5, 50)), metric=HITS)
    reference = stats.ttest_1samp(by_seed, 0)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(reference.confidence_interval())


def drawn(rng, *, effect, of_seed=0.02, rows=150, seeds=5, noise=0.2):
    """Scores of two settings by seed and row; the true difference over all seeds and rows is ``effect``."""
    hard = rng.normal(0.5, 0.2, rows)
    gains = effect + rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, 0.1, rows)
    second = hard + rng.normal(0, noise, (seeds, rows))
    return hard + gains + rng.normal(0, noise, (seeds, rows)), second


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_intervals_over_five_seeds_hold_the_truth_as_often_as_they_say(effect):
    rng = np.random.default_rng(7)
    found = [paired_difference(*drawn(rng, effect=effect), metric=HITS) for _ in range(400)]
    assert np.mean([each.low <= effect <= each.high for each in found]) >= 0.93
    assert np.mean([each.high - each.low for each in found]) < 0.1
    if not effect:
        assert np.mean([each.verdict == "tie" for each in found]) >= 0.93


def test_rows_alone_call_seeds_that_differ_a_difference_and_seeds_do_not():
    rng = np.random.default_rng(8)
    pairs = [drawn(rng, effect=0, of_seed=0.1) for _ in range(60)]
    alone = [paired_difference(first[0], second[0], metric=HITS).verdict != "tie" for first, second in pairs]
    over = [paired_difference(*pair, metric=HITS).verdict != "tie" for pair in pairs]
    assert np.mean(alone) > 0.3
    assert np.mean(over) < 0.1


def test_the_interval_of_rows_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = [
        (ends := bootstrap_interval(rng.exponential(1, 60), level=0.9, seed=seed))[0] <= 1 <= ends[1]
        for seed in range(200)
    ]
    assert 0.84 <= np.mean(held) <= 0.96


def test_the_interval_is_that_of_the_normal_distribution_for_many_rows():
    rng = np.random.default_rng(0)
    hard, gains = rng.normal(0, 10, 2000), rng.normal(0.1, 1, 2000)
    found = paired_difference(hard, hard + gains, metric=LOSS)
    half = 1.96 * gains.std() / math.sqrt(2000)
    assert found.value == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.01)
    assert found.is_certain
    assert found.verdict == "better"


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([], []), ([math.nan], [1.0])])
def test_rows_that_cannot_be_paired_are_refused(first, second):
    with pytest.raises(ValueError, match=r"paired|finite"):
        paired_difference(first, second, metric=LOSS)


def test_holm_is_the_step_down_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9]) == [0.9]
    assert holm([]) == []


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(values):
    corrected = holm(values)
    assert all(value <= after <= 1 for value, after in zip(values, corrected, strict=True))
    for one in range(len(values)):
        for other in range(len(values)):
            assert values[one] > values[other] or corrected[one] <= corrected[other]


def test_a_difference_of_shares_is_never_said_to_be_larger_than_a_share_can_be():
    accuracy = Metric("accuracy", "max", "share")
    scores = [[0.83], [0.53]], [[0.78], [0.73]]
    found = paired_difference(*scores, metric=accuracy)
    assert (found.low, found.high, found.verdict) == (-1.0, 1.0, "tie")
    assert paired_difference(*scores, metric=Metric("loss", "min")).high > 1
