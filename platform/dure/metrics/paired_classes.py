"""Comparing two models by the classes that they predict of the same rows: in shares that are no means over rows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dure.metrics.paired import Difference, Floats, permutation_test

Share = Literal["accuracy", "macro_f1", "weighted_f1"]


def paired_bootstrap(
    labels: Sequence[str],
    predictions_a: Sequence[str],
    predictions_b: Sequence[str],
    *,
    level: float = 0.95,
    num_draws: int = 2000,
    seed: int = 42,
) -> dict[Share, Difference]:
    """Compare two experiments by their predictions of the same rows, in every share.

    Rows are drawn with replacement, both experiments on the same draw, and the percentiles of the difference are its
    interval (Efron & Tibshirani 1993, chapter 13). It says how far the difference depends on which rows were tested,
    not on which were trained on. Rows of one true class and one pair of predictions are drawn together by a
    multinomial, which is the same and costs nothing per row. F1 over classes counts those that are in the rows or in a
    prediction.

    Raises:
        ValueError: The rows do not pair up, or there is none.
    """
    _check_pairs(labels, predictions_a, predictions_b)
    classes, codes = np.unique([*labels, *predictions_a, *predictions_b], return_inverse=True)
    columns = codes.reshape(3, len(labels))
    cells, counts = np.unique(columns, axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(labels), counts / len(labels), size=num_draws)
    # The rows as they are come first.
    weights = np.concatenate([counts[None], draws])
    first, second = (_shares(weights, cells[0], cells[place], len(classes)) for place in (1, 2))
    found = {}
    for share, scores in first.items():
        value, *drawn = scores - second[share]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        found[share] = Difference(float(value), float(low), float(high), level, None)
    return found


def mcnemar(labels: Sequence[str], predictions_a: Sequence[str], predictions_b: Sequence[str]) -> float:
    """Return the p-value of McNemar's exact test that two experiments are equally often right.

    Only rows count on which one is right and the other wrong: between equals each of them falls to either side like
    a coin (McNemar 1947; exact by the binomial distribution).

    Raises:
        ValueError: The rows do not pair up, or there is none.
    """
    _check_pairs(labels, predictions_a, predictions_b)
    hits_a, hits_b = (np.asarray(labels) == np.asarray(made) for made in (predictions_a, predictions_b))
    return permutation_test(hits_a.astype(np.float64) - hits_b)


def _check_pairs(labels: Sequence[str], predictions_a: Sequence[str], predictions_b: Sequence[str]) -> None:
    if not len(labels) or not len(labels) == len(predictions_a) == len(predictions_b):
        sizes = f"{len(labels)} labels, {len(predictions_a)} and {len(predictions_b)} predictions"
        raise ValueError(f"{sizes} are not of the same rows")


def _shares(
    weights: NDArray[np.int64], labels: NDArray[np.int64], predictions: NDArray[np.int64], num_classes: int
) -> Mapping[Share, Floats]:
    """Return the scores by draw; ``weights`` has shape (draws, cells), a cell's rows are alike."""
    is_label = (labels[:, None] == np.arange(num_classes)).astype(np.float64)
    is_prediction = (predictions[:, None] == np.arange(num_classes)).astype(np.float64)
    hits, true, given = (weights @ each for each in (is_label * is_prediction, is_label, is_prediction))
    f1 = 2 * hits / np.maximum(true + given, 1)
    return {
        "accuracy": hits.sum(axis=1) / true.sum(axis=1),
        "macro_f1": f1.sum(axis=1) / ((true + given) > 0).sum(axis=1),
        "weighted_f1": (f1 * true).sum(axis=1) / true.sum(axis=1),
    }
