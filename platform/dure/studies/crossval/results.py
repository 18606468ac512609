"""What the folds of a cross-validation say together: figures over folds, out-of-fold predictions, comparisons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dure.events import TrialState
from dure.metrics.classification import classification_report
from dure.metrics.metric import TEST, Direction
from dure.metrics.paired import Difference, holm
from dure.studies.crossval.comparison import compare, mcnemar, paired_bootstrap
from dure.studies.crossval.predictions import Predictions, read_predictions, write_oof_predictions
from dure.studies.results import Definitions, Figure, Record, StudyResults, TrialRecord

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
    experiments: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    num_folds: int,
    predictions: Mapping[str, Predictions] | None = None,
) -> list[dict[str, Any]]:
    """Compare every two experiments on the folds that both completed.

    Classifiers whose ``predictions`` out of fold are given are compared row by row too.
    """
    pairs = [_compared(a, b, metric, num_folds) for a, b in combinations(experiments, 2)]
    for pair in pairs:
        known = predictions or {}
        if pair["a"] in known and pair["b"] in known:
            pair["rows"] = _by_rows(known[pair["a"]], known[pair["b"]])
    tested = [pair for pair in pairs if pair["difference"] is not None]
    for pair, p_value in zip(tested, holm([pair["difference"]["p_value"] for pair in tested]), strict=True):
        pair["p_holm"] = p_value
    by_rows = [pair for pair in pairs if pair.get("rows")]
    for pair, p_value in zip(by_rows, holm([pair["rows"]["mcnemar"] for pair in by_rows]), strict=True):
        pair["rows"]["mcnemar_holm"] = p_value
    return pairs


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


def _compared(a: Mapping[str, Any], b: Mapping[str, Any], metric: str, num_folds: int) -> dict[str, Any]:
    first, second = (
        {
            fold["fold"]: fold["metrics"][metric]
            for fold in experiment["folds"]
            if fold["state"] == "completed" and metric in fold["metrics"]
        }
        for experiment in (a, b)
    )
    both = sorted(first.keys() & second.keys())
    pair: dict[str, Any] = {"a": a["name"], "b": b["name"], "metric": metric, "folds": len(both)}
    pair["difference"] = None
    if len(both) > 1:
        scores = ([each[fold] for fold in both] for each in (first, second))
        pair["difference"] = asdict(compare(*scores, num_folds=num_folds))
    return pair


def _by_rows(a: Predictions, b: Predictions) -> dict[str, Any] | None:
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
    return {
        "num_rows": len(rows),
        "bootstrap": {name: asdict(each) for name, each in paired_bootstrap(labels, first, other).items()},
        "mcnemar": mcnemar(labels, first, other),
    }
