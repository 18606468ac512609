"""Whether an export predicts what its original predicts, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Prediction = Mapping[str, Any]
"""What a family predicts of one row: column → text or number."""
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A row that the two predict differently.

    Rows are numbered from 0 among those that were compared; of both predictions only what differs is kept.
    """

    row: int
    original: Prediction
    export: Prediction


@dataclass(frozen=True)
class Agreement:
    """How far an export predicts what its original predicts."""

    num_rows: int
    """Rows that were compared."""
    num_equal: int
    """Those on which all texts and labels are equal, and all numbers within the tolerance."""
    tolerance: float
    """Largest difference of two numbers that counts as none."""
    largest_difference: float
    """The largest that was found; infinite where one of the two is no number."""
    differences: tuple[Difference, ...]
    """The first rows that differ."""

    @property
    def share(self) -> float:
        """Part of the rows on which the two agree."""
        return self.num_equal / self.num_rows

    @property
    def sentence(self) -> str:
        """The agreement in words."""
        return (
            f"{self.num_equal:,} of {self.num_rows:,} rows agree: equal texts and labels, numbers within "
            f"{self.tolerance:g} (largest difference {self.largest_difference:.2g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        largest = self.largest_difference
        return {
            **asdict(self),
            "largest_difference": largest if math.isfinite(largest) else None,
            "share": self.share,
        }


def compare(original: Sequence[Prediction], export: Sequence[Prediction], tolerance: float) -> Agreement:
    """Compare predictions of the same rows in the same order.

    Raises:
        ValueError: They are of different numbers of rows, or there are none.
    """
    if not original:
        raise ValueError("there are no predictions to compare")
    largest, differing = 0.0, list[Difference]()
    for row, (one, other) in enumerate(zip(original, export, strict=True)):
        columns = []
        for column in one.keys() | other.keys():
            distance = _distance(one.get(column), other.get(column))
            if distance is not None:
                largest = max(largest, distance)
            if distance is None or distance > tolerance:
                columns.append(column)
        if columns:
            chosen = [column for column in one if column in columns]
            differing.append(
                Difference(
                    row, {name: one[name] for name in chosen}, {name: other.get(name) for name in chosen}
                )
            )
    return Agreement(
        len(original), len(original) - len(differing), tolerance, largest, tuple(differing[:_MOST_SHOWN])
    )


def _distance(one: Any, other: Any) -> float | None:
    """Return how far two values are apart; None for two that are unequal and no numbers."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) and math.isnan(other):
            return 0.0
        distance = abs(one - other)
        return math.inf if math.isnan(distance) else distance
    return 0.0 if one == other else None
