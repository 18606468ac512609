"""The metric that chooses the best checkpoint."""

from __future__ import annotations

from dure.config.schema import Experiment
from dure.errors import UserError, nearest
from dure.family import Family


def check_best_metric(experiment: Experiment, family: Family) -> None:
    """Check that the metric which chooses the best checkpoint is one that the family has.

    Raises:
        UserError: It is not.
    """
    known = ("eval_loss", *family.metric_names)
    name = experiment.training.best_metric
    if name not in known:
        raise UserError(
            f"'{name}' is no metric of {experiment.family}",
            where="training.best_metric",
            expected=f"one of {', '.join(known)}",
            hint=nearest(name, known),
        )
