"""Out-of-fold predictions: every row by the model that has not seen it, read from the runs and written as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dure.data.labels import ClassIndex
from dure.data.writing import write_rows
from dure.errors import UserError
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, SCORE, RunFolder
from dure.runs.row_scores import order_of, rows_in


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
        UserError: A file is not what dure writes, the folds are of different tables or families, or a row is in two.
    """
    files = {number: RunFolder(path).predictions for number, path in folds.items()}
    found = [(fold, *row) for fold, file in files.items() if file.is_file() for row in rows_in(file)]
    if not found:
        return None
    first = found[0][2]
    for fold, _, row in found:
        if row.keys() != first.keys():
            raise UserError(
                f"its columns are {', '.join(row)}",
                where=str(files[fold]),
                expected=f"those of the other folds: {', '.join(first)}",
            )
    found = [found[place] for place in order_of([number for _, number, _ in found], files[found[0][0]])]
    columns = {name: [row[name] for _, _, row in found] for name in first}
    return Predictions(
        rows=[number for _, number, _ in found],
        folds=[fold for fold, _, _ in found],
        columns={
            name: column
            for name, column in columns.items()
            if name != ROW and not name.startswith((PREDICTED, PROBABILITY, SCORE))
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
