"""What the rows of a table leave open of a score that was measured on them."""

from __future__ import annotations

import math

Interval = tuple[float, float]


def share_interval(share: float, num_rows: int, level: float) -> Interval:
    """Return the interval of a share (Wilson, 1927, "Probable inference, the law of succession, and statistical inference").

    Exact for hits, up to the normal distribution. No mean of row scores between 0 and 1 varies more (Bhatia & Davis,
    2000), so that it is wide for ROUGE; for F1, which is no mean of rows, it is an approximation.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    centre = (share + z * z / (2 * num_rows)) / (1 + z * z / num_rows)
    half = (
        z
        / (1 + z * z / num_rows)
        * math.sqrt(share * (1 - share) / num_rows + z * z / (4 * num_rows * num_rows))
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_of_shares(first: float, second: float, num_rows: int, level: float) -> Interval:
    """Return the interval of ``first - second``, each a share of as many rows (Agresti & Caffo, 2000).

    A hit and a miss are added to both, so that shares of 0 and 1 have noise too.
    """
    from scipy.stats import norm

    rows = num_rows + 2
    ours, theirs = (num_rows * first + 1) / rows, (num_rows * second + 1) / rows
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / rows)
    return ours - theirs - half, ours - theirs + half
