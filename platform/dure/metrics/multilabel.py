"""F1 and subset accuracy of rows that have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import UserError


def multilabel_report(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], names: Sequence[str]
) -> dict[str, Any]:
    """Compare the labels that rows were given with those that they have.

    Args:
        truth: Which labels every row has: shape (rows, labels).
        predicted: Which it was given, in the same shape.
        names: Names of the labels.

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
        "per_class": {
            name: {
                "precision": float(precision[place]),
                "recall": float(recall[place]),
                "f1": float(f1[place]),
                "support": int(real[place]),
            }
            for place, name in enumerate(names)
        },
    }


def trivial_multilabel(
    train: NDArray[np.bool_], dev: NDArray[np.bool_], threshold: float
) -> dict[str, float]:
    """Score a classifier that never reads a text, as validation names its figures.

    It gives every label its share of the training rows as probability, by Laplace's rule: each answer, yes and
    no, counts one row more than it has.

    Args:
        train: Which labels every training row has: shape (rows, labels).
        dev: The same of the validation rows.
        threshold: Probability from which on a row is given a label.

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
