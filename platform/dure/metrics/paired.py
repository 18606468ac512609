"""How sure it is that one model is better than another, from the same rows scored by both.

The rules, so that every page of dure that compares says the same:

* A row's difference is positive where the first model is better. A mean over the rows is what is compared.
* Of one run each, the interval is the bias-corrected and accelerated bootstrap over rows (BCa: Efron 1987, "Better
  Bootstrap Confidence Intervals"): of a mean its acceleration costs nothing, and losses have long tails to one side,
  where plain percentiles lie. The test is the permutation test of the mean: between equals every difference has either
  sign alike. Where all differences are of one size, as hits are, this is McNemar's exact test. Both say how far the
  difference depends on which rows were tested, and nothing of another seed.
* Of several seeds, seeds and rows are both drawn from many: mean square errors of both and Student's t with the degrees
  of freedom of Hillis (2007, "A comparison of denominator degrees of freedom methods for multiple observer ROC studies",
  with seeds as observers). A bootstrap over five seeds has intervals that are too short by a third. Measured on 1,500
  drawn comparisons each, over 21 mixtures of what seeds, rows and chance do, 95 % intervals of two, three and five
  seeds hold the truth in 94.4 to 100 % of them.
* Many comparisons are corrected by Holm (1979). A difference whose corrected p-value is not below ``1 - level`` is a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dure.metrics.metric import Metric

LEVEL = 0.95
"""Probability of an interval where none is asked for."""

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "tie", "equal"]
"""What is said of the first of two: ``tie`` where it cannot be told apart, ``equal`` where every row is the same."""

_AT_ONCE = 2**22
"""Drawn rows that are held at a time."""
_NUM_RESAMPLES = 4000
_NUM_FLIPS = 9999
_MOST_ENUMERATED = 12
"""Differences up to which all signs are gone through: 4,096 ways."""


@dataclass(frozen=True)
class Difference:
    """By how much the first of two is above the second, or better."""

    value: float
    """The difference, in the units of the metric."""
    low: float
    """Where its interval begins."""
    high: float
    """Where it ends."""
    level: float
    """Confidence of the interval."""
    p_value: float | None
    """Probability of a difference at least as large between equals; None where no test belongs to the interval."""

    def reversed(self) -> Difference:
        """Return by how much the second is above the first, or better."""
        return Difference(-self.value, -self.high, -self.low, self.level, self.p_value)

    def verdict_at(self, p_value: float | None) -> Verdict:
        """Return what can be said of the first at a p-value; a tie is all that is not certain at the level of the interval."""
        if p_value is None or p_value >= 1 - self.level or self.value == 0:
            return "tie"
        return "better" if self.value > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Difference):
    """By how much the first of two models is better on the same rows; negative where it is worse."""

    num_rows: int
    """Rows that both scored."""
    num_seeds: int
    """Seeds by which both were trained."""
    wins: int
    """Rows on which the first is better, over all seeds together."""
    ties: int
    """Rows on which both are equal."""
    losses: int
    """Rows on which the second is better."""
    p_holm: float | None = None
    """The p-value corrected for the number of comparisons; None where it is the only one."""

    @property
    def is_certain(self) -> bool:
        """Whether the first one is better; an interval above 0 alone does not say so of a few rows."""
        return self.verdict == "better"

    @property
    def verdict(self) -> Verdict:
        """What can be said of the first model."""
        if self.ties == self.num_rows:
            return "equal"
        return self.verdict_at(self.p_value if self.p_holm is None else self.p_holm)


def paired_gains(first: ArrayLike, second: ArrayLike, metric: Metric) -> Floats:
    """Return by how much the first model is better, row by row, in the shape that both scores have.

    Scores are of shape (rows,), or (seeds, rows); those of both models for the same seeds and rows in the same order.

    Raises:
        ValueError: The scores do not pair up, there are none, or one is not finite.
        UserError: The metric has no direction.
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim not in (1, 2) or not ours.size:
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} cannot be paired")
    gains = ours - theirs if metric.higher_is_better else theirs - ours
    if not np.isfinite(gains).all():
        raise ValueError("a score is not finite")
    return gains


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, metric: Metric, level: float = LEVEL, seed: int = 0
) -> PairedDifference:
    """Compare two models on the same rows, or two settings by several seeds on the same rows.

    Scores, such as losses or 1 for a hit, are as :func:`paired_gains` takes them. ``level`` is that of the interval.

    Raises:
        ValueError: The scores do not pair up, there are none, or one is not finite.
    """
    gains = np.atleast_2d(paired_gains(first, second, metric))
    of_rows = gains.mean(axis=0)
    # Means over seeds whose rounding differs are equal all the same.
    of_rows[np.abs(of_rows) <= 1e-12 * np.abs(gains).max(initial=0.0)] = 0.0
    if len(gains) > 1:
        low, high, p_value = _over_seeds_and_rows(gains, level)
    else:
        low, high = bootstrap_interval(of_rows, level=level, seed=seed)
        p_value = permutation_test(of_rows, seed=seed)
    if metric.unit == "share":  # Student's t of two seeds goes far beyond what can be
        low, high = max(low, -1.0), min(high, 1.0)
    return PairedDifference(
        value=float(of_rows.mean()),
        low=low,
        high=high,
        level=level,
        p_value=p_value,
        num_rows=gains.shape[1],
        num_seeds=len(gains),
        wins=int((of_rows > 0).sum()),
        ties=int((of_rows == 0).sum()),
        losses=int((of_rows < 0).sum()),
    )


def corrected(
    differences: Sequence[PairedDifference], *, num_comparisons: int | None = None
) -> list[PairedDifference]:
    """Return comparisons that were made together, each with its p-value corrected for their number.

    ``num_comparisons`` says how many they were chosen from, as those with the best of several models are, which was not
    known before.
    """
    p_values = [1.0 if each.p_value is None else each.p_value for each in differences]
    unknown = [1.0] * ((num_comparisons or len(p_values)) - len(p_values))
    return [
        replace(each, p_holm=p_holm)
        for each, p_holm in zip(differences, holm([*p_values, *unknown]), strict=False)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order (Holm 1979, the step-down procedure)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def permutation_test(differences: ArrayLike, *, seed: int = 0) -> float:
    """Return the probability that differences between equals have a mean as far from 0, to either side.

    Between equals every difference has either sign alike (Fisher 1935, "The Design of Experiments", section 21). Exact
    where all that are not 0 are of one size (the binomial distribution; of hits this is McNemar's exact test), and for
    up to 12 of them. Else signs are drawn 9,999 times, and of what is too rare for so many draws the bound of Hoeffding
    (1963, "Probability Inequalities for Sums of Bounded Random Variables", theorem 2) is given: a larger p-value than
    the exact one, but small enough to be corrected for many comparisons.

    Differences are of shape (rows,).
    """
    from scipy.stats import binomtest

    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    sizes = np.abs(values)
    if np.ptp(sizes) <= 1e-9 * sizes.max():
        return float(binomtest(int((values > 0).sum()), len(values)).pvalue)
    # Sums in another order differ in their last digits; those are as far from 0 all the same.
    reached = abs(float(values.sum())) * (1 - 1e-9)
    if len(values) <= _MOST_ENUMERATED:
        ways = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float((np.abs((2 * ways - 1) @ sizes) >= reached).mean())
    bound = 2 * math.exp(-(reached**2) / (2 * float((sizes**2).sum())))
    draw, beyond = np.random.default_rng(seed), 0
    at_once = max(1, _AT_ONCE // len(sizes))
    for done in range(0, _NUM_FLIPS, at_once):
        flips = draw.integers(2, size=(min(at_once, _NUM_FLIPS - done), len(sizes)), dtype=np.int8)
        beyond += int((np.abs(2 * (flips @ sizes) - sizes.sum()) >= reached).sum())
    return min(bound, (beyond + 1) / (_NUM_FLIPS + 1))


def bootstrap_interval(values: ArrayLike, *, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Return the BCa interval of a mean over rows, which are drawn with replacement.

    Of equal values it is that value. It needs some dozens of rows to hold what it says. Values are of shape (rows,).
    """
    from scipy.stats import norm

    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    centred = sample - mean
    spread = float((centred**2).sum())
    means = _resampled_means(sample, np.random.default_rng(seed))
    below = float(((means < mean).mean() + (means <= mean).mean()) / 2)
    if spread == 0 or not 0 < below < 1:
        return mean, mean
    # That of the jackknife, for a mean: Efron & Tibshirani (1993), chapter 14.3.
    acceleration = float((centred**3).sum()) / (6 * spread**1.5)
    bias = float(norm.ppf(below))
    reach = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, norm.cdf(bias + reach / (1 - acceleration * reach)))
    return float(low), float(high)


def _resampled_means(values: Floats, draw: np.random.Generator) -> Floats:
    at_once = max(1, _AT_ONCE // len(values))
    means = [
        values[draw.integers(len(values), size=(min(at_once, _NUM_RESAMPLES - done), len(values)))].mean(
            axis=1
        )
        for done in range(0, _NUM_RESAMPLES, at_once)
    ]
    return np.concatenate(means)


def _over_seeds_and_rows(gains: Floats, level: float) -> tuple[float, float, float]:
    """Return interval and p-value of a mean over seeds and rows, both drawn from many; shape (seeds, rows).

    Hillis (2007), equations for one factor of readers and one of cases: what seeds and rows do together is in the mean
    square of the seeds already, so only what rows do beyond it is added. A variance of seeds below 0 is taken as 0: by
    chance it comes out so of two or three seeds, and the interval would be far too short.
    """
    from scipy.stats import t as student_t

    seeds, rows = gains.shape
    mean = float(gains.mean())
    by_seed, by_row = gains.mean(axis=1), gains.mean(axis=0)
    of_seeds = rows * float(by_seed.var(ddof=1))
    together = of_rows = 0.0
    if rows > 1:
        residual = gains - by_seed[:, None] - by_row[None, :] + mean
        together = float((residual**2).sum()) / ((seeds - 1) * (rows - 1))
        of_rows = seeds * float(by_row.var(ddof=1))
    of_seeds = max(of_seeds, together)
    total = of_seeds + max(of_rows - together, 0.0)
    error = math.sqrt(total / (seeds * rows))
    if error <= 1e-12 * max(1.0, abs(mean)):  # nothing to test by but signs
        return mean, mean, permutation_test(by_row if rows > 1 else by_seed) if abs(mean) > 1e-12 else 1.0
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds > 0 else math.inf
    half = error * float(student_t.ppf((1 + level) / 2, freedom))
    return mean - half, mean + half, 2 * float(student_t.sf(abs(mean) / error, freedom))
