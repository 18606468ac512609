"""The Mann–Kendall test: whether a series goes up or down, whatever its shape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple


class Trend(NamedTuple):
    """What the test says of a series.

    Attributes:
        s: Pairs that rise minus pairs that fall.
        p_value: Probability of such an ``s``, or one further from 0, when the order means nothing; two-sided.
    """

    s: int
    p_value: float


def mann_kendall(values: Sequence[float]) -> Trend:
    """Test a series for a trend (Mann, 1945; Kendall, 1975, "Rank Correlation Methods").

    The probability is exact when all values differ. With ties it is that of the normal distribution, with Kendall's
    variance for ties and the correction for continuity.

    Args:
        values: The series in its order; all finite.

    Raises:
        ValueError: A value is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{list(values)} are not all finite")
    length = len(values)
    s = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    ties = [count for count in Counter(values).values() if count > 1]
    if not ties:
        return Trend(s, _exact_p(length, abs(s)))
    variance = (
        length * (length - 1) * (2 * length + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    ) / 18
    if s == 0 or variance == 0:
        return Trend(s, 1.0)
    return Trend(s, math.erfc((abs(s) - 1) / math.sqrt(2 * variance)))


@cache
def _exact_p(length: int, s: int) -> float:
    """Return the share of the orders of ``length`` different values whose statistic is at least ``s`` from 0."""
    # orders[k]: how many orders have k falling pairs. A value put among m others adds 0 to m of them.
    orders = [1]
    for others in range(1, length):
        orders = [
            sum(orders[max(0, falling - others) : falling + 1]) for falling in range(len(orders) + others)
        ]
    pairs = length * (length - 1) // 2
    extreme = sum(count for falling, count in enumerate(orders) if abs(pairs - 2 * falling) >= s)
    return extreme / math.factorial(length)
