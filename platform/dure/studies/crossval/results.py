"""What the folds of a cross-validation say together: figures over folds, out-of-fold predictions, comparisons.

The summary of a study of this kind is data::

    kind: "crossval"
    study, path, state, seconds                       as of every study
    metric: "macro_f1"; direction: "max" or "min"     what experiments are compared by
    definitions: {"macro_f1": {"direction": "max", "unit": "share"}, …}
    num_folds: 5
    experiments: what :func:`crossval_results` returns for each, in their order
    comparisons: what :func:`comparisons` returns, when there are several
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dure.config.loading import load_record
from dure.data.labels import ClassIndex
from dure.errors import UserError
from dure.files import write_text
from dure.metrics.classification import classification_report
from dure.runs.folder import PREDICTED, PROBABILITY, RunFolder
from dure.studies.crossval.comparison import Share, compare, holm, mcnemar, paired_bootstrap

_TEST = "test_"
_SHARES: tuple[Share, ...] = ("accuracy", "macro_f1", "weighted_f1")
_OVERALL = (*_SHARES, "num_rows")


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions: every row by the model that has not seen it, in the order of the table.

    Attributes:
        rows: Number of every row in the checked table.
        folds: The fold that held it out.
        columns: Inputs and targets by role.
        predicted: What was predicted, by the name of the target.
        probabilities: Probability of every class by its name, in the order of the model's classes.
    """

    rows: Sequence[int]
    folds: Sequence[int]
    columns: Mapping[str, Sequence[str]]
    predicted: Mapping[str, Sequence[str]]
    probabilities: Mapping[str, Sequence[str]]

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


def crossval_results(name: str, folds: Sequence[Path], output: Path | None = None) -> dict[str, Any]:
    """Put together the runs of one experiment, each of which held out one fold.

    Args:
        name: Name of the experiment.
        folds: Folders of the runs; those that have not ended or failed are among the folds without figures.
        output: ``oof_predictions.csv`` to write when the runs kept their predictions: inputs, targets (``text,label``
            of a classifier), ``prediction``, ``fold``, and one column per class with its probability.

    Returns:
        ``name``; ``folds``, one by one with ``fold`` (number), ``state``, ``path``, ``seconds``, ``error`` and
        ``metrics`` (on the held-out rows, by name without ``test_``); ``mean`` and ``std`` by metric over the folds
        that completed (sample standard deviation; figures of a class only over folds that have rows of it; ``std``
        lacks what one fold alone has); and when there are predictions, ``oof_predictions`` (their file, if it was
        written), and of a classifier ``overall`` (accuracy, macro and weighted F1 of all rows together) and
        ``confusion``: ``classes`` and ``counts``, where row i and column j count the rows of class i taken for j.

    Raises:
        UserError: A folder is not of a fold, or two of the same one are given.
    """
    records = sorted((_record(path) for path in folds), key=lambda record: int(record["fold"]))
    numbers = [record["fold"] for record in records]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"folds {numbers} are not different ones", where=name)
    completed = [record for record in records if record["state"] == "completed"]
    mean, std = _over_folds([record["metrics"] for record in completed])
    result: dict[str, Any] = {"name": name, "folds": records, "mean": mean, "std": std}
    predictions = read_predictions([Path(record["path"]) for record in completed])
    if predictions is None:
        return result
    if output is not None:
        write_oof_predictions(output, predictions)
        result["oof_predictions"] = str(output)
    if predictions.classes is not None:
        labels, predicted = predictions.classes
        report = classification_report(labels, predicted)
        result["overall"] = {name: report[name] for name in _OVERALL}
        result["confusion"] = _confusion(labels, predicted, list(predictions.probabilities))
    return result


def read_predictions(folds: Iterable[Path]) -> Predictions | None:
    """Read the predictions that the runs of several folds kept; None when none of them has kept any.

    Args:
        folds: Folders of the runs.

    Raises:
        UserError: The folds are of different tables or families, or a row is in two of them.
    """
    header: list[str] | None = None
    rows: list[tuple[int, int, list[str]]] = []
    for path in folds:
        folder = RunFolder(path)
        if not folder.predictions.is_file():
            continue
        number = _fold_number(folder)
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
            name: column for name, column in columns.items() if not name.startswith((PREDICTED, PROBABILITY))
        },
        predicted=_with_prefix(columns, PREDICTED),
        probabilities=_with_prefix(columns, PROBABILITY),
    )


def write_oof_predictions(path: Path, predictions: Predictions) -> None:
    """Write out-of-fold predictions as CSV, whole or not at all; :func:`crossval_results` names the columns."""
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


def comparisons(
    experiments: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    num_folds: int,
    predictions: Mapping[str, Predictions] | None = None,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Compare every two experiments on the folds that both completed.

    Args:
        experiments: What :func:`crossval_results` returned for each.
        metric: What they are compared by, such as ``macro_f1``.
        num_folds: Folds that the table was cut into.
        predictions: Experiment to its out-of-fold predictions; of classifiers they are compared row by row too.
        level: Confidence of the intervals.

    Returns:
        For every pair ``a``, ``b``, ``metric``, ``folds`` (how many both have), and ``difference`` (a minus b) as
        ``value``, ``low``, ``high``, ``level``, ``p_value``, None below two folds; where both predicted the same
        rows, ``rows`` with ``bootstrap`` (metric to difference) and ``mcnemar`` (p-value). ``p_holm`` and
        ``mcnemar_holm`` are corrected for the number of pairs.
    """
    pairs = [_compared(a, b, metric, num_folds, level) for a, b in combinations(experiments, 2)]
    for pair in pairs:
        known = predictions or {}
        if pair["a"] in known and pair["b"] in known:
            pair["rows"] = _by_rows(known[pair["a"]], known[pair["b"]], level)
    tested = [pair for pair in pairs if pair["difference"] is not None]
    for pair, p_value in zip(tested, holm([pair["difference"]["p_value"] for pair in tested]), strict=True):
        pair["p_holm"] = p_value
    by_rows = [pair for pair in pairs if pair.get("rows")]
    for pair, p_value in zip(by_rows, holm([pair["rows"]["mcnemar"] for pair in by_rows]), strict=True):
        pair["rows"]["mcnemar_holm"] = p_value
    return pairs


def _record(path: Path) -> dict[str, Any]:
    folder = RunFolder(path)
    number, result = _fold_number(folder), folder.read_result()
    record: dict[str, Any] = {"fold": number, "path": str(path), "state": "pending", "seconds": 0.0}
    if result is None:
        return {**record, "error": None, "metrics": {}}
    metrics = {
        name.removeprefix(_TEST): value
        for name, value in result.metrics.items()
        if name.startswith(_TEST) and not isinstance(value, str)
    }
    return {
        **record,
        "state": result.state,
        "seconds": result.seconds,
        "error": result.error,
        "metrics": metrics,
    }


def _fold_number(folder: RunFolder) -> int:
    if folder.experiment.is_file():
        fold = load_record(folder.experiment).data.fold
        if fold is not None:
            return fold.number
    raise UserError(
        "this is no folder of a fold", where=str(folder.path), expected="a run whose experiment has data.fold"
    )


def _over_folds(folds: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
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


def _with_prefix(columns: Mapping[str, list[str]], prefix: str) -> dict[str, list[str]]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


def _confusion(labels: Sequence[str], predicted: Sequence[str], classes: list[str]) -> dict[str, Any]:
    places = {name: place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, ([places[label] for label in labels], [places[label] for label in predicted]), 1)
    return {"classes": classes, "counts": counts.tolist()}


def _compared(
    a: Mapping[str, Any], b: Mapping[str, Any], metric: str, num_folds: int, level: float
) -> dict[str, Any]:
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
        found = compare(
            [first[fold] for fold in both],
            [second[fold] for fold in both],
            num_folds=num_folds,
            level=level,
        )
        pair["difference"] = asdict(found)
    return pair


def _by_rows(a: Predictions, b: Predictions, level: float) -> dict[str, Any] | None:
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
        "bootstrap": {
            metric: asdict(paired_bootstrap(labels, first, other, metric=metric, level=level))
            for metric in _SHARES
        },
        "mcnemar": mcnemar(labels, first, other),
    }
