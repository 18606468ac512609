"""Which columns of two tables are compared, as far as the user does not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dure.data.canonical import folded
from dure.data.fields import is_like_an_id
from dure.errors import UserError, shell_word

CLASS_NAMES = frozenset(
    ("label", "labels", "class", "classes", "category", "emotion", "emotions", "sentiment")
) | frozenset(("라벨", "레이블", "분류", "범주", "감정", "클래스"))
"""What columns of classes are called; all others hold texts."""
_PREDICTED = "predicted_"
_PROBABILITY = "probability_"
_SAID = ("prediction", "predicted", "예측")
"""What columns are called that hold predictions, whatever stands beside them."""
_USUAL = (
    *_SAID,
    "summary",
    "target",
    "reference",
    "output",
    "요약",
    "정답",
    *sorted(CLASS_NAMES),
)


@dataclass(frozen=True)
class ScoredColumns:
    """The columns that are compared.

    Without an ``id`` rows are paired by their order.
    """

    id: str | None
    prediction: str
    references: tuple[str, ...]

    @property
    def are_classes(self) -> bool:
        """Whether they are called as classes are."""
        return any(_base(name) in CLASS_NAMES for name in (self.prediction, *self.references[:1]))


def find_columns(
    predicted: Sequence[str],
    expected: Sequence[str],
    *,
    id_column: str | None,
    prediction_column: str | None,
    reference_columns: Sequence[str] | None,
) -> ScoredColumns:
    """Return the columns that are compared: those that are given, and by their names the others.

    Raises:
        UserError: A column is not to be found by its name alone.
    """
    ids = [name for name in predicted if name in expected and is_like_an_id(name)]
    joined = id_column or (ids[0] if ids else None)
    ours, theirs = (
        [name for name in names if name != joined and not name.startswith(_PROBABILITY)]
        for names in (predicted, expected)
    )
    prediction = prediction_column or _prediction(ours, reference_columns)
    found = _references(theirs, prediction) if reference_columns is None else reference_columns
    return ScoredColumns(joined, prediction, tuple(found))


def _prediction(names: Sequence[str], references: Sequence[str] | None) -> str:
    marked = [name for name in names if name.startswith(_PREDICTED) or folded(name) in _SAID]
    shared = [name for name in names if name in (references or ())]
    usual = [name for known in _USUAL for name in names if folded(name) == known]
    for some in (names, marked, shared):
        if len(some) == 1:
            return some[0]
    if usual:
        return usual[0]
    raise _unclear("predictions", names, "--prediction-column")


def _references(names: Sequence[str], prediction: str) -> Sequence[str]:
    base = _base(prediction)
    same = [name for name in names if folded(name) == base]
    numbered = [name for name in names if re.fullmatch(rf"{re.escape(base)}[ _-]?[0-9]+", folded(name))]
    if same or numbered:
        return same or numbered
    usual = [name for known in _USUAL for name in names if folded(name) == known]
    # A single column beside predicted classes is as often the text that they are of.
    if usual or (len(names) == 1 and base not in CLASS_NAMES):
        return usual[:1] or names
    raise _unclear("references", names, "--reference-columns")


def _base(name: str) -> str:
    return folded(name.removeprefix(_PREDICTED))


def _unclear(what: str, names: Sequence[str], option: str) -> UserError:
    return UserError(
        f"it is not clear which column of the {what} is to be scored",
        where=option,
        expected=f"one of: {', '.join(names) or 'a column beside the ids'}",
        hint=f"{option} {shell_word(names[0])}" if len(names) > 1 else None,
    )
