"""What a batch came to; ``experiment_summary.json`` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dure.studies.results import Definitions, Record, TrialResults


class Setting(Record):
    """One experiment over its seeds."""

    name: str
    runs: tuple[str, ...]
    """Names of its runs, by seed."""
    num_scored: int
    """Runs that came to their end with a score in the first metric."""
    mean: Mapping[str, float]
    """Mean of every metric over the runs that came to their end with one."""
    baseline: float | None
    """What the trivial predictor has of the first metric; None where there is none."""
    deviation: Mapping[str, float]
    """Standard deviation of every metric over the same runs (n - 1); of less than two there is none."""


class SeedsComparison(Record):
    """Two settings by the same seeds."""

    first: str
    second: str
    difference: float
    """By how much the first is better in the first metric, as a mean over the seeds; negative where it is worse."""
    low: float
    high: float
    """Its interval of 95 %, by Student's t over the seeds."""
    p_value: float | None
    p_holm: float | None
    """The p-value of the paired t-test, corrected for the number of comparisons (Holm 1979)."""
    num_seeds: int
    """Seeds that both have a score of."""
    wins: int
    """Of these, those by which the first is better."""
    losses: int
    verdict: str
    """Of the first: better, worse, tie or equal."""
    sentence: str


class BatchResults(TrialResults):
    """The experiments side by side."""

    kind: Literal["batch"]
    metrics: tuple[str, ...]
    """Columns of the table; the first one ranks."""
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    best: str | None
    """The best experiment by the first metric; with several seeds by its mean, of those that have all scores and are
    better than the trivial baseline. Whether it is surely the best is what the comparisons say."""
    sentences: tuple[str, ...] = ()
    """Who is best and how sure that is, as the page says it; empty until the session has ended, and where settings run
    by several seeds, which the comparisons are of."""
    settings: tuple[Setting, ...] = ()
    """The experiments over their seeds, in their order; empty where each runs once."""
    comparisons: tuple[SeedsComparison, ...] = ()
    """Every two settings by the first metric; empty where each runs once."""
