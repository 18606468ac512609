"""The contract of a strategy: which trials, in which order, on which budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from dure.config.schema import Experiment
from dure.events import RunListener, TrialStatus
from dure.runs.folder import RunResult, finite
from dure.studies.plan import StudyPlan

Plan = TypeVar("Plan", bound=StudyPlan)


@dataclass(frozen=True)
class TrialPlan:
    """One trial that a study wants."""

    name: str
    """Its name, which is also its folder."""
    experiment: Experiment | None = None
    """What it runs; None while that is not known, because a search algorithm proposes it."""
    folder: str | None = None
    """Its folder within the study's, when that is not its name."""

    def path_in(self, study: Path) -> Path:
        """Return its folder, given that of the study."""
        return study / (self.folder or self.name)


class Strategy(ABC, Generic[Plan]):
    """What a study is, apart from how it is run; the adapter does the running.

    The adapter calls :meth:`trials` and :meth:`mirrored` once before anything starts, :meth:`pending` once with what is
    left, :meth:`tune_settings` and :meth:`listeners` once when Ray runs, :meth:`ended` after every trial and at the start
    of what goes on, and :meth:`summary` whenever the summary is written: after every trial and at the end.

    A trial is known by ``config["trial"]``, its name. What it runs is the plan's experiment, or, for a trial
    that a search algorithm proposes, ``config["experiment"]``: the experiment as JSON. ``config["notice"]``, if
    there is one, is said to the user when the trial starts.
    """

    keeps_predictions: ClassVar[bool] = False
    """Whether every trial leaves the predictions of its test rows."""
    keeps_dev_losses: bool = False
    """Whether every trial leaves the loss of each of its validation rows."""
    mlflow_uri: str | None = None
    """Address of the experiment's MLflow server, whose password the config of a trial must not hold: Tune writes it down."""
    log_file: str = "study.log"
    """Where the driver's log is written, within the study's folder."""

    def __init__(self, study: Plan) -> None:
        self.study = study

    @abstractmethod
    def trials(self) -> Sequence[TrialPlan]:
        """Return the trials in their order; the same ones every time it is called."""

    def pending(self, unsettled: Sequence[str]) -> Sequence[str]:
        """Return the trials that run in this session, given those that are not settled."""
        return unsettled

    def longest_first(self, pending: Sequence[str]) -> Sequence[str]:
        """Return the order in which pending trials start where several run side by side, so that no core idles at the end.

        Called after :meth:`tune_settings`; records and tables keep the order of :meth:`trials`.
        """
        return pending

    def trainable(self) -> Callable[..., Mapping[str, Any] | None] | None:
        """Return what runs a trial in its process, if not :func:`dure.studies.trial.run_trial`: ``(config, requests)``.

        What it returns is reported to Tune when the trial's folder is complete, and what it raises is the trial's result.
        """
        return None

    def tune_settings(self, concurrent_trials: int) -> dict[str, Any]:
        """Return further arguments of ``tune.TuneConfig``, such as a scheduler.

        With a search algorithm (``search_alg``) that proposes the trials; Tune takes them in their order otherwise.

        Args:
            concurrent_trials: How many trials fit side by side.
        """
        return {"max_concurrent_trials": concurrent_trials}

    def mirrored(self, bring: Callable[[Path], None]) -> None:
        """Take what brings the folder of a trial from another machine, where folders are mirrored.

        Needed by what Tune calls before the board; all else finds what trials left.
        """

    def listeners(self) -> tuple[RunListener, ...]:
        """Return listeners that travel with every trial and are called before all others."""
        return ()

    def ended(self, trials: Sequence[TrialStatus]) -> None:
        """A trial ended, in this session or one before; the statuses are those of all trials."""

    def check(self) -> None:
        """Raise what went wrong in the search where Tune lets nothing through; called after every step of Tune.

        Raises:
            RunError: The search cannot go on.
        """

    def stage(self, config: Mapping[str, Any]) -> str:
        """Return which of its stages the trial of a config is in, for people."""
        return ""

    def reported(self, trial: TrialStatus, result: Mapping[str, Any]) -> list[str]:
        """Hear what a trial reported beside the records of its training, and return lines for the user."""
        return []

    def stopped(self, trial: TrialStatus) -> RunResult:
        """Return the result of a trial that left none, since it was stopped before its end."""
        return RunResult(trial.name, "stopped", metrics=finite(trial.metrics), seconds=trial.seconds)

    @abstractmethod
    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return what the study's record holds beside what it has of every study; cheap, since it is asked often."""
