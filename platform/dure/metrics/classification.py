"""Accuracy and per-class precision, recall and F1 of predicted classes: one for each row, or any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import UserError
from dure.metrics.metric import Metric

_FIGURES = ("precision", "recall", "f1", "support")
CLASS_METRICS = (
    *(Metric(f"eval_{name}[class]", "max", "share") for name in ("precision", "recall", "f1")),
    Metric("eval_support[class]", None, "count"),
)
"""Figures of every class, which :func:`class_figures` gives."""


def classification_report(
    labels: Sequence[str] | Sequence[int], predictions: Sequence[str] | Sequence[int]
) -> dict[str, Any]:
    """Compare predicted classes with the true ones.

    An empty prediction is none: it is wrong, and no class of its own.

    Returns:
        ``accuracy``, ``macro_f1`` (every class counts alike, those only predicted too), ``weighted_f1``
        (by the rows of a class), ``num_rows``, and ``per_class``: ``precision``, ``recall``, ``f1`` and
        ``support`` by the class's name. What would divide by zero is 0.

    Raises:
        UserError: There is no row, or the two do not pair up.
    """
    if len(labels) != len(predictions):
        raise UserError(f"{len(predictions)} predictions do not pair up with {len(labels)} labels")
    if not len(labels):
        raise UserError("there is no prediction to score")
    classes = sorted({*labels, *predictions} - {""})
    places = {each: place for place, each in enumerate((*classes, ""))}
    truth, said = (np.array([places[each] for each in rows]) for rows in (labels, predictions))
    hits, given, real = (
        np.bincount(chosen, minlength=len(places))[: len(classes)]
        for chosen in (truth[truth == said], said, truth)
    )
    f1 = _ratio(2 * hits, given + real)
    return {
        "accuracy": float((truth == said).mean()),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((f1 * real).sum() / real.sum()),
        "num_rows": len(labels),
        "per_class": _per_class(classes, _ratio(hits, given), _ratio(hits, real), f1, real),
    }


def class_figures(report: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Return what a report says of every class, as ``f1[joy]``; 0 of one that no row has and none was given."""
    absent = dict.fromkeys(_FIGURES, 0)
    return {
        f"{figure}[{name}]": float(report["per_class"].get(name, absent)[figure])
        for name in names
        for figure in _FIGURES
    }


def trivial_classification(
    train: NDArray[np.int64], dev: NDArray[np.int64], num_classes: int
) -> dict[str, float]:
    """Score a classifier that never reads a text, as validation names its figures.

    It predicts the most frequent training class, the first of several, and gives every class its share of the
    training rows as probability, by Laplace's rule: each class counts one row more than it has, so that a class
    without training rows, as a small part of a table may leave one, costs much but not infinitely much.

    ``train`` and ``dev`` have the class id of every row; ids lie below ``num_classes``.

    Returns:
        ``eval_accuracy``, ``eval_macro_f1``, ``eval_weighted_f1`` and ``eval_loss`` (mean cross entropy in nats).

    Raises:
        UserError: There is no validation row.
    """
    counts = np.bincount(train, minlength=num_classes)
    report = classification_report(dev.tolist(), [int(counts.argmax())] * len(dev))
    shares = (counts + 1) / (counts.sum() + num_classes)
    return {
        **{f"eval_{name}": report[name] for name in ("accuracy", "macro_f1", "weighted_f1")},
        "eval_loss": float(-np.log(shares[dev]).mean()),
    }


def multilabel_report(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], names: Sequence[str]
) -> dict[str, Any]:
    """Compare the labels that rows were given with those that they have.

    Both tables say which labels every row has: shape (rows, labels).

    Returns:
        ``subset_accuracy`` (the part of rows whose labels are all right), ``micro_f1`` (over all rows and labels
        together), ``macro_f1`` (every label counts alike, without those that no row has and none was given),
        ``num_rows``, and ``per_class``: ``precision``, ``recall``, ``f1`` and ``support`` by name. What would
        divide by zero is 0.

    Raises:
        UserError: There is no row.
    """
    if not len(truth):
        raise UserError("there is no prediction to score")
    hits, given, real = (each.sum(axis=0) for each in (truth & predicted, predicted, truth))
    f1 = _ratio(2 * hits, given + real)
    occurs = (given + real) > 0
    precision, recall = _ratio(hits, given), _ratio(hits, real)
    return {
        "subset_accuracy": float((truth == predicted).all(axis=1).mean()),
        "micro_f1": float(_ratio(2 * hits.sum(), given.sum() + real.sum())),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "num_rows": len(truth),
        "per_class": _per_class(names, precision, recall, f1, real),
    }


def trivial_multilabel(
    train: NDArray[np.bool_], dev: NDArray[np.bool_], threshold: float
) -> dict[str, float]:
    """Score a classifier that never reads a text, as validation names its figures.

    It gives every label its share of the training rows as probability, by Laplace's rule: each answer, yes and
    no, counts one row more than it has.

    Both tables have shape (rows, labels); from ``threshold`` on a probability gives a row a label.

    Returns:
        ``eval_subset_accuracy``, ``eval_micro_f1``, ``eval_macro_f1`` and ``eval_loss`` (mean binary cross
        entropy of an answer, in nats).

    Raises:
        UserError: There is no validation row.
    """
    shares = (train.sum(axis=0) + 1) / (len(train) + 2)
    predicted = np.broadcast_to(shares >= threshold, dev.shape)
    report = multilabel_report(dev, predicted, [str(place) for place in range(dev.shape[1])])
    return {
        **{f"eval_{name}": report[name] for name in ("subset_accuracy", "micro_f1", "macro_f1")},
        "eval_loss": float(-np.log(np.where(dev, shares, 1 - shares)).mean()),
    }


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a quotient that is 0 where it would divide by zero."""
    quotient: NDArray[np.float64] = above / np.maximum(below, 1)
    return quotient


def _per_class(
    names: Sequence[str] | Sequence[int],
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    f1: NDArray[np.float64],
    support: NDArray[np.int64],
) -> dict[str, dict[str, float]]:
    """Return the figures of every class by its name; all arrays have shape (classes,)."""
    figures = zip(precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    return {
        str(name): dict(zip(_FIGURES, values, strict=True))
        for name, values in zip(names, figures, strict=True)
    }
