"""Numbers as targets: what is told of a table of them, what is refused, and the trivial prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.metrics.numbers import Floats, number_report

METRICS = (Metric("eval_pearson", "max"), Metric("eval_spearman", "max"), Metric("eval_mse", "min"))
"""Figures of predicted numbers."""

_USUAL_SPREAD = (0.03, 30.0)
"""Standard deviations of targets that a head, which begins near 0, comes to at usual learning rates."""


def trivial_numbers(train: Floats, dev: Floats) -> dict[str, float]:
    """Score the mean of the training rows as the prediction of every row, as validation names the figures.

    Among constants it has the least squared error on the rows that it is of.
    """
    report = number_report(dev, np.full(len(dev), train.mean()))
    return {**{f"eval_{name}": value for name, value in report.items()}, "eval_loss": report["mse"]}


def told_of(cells: Sequence[str]) -> str:
    """Return what the user should know about the numbers of a training table, in one line.

    Raises:
        UserError: All are the same, so that there is nothing to learn.
    """
    values = np.array(cells, dtype=np.float64)
    if np.ptp(values) == 0:
        raise UserError(
            f"every row has the number {values[0]:g}",
            where="data.train, role 'label'",
            expected="at least two different numbers",
            hint="data.columns.label=COLUMN names the column to read",
        )
    spread = float(values.std())
    line = f"numbers from {values.min():g} to {values.max():g}, mean {values.mean():.4g}, standard deviation {spread:.3g}"
    if not _USUAL_SPREAD[0] <= spread <= _USUAL_SPREAD[1]:
        line += "; a head begins near 0 and learns numbers about 1 apart best: rescale the column"
    return line


def refuse_of_classes(experiment: Experiment) -> None:
    """Refuse the settings that only classes have.

    Raises:
        UserError: There is one.
    """
    objective = experiment.objective
    for name, value, usual in (
        ("label_smoothing", objective.label_smoothing, 0.0),
        ("class_weights", objective.class_weights, None),
    ):
        if value != usual:
            raise UserError(
                "task.target is number, and there are no classes",
                where=f"objective.{name}={value}",
                expected="null" if usual is None else f"{usual:g}",
            )
