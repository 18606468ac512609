"""Learning curves: what a score will be with more training rows, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr
from scipy.stats import norm, t, truncnorm

from dure.metrics.metric import Metric
from dure.studies.progressive.results import Forecast

LEAST_POINTS = 3
"""A curve of three parameters is not guessed from fewer sizes of the data."""

_RATES = np.geomspace(0.05, 3.0, 48)
# Hestness et al. (2017), "Deep Learning Scaling is Predictable, Empirically", measured exponents of 0.07 to 0.35;
# theory has 0.5 to 1, and the steep start of fine-tuning more. Nine tenths of this prior lie in 0.15 to 1.7.
_RATE_PRIOR = norm.logpdf(np.log(_RATES), loc=math.log(0.5), scale=0.75)
# Typical spread of a score between two trainings that differ in their seed only: of a share, and of any other
# metric in parts of its size. Learnt from the residuals as soon as there are some.
_SHARE_SPREAD, _RELATIVE_SPREAD = 0.01, 0.02
_NUM_SPREADS, _NUM_GAINS = 16, 32
_NEGLIGIBLE = math.log(1e-6)
_HEADROOM = 3.0

Floats = NDArray[np.float64]


def forecast(
    rows: Sequence[int],
    scores: Sequence[float],
    at_rows: int,
    *,
    metric: Metric,
    num_dev_rows: float,
    level: float = 0.9,
) -> Forecast | None:
    """Say what score will be measured with ``at_rows`` training rows, from those measured with fewer.

    The curve is a power law with offset, ``limit - gain * n**-rate`` (Hestness et al., 2017; mirrored where lower
    is better). Three points leave none over to tell how well three parameters fit, so the parameters are not
    estimated but averaged over, weighted with their posterior probability: the rate has a prior, the gain cannot
    be negative, and no limit lies beyond the best that is possible. Each score is off by the binomial error of
    its dev rows (for a share; the largest that a mean over rows can have) and by the unknown spread between
    trainings, which is averaged over as well. The interval is that of the *measured* score, with these errors.

    For a given rate and spread the model is a linear regression, whose posterior is known in closed form, so that
    nothing is drawn at random and the same scores give the same forecast. Scores are means over ``num_dev_rows`` rows,
    or worth as many (``rows_behind``); those that are not finite are left out. A share lies between 0 and 1, as accuracy,
    F1 and ROUGE do, a sum of them not.

    Returns:
        None when the finite scores stand for fewer than :data:`LEAST_POINTS` different numbers of rows.

    Raises:
        ValueError: A share outside 0 to 1, a level that is none, or numbers of rows that are not positive.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    if min([num_dev_rows, at_rows, *rows]) <= 0:
        raise ValueError(
            f"rows {list(rows)}, at_rows {at_rows} and num_dev_rows {num_dev_rows} must be positive"
        )
    pairs = [(n, score) for n, score in zip(rows, scores, strict=True) if math.isfinite(score)]
    if len({n for n, _ in pairs}) < LEAST_POINTS:
        return None
    sizes, measured = np.array(pairs, dtype=np.float64).T
    is_share = metric.unit == "share"
    if is_share and (measured.min() < 0 or measured.max() > 1):
        raise ValueError(f"{measured.tolist()} are not all shares between 0 and 1")

    # Whichever way the metric is better, the curve rises.
    heights = np.array([-metric.cost(score) for score in measured])
    top = _top(heights, metric)
    sampling = _binomial_variance(measured, num_dev_rows) if is_share else np.zeros_like(measured)
    usual = _SHARE_SPREAD if is_share else max(_RELATIVE_SPREAD * np.abs(measured).mean(), 1e-12)
    means, deviations, spreads, weights = _posterior(sizes, heights, sampling, usual, top, at_rows)
    ahead = (
        _binomial_variance(np.clip(means if metric.higher_is_better else -means, 0, 1), num_dev_rows)
        if is_share
        else 0.0
    )
    deviations = np.sqrt(deviations**2 + spreads**2 + ahead)

    tail = (1 - level) / 2
    low, value, high = sorted(
        metric.score(-min(_quantile(share, means, deviations, weights), top))
        for share in (tail, 0.5, 1 - tail)
    )
    if is_share:
        low, value, high = max(low, 0.0), max(value, 0.0), min(high, 1.0)
    return Forecast(at_rows=at_rows, value=value, low=low, high=high, level=level)


def _top(heights: Floats, metric: Metric) -> float:
    """Return the best height there can be; a loss that was never negative will not become so."""
    if metric.unit == "share":
        return 1.0 if metric.higher_is_better else 0.0
    if not metric.higher_is_better and heights.max() <= 0:
        return 0.0
    return float(heights.max() + _HEADROOM * max(np.ptp(heights), np.abs(heights).max()))


def _binomial_variance(shares: Floats, num_rows: float) -> Floats:
    """Return the variance of shares of so many rows, one success and one failure added: 1.0 is not certain."""
    shares = (shares * num_rows + 1) / (num_rows + 2)
    return shares * (1 - shares) / num_rows


def _posterior(
    sizes: Floats, heights: Floats, sampling: Floats, usual: float, top: float, at_rows: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the curve's height at ``at_rows`` as a mixture of normal distributions.

    With ``start`` the height at the fewest rows and ``rise = limit - start``, the curve is
    ``start + rise * risen(n)``, ``risen(n) = 1 - (n / fewest)**-rate``: linear in both for a given rate. The priors
    of start and rise are flat, with ``0 <= rise`` and ``limit <= top``. Axes: rate, spread, point.

    Returns:
        Means, standard deviations, the spread between trainings and the weight of each component.
    """
    fewest = sizes.min()
    risen = 1 - (sizes / fewest) ** -_RATES[:, None]
    risen_ahead = 1 - (at_rows / fewest) ** -_RATES[:, None]
    spreads = np.geomspace(usual / 10, max(10 * usual, 2 * np.ptp(heights)), _NUM_SPREADS)
    # Half a Student t of three degrees of freedom (Gelman, 2006): wide enough to give way to the residuals.
    spread_prior = t.logpdf(spreads / usual, df=3) + np.log(spreads)

    trust = 1 / (sampling + spreads[:, None] ** 2)
    total = trust.sum(axis=1)
    middle = trust @ heights / total
    middle_risen = risen @ trust.T / total
    across = risen[:, None, :] - middle_risen[:, :, None]
    upward = heights - middle[:, None]
    square = (trust * across**2).sum(axis=2)
    slope = (trust * across * upward).sum(axis=2) / square
    deviation = 1 / np.sqrt(square)
    misfit = (trust * upward**2).sum(axis=1) - slope**2 * square

    # The limit is bounded where the start is as the rise makes it most likely.
    room = np.maximum((top - middle) / (1 - middle_risen), 1e-3 * deviation)
    lower, upper = -slope / deviation, (room - slope) / deviation
    evidence = _RATE_PRIOR[:, None] + spread_prior + _log_mass(lower, upper)
    evidence += (np.log(trust).sum(axis=1) - np.log(total) - np.log(square) - misfit) / 2

    rate, spread = np.nonzero(evidence > evidence.max() + _NEGLIGIBLE)
    shares = (np.arange(_NUM_GAINS) + 0.5) / _NUM_GAINS
    rise = slope[rate, spread] + deviation[rate, spread] * truncnorm.ppf(
        shares[:, None], lower[rate, spread], upper[rate, spread]
    )
    means = middle[spread] + rise * (risen_ahead[rate, 0] - middle_risen[rate, spread])
    weights = np.exp(evidence[rate, spread] - evidence.max())
    shape = means.shape
    return (
        means.ravel(),
        np.broadcast_to(1 / np.sqrt(total[spread]), shape).ravel(),
        np.broadcast_to(spreads[spread], shape).ravel(),
        np.broadcast_to(weights / weights.sum() / _NUM_GAINS, shape).ravel(),
    )


def _log_mass(lower: Floats, upper: Floats) -> Floats:
    """Return the logarithm of the standard normal's mass between two bounds, exact far out as well."""
    swapped = lower > 0
    less, more = np.where(swapped, -upper, lower), np.where(swapped, -lower, upper)
    mass: Floats = log_ndtr(more) + np.log1p(-np.exp(log_ndtr(less) - log_ndtr(more)))
    return mass


def _quantile(share: float, means: Floats, deviations: Floats, weights: Floats) -> float:
    """Return where a mixture of normal distributions has ``share`` of its mass to the left."""

    def excess(height: float) -> Any:
        return weights @ ndtr((height - means) / deviations) - share

    left, right = (means - 9 * deviations).min(), (means + 9 * deviations).max()
    return float(brentq(excess, left, right, xtol=1e-9 * (right - left)))
