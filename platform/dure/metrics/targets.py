"""What an experiment is to reach, and whether it did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dure.metrics.metric import Direction, Metric, Unit


@dataclass(frozen=True)
class Reached:
    """A target beside what came, as ``result.json`` and the record of a study keep it."""

    metric: str
    """Its name."""
    target: float
    """The least, or where lower is better the most, that was asked for."""
    score: float | None
    """What came; None where there is no number."""
    met: bool
    """Whether it is at least as good as the target."""
    short_by: float | None
    """How much is lacking, in the metric's own unit; 0 where it is met, None without a score."""
    direction: Direction
    """Whether the smallest or the largest value is best."""
    unit: Unit
    """How the metric is shown."""
    of: str = ""
    """Which run or mean of a study has the score; empty of a run itself."""
    is_rehearsal: bool = False
    """Whether a miniature has the score, which says nothing of the model that the target is of."""


@dataclass(frozen=True)
class Target:
    """A score that is to be reached.

    It is the least that suffices, or the most where lower is better.
    """

    metric: Metric
    value: float
    is_rehearsal: bool = False

    def reached(self, figures: Mapping[str, Any], of: str = "") -> Reached:
        """Return the target beside what figures say of its metric; a text, NaN and nothing are no score."""
        assert self.metric.direction is not None, "a target has a direction"
        found = figures.get(self.metric.name)
        is_number = isinstance(found, int | float) and math.isfinite(found)
        score = float(found) if found is not None and is_number else None
        lack = None if score is None else max(0.0, self.metric.gain(self.value, score))
        return Reached(
            metric=self.metric.name,
            target=self.value,
            score=score,
            met=lack == 0,
            short_by=lack,
            direction=self.metric.direction,
            unit=self.metric.unit,
            of=of,
            is_rehearsal=self.is_rehearsal,
        )
