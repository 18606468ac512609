"""Predicted numbers: read from tables, and judged by correlation and squared error."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.data.fields import CellReader
from dure.errors import UserError

_LARGEST = 1e18
"""Its square is finite in single precision."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NumberReader(CellReader):
    """Reads one number whose squared error can be computed."""

    def read(self, text: str) -> str:
        """Return the number as it is written, without space around it."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= _LARGEST or "_" in text:  # Python takes 1_000, which no table means so.
            raise UserError(
                f"holds '{text.strip()[:40]}'",
                expected=f"a number, such as 3.5, from {-_LARGEST:g} to {_LARGEST:g}",
            )
        return text.strip()


def number_report(truth: Sequence[float] | Floats, predicted: Sequence[float] | Floats) -> dict[str, float]:
    """Compare predicted numbers with the true ones.

    Returns:
        ``pearson`` (product-moment correlation), ``spearman`` (that of the ranks, equal numbers sharing the mean of
        theirs) and ``mse`` (mean squared error). Where one side is constant nothing correlates with it: both are 0.

    Raises:
        UserError: There is no row, or the two do not pair up.
    """
    true, guessed = (np.asarray(side, dtype=np.float64) for side in (truth, predicted))
    if len(true) != len(guessed):
        raise UserError(f"{len(guessed)} predictions do not pair up with {len(true)} numbers")
    if not len(true):
        raise UserError("there is no prediction to score")
    return {
        "pearson": _correlation(true, guessed),
        "spearman": _correlation(ranks(true), ranks(guessed)),
        "mse": float(np.square(true - guessed).mean()),
    }


def ranks(numbers: NDArray[np.floating[Any]]) -> Floats:
    """Return the ranks of numbers from 1, equal ones sharing the mean of theirs, shape (rows,).

    SciPy's ``rankdata`` returns the same, but ``scipy.stats`` takes 22 MiB of every process that scores.
    """
    _, places, times = np.unique(numbers, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(times) - (times - 1) / 2)[places]
    return found


def _correlation(first: Floats, second: Floats) -> float:
    """Return the product-moment correlation (Pearson 1895); 0 where a side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    a, b = first - first.mean(), second - second.mean()
    # Each side by itself, so that no square of a very small or large number is lost.
    return float(np.clip(a / np.linalg.norm(a) @ (b / np.linalg.norm(b)), -1.0, 1.0))


def are_measures(classes: Sequence[str]) -> bool:
    """Return whether names of classes are plain numbers, of which most have a fraction."""
    fractions = sum(re.fullmatch(r"[-+]?[0-9]*\.[0-9]*[1-9][0-9]*", name) is not None for name in classes)
    return fractions > len(classes) / 2 and all(
        re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+", name) for name in classes
    )
