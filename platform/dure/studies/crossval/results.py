"""What the folds of a cross-validation say together: figures over folds, out-of-fold predictions, comparisons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dure.data.labels import ClassIndex
from dure.data.writing import write_rows
from dure.errors import UserError
from dure.events import TrialState
from dure.metrics.classification import classification_report
from dure.metrics.metric import TEST, Direction
from dure.metrics.paired import Difference, holm
from dure.metrics.paired_classes import mcnemar, paired_bootstrap
from dure.reporting.figures import Figure
from dure.runs.folder import PREDICTED, PROBABILITY, RunFolder
from dure.runs.row_scores import of_table, order_of, rows_in, with_prefix
from dure.studies.crossval.comparison import compare
from dure.studies.results import Definitions, Record, StudyResults, TrialRecord

_OVERALL = ("accuracy", "macro_f1", "weighted_f1", "num_rows")


class FoldRecord(Record):
    """One fold of an experiment."""

    fold: int
    """Its number, from 1."""
    path: str
    state: TrialState
    seconds: float
    error: str | None
    metrics: Mapping[str, Figure]
    """On the held-out rows, by name without ``test_``."""


class ConfusionRecord(Record):
    """How often a class was taken for another."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """Row i and column j count the rows of class i taken for j."""


class ExperimentRecord(Record):
    """The folds of one experiment and what they say together; see :func:`put_together`."""

    name: str
    folds: tuple[FoldRecord, ...]
    """Those that have begun."""
    mean: Mapping[str, float]
    """By metric, over the folds that completed; figures of a class only over folds that have rows of it."""
    std: Mapping[str, float]
    """Sample standard deviation; lacks what one fold alone has."""
    baseline: float | None = None
    """What the trivial predictor has of the metric on the held-out rows, as a mean over the folds."""
    oof_predictions: str | None = None
    """File with the predictions of all folds, if they were kept."""
    overall: Mapping[str, float] | None = None
    """Of a classifier: accuracy, macro and weighted F1 of all rows together."""
    confusion: ConfusionRecord | None = None
    confusion_matrix: str | None = None
    """Picture of the confusions."""

    @property
    def num_completed(self) -> int:
        """How many folds came to their end."""
        return sum(fold.state == "completed" for fold in self.folds)


class RowsRecord(Record):
    """Two classifiers compared row by row."""

    num_rows: int
    bootstrap: Mapping[str, Difference]
    mcnemar: float
    mcnemar_holm: float


class ComparisonRecord(Record):
    """Two experiments on the folds that both completed; see :func:`comparisons`."""

    a: str
    b: str
    metric: str
    folds: int
    """How many both have."""
    difference: Difference | None
    """a minus b; None below two folds."""
    p_holm: float | None = None
    """The p-value, corrected for the number of pairs."""
    rows: RowsRecord | None = None
    """Of classifiers that predicted the same rows."""


class CrossvalResults(StudyResults):
    """What a cross-validation came to, while it runs and at its end; ``crossval_results.json`` of its folder."""

    about: ClassVar[str] = "record of a cross-validation"
    trials_key: ClassVar[str] = "trials"

    kind: Literal["crossval"]
    started: str
    seconds: float
    metric: str
    """What experiments are compared by, such as ``macro_f1``."""
    direction: Direction
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    num_folds: int
    folds: int
    """The same as ``num_folds``."""
    seed: int
    metrics: Mapping[str, str]
    """What chooses the best checkpoint of every experiment."""
    dropped: Mapping[str, str]
    """Experiments that are trained on no further folds, with the reason."""
    trials: tuple[TrialRecord, ...]
    """Every fold of every experiment as a trial of the study."""
    experiments: tuple[ExperimentRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    """Every two experiments; empty until the session has ended."""

    @property
    def whole(self) -> list[ExperimentRecord]:
        """The experiments that have all folds; the means of others are of other rows."""
        return [each for each in self.experiments if each.num_completed == self.num_folds]


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


def put_together(experiment: ExperimentRecord, output: Path) -> tuple[ExperimentRecord, Predictions | None]:
    """Add what the predictions of all completed folds say together, and write them.

    The file, ``oof_predictions.csv``, has inputs, targets (``text,label`` of a classifier), ``prediction``, ``fold``,
    and one column per class with its probability. Predictions are None where they were not kept.

    Raises:
        UserError: The folds are of different tables or families, or a row is in two of them.
    """
    completed = {fold.fold: Path(fold.path) for fold in experiment.folds if fold.state == "completed"}
    predictions = read_predictions(completed)
    if predictions is None:
        return experiment, None
    write_oof_predictions(output, predictions)
    values: dict[str, Any] = {"oof_predictions": str(output)}
    if predictions.classes is not None:
        labels, predicted = predictions.classes
        report = classification_report(labels, predicted)
        values["overall"] = {name: report[name] for name in _OVERALL}
        values["confusion"] = _confusion(labels, predicted, list(predictions.probabilities))
    return experiment.with_values(**values), predictions


def comparisons(
    experiments: Sequence[ExperimentRecord],
    *,
    metric: str,
    num_folds: int,
    predictions: Mapping[str, Predictions],
) -> tuple[ComparisonRecord, ...]:
    """Compare every two experiments on the folds that both completed, p-values corrected for the number of pairs.

    Classifiers whose ``predictions`` out of fold are given are compared row by row too.
    """
    pairs = []
    for a, b in combinations(experiments, 2):
        pair = _compared(a, b, metric, num_folds)
        if a.name in predictions and b.name in predictions:
            pair = pair.with_values(rows=_by_rows(predictions[a.name], predictions[b.name]))
        pairs.append(pair)
    differences = [pair.difference for pair in pairs if pair.difference]
    of_folds = iter(holm([1.0 if each.p_value is None else each.p_value for each in differences]))
    of_rows = iter(holm([each.rows.mcnemar for each in pairs if each.rows]))
    return tuple(
        pair.with_values(
            p_holm=next(of_folds) if pair.difference else None,
            rows=pair.rows.with_values(mcnemar_holm=next(of_rows)) if pair.rows else None,
        )
        for pair in pairs
    )


def held_out(metrics: Mapping[str, float | int | str]) -> dict[str, float]:
    """Return the figures of the held-out rows, by name without ``test_``."""
    return {
        name.removeprefix(TEST): value
        for name, value in metrics.items()
        if name.startswith(TEST) and not isinstance(value, str)
    }


def over_folds(folds: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean and sample standard deviation by metric."""
    mean, std = {}, {}
    for name in dict.fromkeys(name for metrics in folds for name in metrics):
        values = [float(metrics[name]) for metrics in folds if name in metrics and _is_of_rows(name, metrics)]
        if values:
            mean[name] = statistics.fmean(values)
        if len(values) > 1:
            std[name] = statistics.stdev(values)
    return mean, std


def _is_of_rows(name: str, metrics: Mapping[str, float]) -> bool:
    """Whether a figure is of all rows, or of a class that the fold has rows of."""
    _, bracket, label = name.partition("[")
    return not bracket or metrics.get(f"support[{label}", 1) > 0


def _confusion(labels: Sequence[str], predicted: Sequence[str], classes: list[str]) -> dict[str, Any]:
    places = {name: place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, ([places[label] for label in labels], [places[label] for label in predicted]), 1)
    return {"classes": classes, "counts": counts.tolist()}


def _compared(a: ExperimentRecord, b: ExperimentRecord, metric: str, num_folds: int) -> ComparisonRecord:
    first, second = (
        {
            fold.fold: float(score)
            for fold in each.folds
            if fold.state == "completed" and isinstance(score := fold.metrics.get(metric), int | float)
        }
        for each in (a, b)
    )
    both = sorted(first.keys() & second.keys())
    scores = ([each[fold] for fold in both] for each in (first, second))
    difference = compare(*scores, num_folds=num_folds) if len(both) > 1 else None
    return ComparisonRecord(a=a.name, b=b.name, metric=metric, folds=len(both), difference=difference)


def _by_rows(a: Predictions, b: Predictions) -> RowsRecord | None:
    """Compare two classifiers on the rows that both have predicted."""
    if a.classes is None or b.classes is None:
        return None
    second = dict(zip(b.rows, zip(*b.classes, strict=True), strict=True))
    rows = [
        (label, predicted, *second[row])
        for row, label, predicted in zip(a.rows, *a.classes, strict=True)
        if row in second
    ]
    if not rows or any(label != other for label, _, other, _ in rows):
        return None
    labels, first, _, other = zip(*rows, strict=True)
    p_value = mcnemar(labels, first, other)
    return RowsRecord(
        num_rows=len(rows),
        bootstrap=paired_bootstrap(labels, first, other),
        mcnemar=p_value,
        mcnemar_holm=p_value,
    )


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
        columns=of_table(columns),
        predicted=with_prefix(columns, PREDICTED),
        probabilities=with_prefix(columns, PROBABILITY),
    )


def write_oof_predictions(path: Path, predictions: Predictions) -> None:
    """Write out-of-fold predictions as CSV, whole or not at all; :func:`put_together` names the columns."""
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
