"""How well targets are met: emotions as classes, the other values as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.metrics.classification import CLASS_METRICS, class_figures, classification_report
from dure.metrics.metric import Direction, Metric
from dure.metrics.numbers import number_report
from trainables.red_heart.tasks import TASKS, task_slices

Floats = NDArray[np.floating[Any]]

EMOTION_FIGURES = ("accuracy", "macro_f1", "weighted_f1")
_CORRELATIONS = ("pearson", "spearman")
NUMBER_FIGURES: dict[str, Direction] = {"mae": "min"} | dict.fromkeys(_CORRELATIONS, "max")

FIGURES = (
    *(f"emotion_{figure}" for figure in EMOTION_FIGURES),
    *(f"{task}_{figure}" for task in TASKS if task != "emotion" for figure in NUMBER_FIGURES),
)
"""What :func:`scores_of` gives, beside the figures of single classes and values."""

METRICS = (
    *(Metric(f"eval_emotion_{figure}", "max", "share") for figure in EMOTION_FIGURES),
    *(
        Metric(f"eval_{task}_{figure}", direction)
        for task in TASKS
        if task != "emotion"
        for figure, direction in NUMBER_FIGURES.items()
    ),
    *CLASS_METRICS,
    Metric("eval_mae[class]", "min"),
)
"""The same as validation names them, with the figures of single classes and values."""


def scores_of(logits: Floats, targets: Floats, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Score predictions against targets, by the rows that have them.

    A row counts for the emotions when one of them has more than every other; what is predicted is the likeliest.
    ``mae`` is the mean over all numbers, ``pearson`` and ``spearman`` are means over the names: each compares the
    rows that have the value, and is 0 when predictions or targets do not vary, since then nothing is told apart.
    A task without targets has no figures.

    Args:
        logits: Raw predictions, shape (rows, values of all tasks).
        targets: Of the same shape, NaN where one is missing.
        names: Task to the names of its values, in the order of the tasks.

    Returns:
        Figures by name: those of :data:`FIGURES`, and ``mae[intensity]`` or ``f1[joy]`` of single ones.
    """
    import torch

    from trainables.red_heart.model import predicted_values

    sizes = {task: len(names[task]) for task in TASKS}
    values = {
        task: tensor.numpy() for task, tensor in predicted_values(torch.as_tensor(logits), sizes).items()
    }
    truth = {task: targets[:, place] for task, place in task_slices(sizes).items()}
    figures = _emotion_scores(values["emotion"], truth["emotion"], names["emotion"])
    for task in TASKS:
        if task != "emotion":
            figures |= _number_scores(task, values[task], truth[task], names[task])
    return figures


def _emotion_scores(values: Floats, truth: Floats, names: Sequence[str]) -> dict[str, float]:
    most = truth.max(axis=1)
    rows = np.flatnonzero((truth == most[:, None]).sum(axis=1) == 1)
    if not len(rows):
        return {}
    report = classification_report(
        [names[place] for place in truth[rows].argmax(axis=1)],
        [names[place] for place in values[rows].argmax(axis=1)],
    )
    overall = {f"emotion_{figure}": float(report[figure]) for figure in EMOTION_FIGURES}
    return overall | class_figures(report, names)


def _number_scores(task: str, values: Floats, truth: Floats, names: Sequence[str]) -> dict[str, float]:
    is_real = ~np.isnan(truth)
    if not is_real.any():
        return {}
    errors = np.abs(values - truth)
    reports = [
        number_report(truth[rows, place], values[rows, place])
        for place, rows in enumerate(is_real.T)
        if rows.any()
    ]
    single = {
        f"mae[{name}]": float(errors[rows, place].mean())
        for place, (name, rows) in enumerate(zip(names, is_real.T, strict=True))
        if rows.any() and len(names) > 1
    }
    return {
        f"{task}_mae": float(errors[is_real].mean()),
        **{f"{task}_{name}": float(np.mean([each[name] for each in reports])) for name in _CORRELATIONS},
        **single,
    }


def trivial_logits(targets: Floats, sizes: Mapping[str, int]) -> Floats:
    """Return the raw predictions of what never reads a text, shape (values of all tasks,).

    The mean share of every emotion, by Laplace's rule as if one row more had each; the means of Bentham values and
    of SURD parts; the median of regret, which misses it by the least. What no row has is left in the middle.

    Args:
        targets: Training targets, shape (rows, values of all tasks); NaN where one is missing.
        sizes: Values of each task.
    """
    truth = {task: targets[:, place].astype(np.float64) for task, place in task_slices(sizes).items()}
    felt = truth["emotion"][~np.isnan(truth["emotion"][:, 0])]
    shares = (felt.sum(axis=0) + 1) / (len(felt) + sizes["emotion"])
    odds = np.clip(_means(truth["bentham"], 0.5), 1e-4, 1 - 1e-4)
    regrets = truth["regret"][~np.isnan(truth["regret"])]
    parts = np.clip(_means(truth["surd"], 1 / sizes["surd"]), 1e-4, None)
    return np.concatenate(
        [
            np.log(shares),
            np.log(odds / (1 - odds)),
            [np.median(regrets) if len(regrets) else 0.0],
            np.log(parts),
        ]
    )


def _means(values: Floats, otherwise: float) -> Floats:
    """Return the mean of every column over what is real in it."""
    is_real = ~np.isnan(values)
    counts = is_real.sum(axis=0)
    sums = np.where(is_real, values, 0.0).sum(axis=0)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)
    return means
