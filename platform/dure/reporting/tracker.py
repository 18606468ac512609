"""The contract of a tracker: what takes a run's numbers to where people look at them, and can never stop a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

from dure.config.schema import Experiment
from dure.errors import UserError, one_line
from dure.events import Notify, RunListener, RunProgress, RunStart, silent
from dure.metrics.metric import UNTRAINED
from dure.runs.folder import RunResult
from dure.secrets import HIDDEN

LONGEST_REASON = 160
"""Letters of an error that are told of a tracker."""


class Tracker(RunListener):
    """Base of all trackers; a new one is a file ``NAME_tracker.py`` with a subclass, and its name in the schema.

    A run calls :meth:`open` once in the process that trains, :meth:`log` for every record, and :meth:`close` once,
    also after a failure. One object serves one run and knows of no other, so that runs may go side by side. Whatever
    a method raises is reported once; :meth:`broken` is called, and from then on the tracker is silent. It pickles before
    it is opened. What it tells names no run, so that a study of many runs can show each line once.
    """

    label: ClassVar[str]
    """What it is called in messages."""

    def __init__(self) -> None:
        self.notify: Notify = silent
        self._is_open = False

    @abstractmethod
    def open(self, start: RunStart, notify: Notify) -> bool:
        """Begin to track; returns False where there is nothing to track to.

        With ``start.resumed_step`` a run goes on: what was logged of later steps comes again, and must not stand twice.
        """

    @abstractmethod
    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Take numbers named ``train/…`` or ``eval/…``; the untrained model's are those of step 0."""

    @abstractmethod
    def close(self, result: RunResult) -> None:
        """Take the result, see :func:`summary_of`, and let go of everything."""

    def broken(self) -> None:
        """Let go of everything, after something failed; must raise nothing."""

    def started(self, start: RunStart, notify: Notify) -> None:
        """Open the tracker."""
        self.notify = notify

        def open_it() -> None:
            self._is_open = self.open(start, notify)

        self._guarded(open_it)

    def progressed(self, progress: RunProgress) -> None:
        """Log the numbers under ``train/…`` or ``eval/…``."""
        if self._is_open:
            values = {
                f"{progress.kind}/{key.removeprefix('eval_').removeprefix(UNTRAINED)}": value
                for key, value in progress.metrics.items()
            }
            self._guarded(lambda: self.log(progress.step, progress.epoch, values))

    def finished(self, result: RunResult) -> None:
        """Close the tracker, when it is open."""
        if self._is_open:
            self._is_open = False
            self._guarded(lambda: self.close(result))

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do one step; when anything in it fails, report it and fall silent."""
        try:
            step()
        except Exception as error:
            self._is_open = False
            self.broken()
            self.notify(
                f"{self.label} failed and is off from here, the run goes on: {one_line(error)[:LONGEST_REASON]}"
            )


def summary_of(result: RunResult) -> dict[str, float | int | str]:
    """Return a result as trackers keep it: ``result/…`` by name, with state, seconds and error."""
    return {
        **{f"result/{key}": value for key, value in result.metrics.items()},
        "result/state": result.state,
        "result/seconds": result.seconds,
        **({} if result.error is None else {"result/error": result.error}),
    }


def trackers_for(experiment: Experiment) -> tuple[RunListener, ...]:
    """Return the listeners that track an experiment, in the order of ``tracking``.

    The tracker called X there is made by the function ``tracker`` of ``dure/reporting/X_tracker.py``, and X is the
    package that it needs.
    """
    modules = [import_module(f"dure.reporting.{name}_tracker") for name in experiment.trackers]
    return tuple(module.tracker(experiment) for module in modules)


def check_trackers(experiment: Experiment) -> None:
    """Check that the packages of the trackers are installed, and that a server's address is whole.

    Where only ``wandb.enabled`` asks for W&B its package may be missing: the run says so, as it says everything that
    fails in a tracker.

    Raises:
        UserError: One is not, or the address is of a record, which keeps no password.
    """
    uri = experiment.mlflow.uri
    if "mlflow" in experiment.tracking and uri is not None and HIDDEN in uri:
        raise UserError(
            "this address is from a record, which keeps no password",
            where=f"mlflow.uri={uri}",
            hint="mlflow.uri=URL once more, with the password; or mlflow.uri=null and MLFLOW_TRACKING_URI",
        )
    for name in experiment.tracking:
        if find_spec(name) is None:
            raise UserError(
                f"the package '{name}' is not installed",
                where=f"tracking: {name}",
                expected="a tracker whose package is there",
                hint=f"pip install 'dure[{name}]', or leave it out of tracking",
            )
