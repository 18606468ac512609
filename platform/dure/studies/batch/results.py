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
    """Runs that came to their end, and that the means are of."""
    mean: Mapping[str, float]
    """Mean of every metric over these runs."""
    deviation: Mapping[str, float]
    """Standard deviation of every metric over these runs (n - 1); of less than two there is none."""


class BatchResults(TrialResults):
    """The experiments side by side."""

    kind: Literal["batch"]
    metrics: tuple[str, ...]
    """Columns of the table; the first one ranks."""
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    best: str | None
    """The best experiment by the first metric; with several seeds by its mean, of those that have all scores."""
    settings: tuple[Setting, ...] = ()
    """The experiments over their seeds, in their order; empty where each runs once."""
