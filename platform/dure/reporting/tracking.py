"""The trackers of an experiment."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import RunListener


def trackers_for(experiment: Experiment) -> tuple[RunListener, ...]:
    """Return the listeners that track an experiment, in the order of ``tracking``.

    The tracker called X there is made by the function ``tracker`` of ``dure/reporting/X_tracker.py``, and X is the
    package that it needs.
    """
    modules = [import_module(f"dure.reporting.{name}_tracker") for name in experiment.trackers]
    return tuple(module.tracker(experiment) for module in modules)


def check_trackers(experiment: Experiment) -> None:
    """Check that the packages of the trackers are installed.

    Where only ``wandb.enabled`` asks for W&B its package may be missing: the run says so, as it says everything that
    fails in a tracker.

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
