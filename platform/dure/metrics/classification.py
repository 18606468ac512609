"""Accuracy and per-class precision, recall and F1 of predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import UserError


def classification_report(
    labels: Sequence[str] | Sequence[int], predictions: Sequence[str] | Sequence[int]
) -> dict[str, Any]:
    """Compare predicted classes with the true ones.

    Args:
        labels: The true class of every row.
        predictions: The predicted class of every row.

    Returns:
        ``accuracy``, ``macro_f1`` (every class counts alike, those only predicted too), ``weighted_f1``
        (by the rows of a class), ``num_rows``, and ``per_class``: ``precision``, ``recall``, ``f1`` and
        ``support`` by the class's name. What would divide by zero is 0.

    Raises:
        UserError: There is no row, or the two do not pair up.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    if len(labels) != len(predictions):
        raise UserError(f"{len(predictions)} predictions do not pair up with {len(labels)} labels")
    if not len(labels):
        raise UserError("there is no prediction to score")
    classes = sorted({*labels, *predictions})
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((f1 * support).sum() / support.sum()),
        "num_rows": len(labels),
        "per_class": {
            str(name): {
                "precision": float(precision[row]),
                "recall": float(recall[row]),
                "f1": float(f1[row]),
                "support": int(support[row]),
            }
            for row, name in enumerate(classes)
        },
    }


def trivial_classification(
    train: NDArray[np.int64], dev: NDArray[np.int64], num_classes: int
) -> dict[str, float]:
    """Score a classifier that never reads a text, as validation names its figures.

    It predicts the most frequent training class, the first of several, and gives every class its share of the
    training rows as probability, by Laplace's rule: each class counts one row more than it has, so that a class
    without training rows, as a small part of a table may leave one, costs much but not infinitely much.

    Args:
        train: Class id of every training row.
        dev: Class id of every validation row.
        num_classes: Number of classes; ids lie below it.

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
