"""How sure it is that one model is better than another, from the same rows scored by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.metrics.metric import Metric

_AT_ONCE = 2**22
"""Drawn rows that are held at a time."""


@dataclass(frozen=True)
class Margin:
    """By how much one model is better than another on the same rows.

    Attributes:
        value: Mean over the rows; positive where the first one is better.
        low: Where the interval begins.
        high: Where it ends.
        level: Probability of the interval.
        num_rows: Rows that were scored.
    """

    value: float
    low: float
    high: float
    level: float
    num_rows: int

    @property
    def is_certain(self) -> bool:
        """Whether the interval says that the first one is better."""
        return self.low > 0


def paired_margin(
    first: Sequence[float],
    second: Sequence[float],
    *,
    metric: Metric,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Margin:
    """Compare two models row by row, with the percentile interval of the bootstrap (Efron, 1979).

    The rows are drawn with replacement, each with the scores of both models, so that what makes a row hard for both
    does not widen the interval.

    Args:
        first: A score per row: a loss, or 1 for a hit.
        second: Those of the other model, for the same rows in the same order.
        metric: What the scores are.
        level: Probability of the interval.
        num_resamples: How often the rows are drawn.
        seed: Decides the draws.

    Raises:
        ValueError: The scores are not as many, there are none, or one is not finite.
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} cannot be paired")
    gains = ours - theirs if metric.higher_is_better else theirs - ours
    if not np.isfinite(gains).all():
        raise ValueError("a score is not finite")
    means = _resampled_means(gains, num_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Margin(float(gains.mean()), float(low), float(high), level, len(gains))


def _resampled_means(
    values: NDArray[np.float64], num_resamples: int, draw: np.random.Generator
) -> NDArray[np.float64]:
    at_once = max(1, _AT_ONCE // len(values))
    means = [
        values[draw.integers(len(values), size=(min(at_once, num_resamples - done), len(values)))].mean(
            axis=1
        )
        for done in range(0, num_resamples, at_once)
    ]
    return np.concatenate(means)
