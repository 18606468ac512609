"""The Mann–Kendall test: whether a series goes up or down, whatever its shape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple


class Trend(NamedTuple):
    """What the test says of a series."""

    s: int
    """Pairs that rise minus pairs that fall."""
    p_value: float
    """Probability of such an ``s``, or one further from 0, when the order means nothing; two-sided."""


def mann_kendall(values: Sequence[float]) -> Trend:
    """Test a series for a trend (Mann, 1945; Kendall, 1975, "Rank Correlation Methods").

    The probability is exact when all values differ. With ties it is that of the normal distribution, with Kendall's
    variance for ties and the correction for continuity.

    Raises:
        ValueError: A value is not finite.
    """
    from scipy.stats import kendalltau

    if not all(map(math.isfinite, values)):
        raise ValueError(f"{list(values)} are not all finite")
    length = len(values)
    s = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    ties = [count for count in Counter(values).values() if count > 1]
    if s == 0:
        return Trend(0, 1.0)
    if not ties:
        return Trend(s, float(kendalltau(range(length), values, method="exact").pvalue))
    variance = (
        length * (length - 1) * (2 * length + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    ) / 18
    return Trend(s, math.erfc((abs(s) - 1) / math.sqrt(2 * variance)))
