from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import t

from dure.metrics.metric import Metric
from dure.studies.progressive.forecast import Forecast, forecast

ROWS = [800, 1600, 2400]
ACCURACY: dict[str, Any] = {"metric": Metric("eval_accuracy", "max", "share"), "num_dev_rows": 2000}
LOSS: dict[str, Any] = {"metric": Metric("eval_loss", "min"), "num_dev_rows": 2000}


def power_law(rows: Any, limit: float, gain: float, rate: float) -> Any:
    return limit - gain * np.asarray(rows, dtype=float) ** -rate


def made(rows: list[int], scores: Any, at_rows: int, **options: Any) -> Forecast:
    found = forecast(rows, [float(score) for score in scores], at_rows, **options)
    assert found is not None
    return found


@pytest.mark.parametrize(("limit", "gain", "rate"), [(0.85, 3.2, 0.42), (0.95, 12.0, 0.6), (0.7, 50.0, 1.0)])
def test_a_curve_without_noise_is_continued_as_a_plain_fit_continues_it(limit, gain, rate):
    rows = [500, 1000, 1500, 2000, 3000, 4000]
    scores = power_law(rows, limit, gain, rate)
    fitted, _ = curve_fit(power_law, rows, scores, p0=(limit, gain, rate), maxfev=10_000)
    np.testing.assert_allclose(fitted, (limit, gain, rate), rtol=1e-3)

    found = made(rows, scores, 10_000, **{**ACCURACY, "num_dev_rows": 10**7})

    assert found.value == pytest.approx(power_law(10_000, *fitted), abs=0.01)
    assert found.low < power_law(10_000, limit, gain, rate) < found.high
    assert found.high - found.low < 0.03


def test_a_curve_measured_far_out_shows_its_limit():
    rows = [10**k for k in range(2, 9)]

    found = made(rows, power_law(rows, 0.8, 3.0, 0.5), 10**12, **{**ACCURACY, "num_dev_rows": 10**6})

    assert found.value == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("scores", [(0.6, 0.68, 0.72), (0.7, 0.7, 0.69), (0.9, 0.95, 0.96)])
def test_the_closed_form_is_the_posterior_that_plain_sampling_finds(scores):
    rng = np.random.default_rng(0)
    size, dev = 1_500_000, 300
    rate = np.exp(rng.normal(math.log(0.5), 0.75, size))
    spread = np.abs(t.rvs(3, size=size, random_state=rng)) * 0.01
    start = scores[0] + rng.uniform(-0.2, 0.2, size)
    limit = rng.uniform(0, 1, size)
    possible = (rate > 0.05) & (rate < 3) & (start <= limit) & (start >= 0) & (spread > 0.001)
    rate, spread, start, limit = (values[possible] for values in (rate, spread, start, limit))

    def height(rows: int) -> Any:
        return limit - (limit - start) * (rows / ROWS[0]) ** -rate

    weight = np.ones_like(rate)
    for rows, score in zip(ROWS, scores, strict=True):
        share = (score * dev + 1) / (dev + 2)
        variance = share * (1 - share) / dev + spread**2
        weight *= np.exp(-((score - height(rows)) ** 2) / (2 * variance)) / np.sqrt(variance)
    ahead = height(8000)
    ahead += rng.normal(size=ahead.size) * np.sqrt(ahead * (1 - ahead) / dev + spread**2)
    order = np.argsort(ahead)
    cumulated = np.cumsum(weight[order]) / weight.sum()
    low, value, high = ahead[order][np.searchsorted(cumulated, (0.05, 0.5, 0.95))]

    found = made(ROWS, scores, 8000, **{**ACCURACY, "num_dev_rows": dev})

    assert found.value == pytest.approx(value, abs=0.006)
    assert (found.low, found.high) == pytest.approx((low, min(high, 1.0)), abs=0.012)


@pytest.mark.heavy
@pytest.mark.parametrize(("num_dev_rows", "spread"), [(400, 0.0), (2000, 0.01)])
def test_nine_of_ten_intervals_hold_what_is_measured_at_the_end(num_dev_rows, spread):
    rng = np.random.default_rng(1)
    rows = [round(800 * stage) for stage in range(1, 11)]
    held, worse_than_last, count = 0, 0.0, 120
    for _ in range(count):
        start = rng.uniform(0.35, 0.8)
        limit, rate = rng.uniform(start, 1), math.exp(rng.normal(math.log(0.5), 0.6))
        truth = power_law(rows, limit, (limit - start) * 800**rate, rate) + rng.normal(0, spread, 10)
        scores = rng.binomial(num_dev_rows, np.clip(truth, 0, 1)) / num_dev_rows
        found = made(rows[:3], scores[:3], rows[-1], **{**ACCURACY, "num_dev_rows": num_dev_rows})
        held += found.low <= scores[-1] <= found.high
        worse_than_last += abs(found.value - scores[-1]) - abs(scores[2] - scores[-1])

    assert 0.84 <= held / count <= 0.98
    # A forecast that was no nearer than "it stays as it is" would be of no use.
    assert worse_than_last / count < -0.01


def test_the_spread_of_the_residuals_widens_the_interval():
    rows = [800 * stage for stage in range(1, 9)]
    smooth = power_law(rows, 0.85, 3.2, 0.42)
    rough = smooth + 0.03 * np.array([1, -1, 1, -1, -1, 1, -1, 1])

    narrow, wide = (made(rows, scores, 8000, **ACCURACY) for scores in (smooth, rough))

    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_few_dev_rows_and_a_high_level_widen_the_interval():
    usual = made(ROWS, (0.6, 0.68, 0.72), 8000, **ACCURACY)
    few = made(ROWS, (0.6, 0.68, 0.72), 8000, **{**ACCURACY, "num_dev_rows": 100})
    half = made(ROWS, (0.6, 0.68, 0.72), 8000, **ACCURACY, level=0.5)

    assert few.low < usual.low < half.low < half.value < half.high < usual.high < few.high
    assert (usual.level, half.level, usual.at_rows) == (0.9, 0.5, 8000)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=6))
@settings(max_examples=25, deadline=None)
def test_shares_stay_shares_and_an_error_rate_is_the_mirror_of_an_accuracy(scores):
    rows = [100 * (place + 1) for place in range(len(scores))]

    right = made(rows, scores, 10**9, **ACCURACY)
    wrong = made(
        rows,
        [1 - score for score in scores],
        10**9,
        **{**ACCURACY, "metric": Metric("error", "min", "share")},
    )

    assert 0 <= right.low <= right.value <= right.high <= 1
    assert (wrong.low, wrong.value, wrong.high) == pytest.approx(
        (1 - right.high, 1 - right.value, 1 - right.low), abs=1e-6
    )


@given(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=6), st.floats(1e-6, 1e6))
@settings(max_examples=25, deadline=None)
def test_losses_never_get_negative_and_their_unit_does_not_matter(losses, unit):
    rows = [100 * (place + 1) for place in range(len(losses))]

    found = made(rows, losses, 5000, **LOSS)
    scaled = made(rows, [unit * loss for loss in losses], 5000, **LOSS)

    assert 0 <= found.low <= found.value <= found.high < 10 * max(losses)
    expected = [unit * value for value in (found.low, found.value, found.high)]
    assert [scaled.low, scaled.value, scaled.high] == pytest.approx(expected, rel=1e-4, abs=1e-9 * unit)


def test_a_loss_is_continued_downwards():
    rows = [800, 1600, 2400, 3200, 4000]
    losses = 0.2 + 30 * np.array(rows, dtype=float) ** -0.6

    found = made(rows, losses, 8000, **LOSS)

    assert found.value == pytest.approx(0.2 + 30 * 8000**-0.6, abs=0.02)
    assert found.high < losses[-1]


@pytest.mark.parametrize("score", [0.0, 0.5, 0.7, 1.0])
def test_equal_scores_are_expected_to_stay_about_equal(score):
    found = made(ROWS, [score] * 3, 8000, **ACCURACY)

    assert found.low <= score <= found.high
    assert found.value == pytest.approx(score, abs=0.03)
    assert found.high - found.low < 0.12


def test_a_falling_curve_does_not_explode():
    found = made(ROWS, (0.8, 0.77, 0.74), 80_000, **ACCURACY)

    assert 0.74 < found.value < 0.8
    assert 0.65 < found.low < found.high < 0.9


def test_a_score_that_may_be_negative_is_forecast_too():
    found = made(ROWS, (-0.4, -0.1, 0.05), 8000, **{**LOSS, "metric": Metric("gain", "max")})

    assert 0.05 < found.value < 1
    assert found.low < found.value < found.high


def test_huge_numbers_of_rows_are_no_matter():
    rows = [10**9, 10**10, 10**11]

    found = made(rows, (0.7, 0.8, 0.85), 10**15, **{**ACCURACY, "num_dev_rows": 10**12})

    assert 0.85 < found.value < found.high <= 1


def test_the_same_scores_in_any_order_give_the_same_forecast():
    first = made(ROWS, (0.6, 0.68, 0.72), 8000, **ACCURACY)

    assert made(ROWS, (0.6, 0.68, 0.72), 8000, **ACCURACY) == first
    turned = made(ROWS[::-1], (0.72, 0.68, 0.6), 8000, **ACCURACY)
    assert (turned.low, turned.high) == pytest.approx((first.low, first.high), abs=1e-9)


def test_scores_that_are_no_numbers_are_left_out():
    with_nan = made([400, *ROWS, 3200], (math.nan, 0.6, 0.68, 0.72, math.inf), 8000, **ACCURACY)

    assert with_nan == made(ROWS, (0.6, 0.68, 0.72), 8000, **ACCURACY)


@pytest.mark.parametrize(
    ("rows", "scores"),
    [([], []), ([1, 2], [0.1, 0.2]), ([1, 2, 2], [0.1, 0.2, 0.3]), ([1, 2, 3], [0.1, math.nan, 0.3])],
)
def test_fewer_than_three_sizes_of_the_data_make_no_forecast(rows, scores):
    assert forecast(rows, scores, 10, **ACCURACY) is None


@pytest.mark.parametrize(
    ("rows", "scores", "more", "problem"),
    [
        (ROWS, (0.6, 0.7, 1.2), {}, "not all shares"),
        (ROWS, (0.6, 0.7, 0.8), {"level": 1.0}, "level 1.0"),
        ([0, 1, 2], (0.6, 0.7, 0.8), {}, "must be positive"),
        (ROWS, (0.6, 0.7), {}, "shorter"),
    ],
)
def test_what_cannot_be_is_refused(rows, scores, more, problem):
    with pytest.raises(ValueError, match=problem):
        forecast(rows, scores, 8000, **{**ACCURACY, **more})
