"""The trackers of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import RunListener
from dure.reporting.mlflow_tracker import MlflowTracker
from dure.reporting.tensorboard_tracker import TensorBoardTracker
from dure.reporting.wandb_tracker import WandbTracker

_TRACKERS: dict[str, Callable[[Experiment], RunListener]] = {
    "wandb": lambda experiment: WandbTracker(experiment.wandb),
    "tensorboard": lambda experiment: TensorBoardTracker(),
    "mlflow": lambda experiment: MlflowTracker(experiment.mlflow),
}
"""By their names in ``tracking``, which are also those of the packages that they need."""


def trackers_for(experiment: Experiment) -> tuple[RunListener, ...]:
    """Return the listeners that track an experiment, in the order of ``tracking``."""
    return tuple(_TRACKERS[name](experiment) for name in experiment.trackers)


def check_trackers(experiment: Experiment) -> None:
    """Check that the packages of the trackers are installed.

    W&B's may be missing: the run says so, as it says everything that fails in a tracker.

    Raises:
        UserError: One is not.
    """
    for name in experiment.tracking:
        if find_spec(name) is None:
            raise UserError(
                f"the package '{name}' is not installed",
                where=f"tracking: {name}",
                expected="a tracker whose package is there",
                hint=f"pip install 'dure[{name}]', or leave it out of tracking",
            )
