"""Out-of-fold predictions: every row by the model that has not seen it, read from the runs and written as one table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dure.data.labels import ClassIndex
from dure.data.writing import write_rows
from dure.errors import UserError
from dure.runs.folder import PREDICTED, PROBABILITY, SCORE, RunFolder


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions: every row by the model that has not seen it, in the order of the table."""

    rows: Sequence[int]
    """Number of every row in the checked table."""
    folds: Sequence[int]
    """The fold that held it out."""
    columns: Mapping[str, Sequence[str]]
    """Inputs and targets by role."""
    predicted: Mapping[str, Sequence[str]]
    """What was predicted, by the name of the target."""
    probabilities: Mapping[str, Sequence[str]]
    """Probability of every class by its name, in the order of the model's classes."""

    @property
    def classes(self) -> tuple[Sequence[str], Sequence[str]] | None:
        """The true and the predicted class of every row; None unless every row is of one of the classes."""
        for name, predicted in self.predicted.items():
            if name in self.columns and self.probabilities:
                names = list(self.probabilities)
                index = ClassIndex(names)
                places = [index.find(label) for label in self.columns[name]]
                labels = [names[place] for place in places if place is not None]
                if len(labels) == len(places) and {*predicted} <= {*names}:
                    return labels, predicted
        return None


def read_predictions(folds: Mapping[int, Path]) -> Predictions | None:
    """Read the predictions that the runs of several folds kept, by their numbers; None when none of them has kept any.

    Raises:
        UserError: The folds are of different tables or families, or a row is in two of them.
    """
    header: list[str] | None = None
    rows: list[tuple[int, int, list[str]]] = []
    for number, path in folds.items():
        folder = RunFolder(path)
        if not folder.predictions.is_file():
            continue
        with folder.predictions.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            found = next(lines)
            if header is not None and found != header:
                raise UserError(
                    f"its columns are {', '.join(found)}",
                    where=str(folder.predictions),
                    expected=f"those of the other folds: {', '.join(header)}",
                )
            header = found
            rows += [(int(row), number, cells) for row, *cells in lines]
    if header is None or not rows:
        return None
    rows.sort(key=lambda row: row[0])
    doubled = next((one[0] for one, other in pairwise(rows) if one[0] == other[0]), None)
    if doubled is not None:
        raise UserError(f"row {doubled} is held out by two folds", expected="folds of one cross-validation")
    columns: dict[str, list[str]] = dict(
        zip(header[1:], map(list, zip(*(cells for _, _, cells in rows), strict=True)), strict=True)
    )
    return Predictions(
        rows=[row for row, _, _ in rows],
        folds=[fold for _, fold, _ in rows],
        columns={
            name: column
            for name, column in columns.items()
            if not name.startswith((PREDICTED, PROBABILITY, SCORE))
        },
        predicted=_with_prefix(columns, PREDICTED),
        probabilities=_with_prefix(columns, PROBABILITY),
    )


def write_oof_predictions(path: Path, predictions: Predictions) -> None:
    """Write out-of-fold predictions as CSV, whole or not at all; :func:`dure.studies.crossval.results.put_together` names the columns."""
    single = len(predictions.predicted) == 1
    columns: dict[str, Sequence[Any]] = {
        **predictions.columns,
        **{
            "prediction" if single else f"prediction_{name}": column
            for name, column in predictions.predicted.items()
        },
        "fold": predictions.folds,
        **{f"{PROBABILITY}{name}": column for name, column in predictions.probabilities.items()},
    }
    write_rows(path, list(columns), zip(*columns.values(), strict=True))


def _with_prefix(columns: Mapping[str, list[str]], prefix: str) -> dict[str, list[str]]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
