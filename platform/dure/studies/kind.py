"""The contract of a kind of study: what :mod:`dure.studies.life_cycle` asks of it, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from dure.config.schema import Experiment, Profile
from dure.events import RunListener, StudyListener
from dure.metrics.targets import Reached
from dure.reporting.columns import apart
from dure.reporting.forecasts import beside_table
from dure.reporting.targets import target_sentence
from dure.studies.plan import StudyPlan
from dure.studies.results import StudyResults
from dure.studies.viewing import View

if TYPE_CHECKING:
    from dure.preflight.before import Files
    from dure.studies.strategy import Strategy

Plan = TypeVar("Plan", bound=StudyPlan)
Results = TypeVar("Results", bound=StudyResults)
Shape = Callable[[Experiment], Experiment]
"""What the common options make of an experiment, such as its rehearsal."""


@dataclass(frozen=True)
class Session:
    """Where and how a study runs this time."""

    profile: Profile
    """The machine of every trial."""
    path: Path
    """Folder of the study, absolute."""
    resume: bool = False
    """Whether the folder holds what is to be continued."""
    back_to: Path | None = None
    """A checkpoint of the folder to go back to, for kinds that can."""
    address: str | None = None
    """Ray cluster to join."""
    follower: StudyListener = field(default_factory=StudyListener)
    """Listens to the study, here in the driver."""
    run_follower: RunListener = field(default_factory=RunListener)
    """Listens to a run that is no trial."""
    words: tuple[str, ...] = ()
    """The common options that decide results, as a command has them."""


class Kind(ABC, Generic[Plan, Results]):
    """One study on its way from its plan to its results.

    Made when the plan is resolved and the experiments are loaded. Then, in this order: :meth:`shown` for a dry run,
    :meth:`checked` and :meth:`read` before anything starts, :meth:`stored` when a folder is continued and once more
    before :meth:`begin` and :meth:`run`, each called once; the folder is claimed by then. :meth:`table`
    and :meth:`view` are asked of results, also of those that were read from a folder.

    Raises:
        UserError: The experiments cannot be run in one study.
    """

    results: ClassVar[type[StudyResults]]
    """The record that the study leaves."""
    view: ClassVar[type[View[Any]]] = View
    """What shows the results on the study's page; here all its trials."""
    results_file: ClassVar[str]
    """Its file in the study's folder."""
    text_file: ClassVar[str | None] = None
    """File that gets the table of the results as text."""
    pid_file: ClassVar[str | None] = None
    """File that names the process of a background job, where scripts expect one."""
    runs_what_it_can: ClassVar[bool] = False
    """Whether an experiment whose rows are wrong stops nobody else."""

    def __init__(self, study: Plan, experiments: Sequence[Experiment], shape: Shape) -> None:
        self.study = study
        self.experiments = tuple(experiments)
        self.shape = shape
        self.shaped = tuple(map(shape, experiments))

    @classmethod
    def is_completed(cls, path: Path) -> bool:
        """Return whether a folder holds the results of such a study, and all of it completed."""
        file = path / cls.results_file
        return file.is_file() and cls.results.read(file).state == "completed"

    def shown(self) -> Sequence[Experiment]:
        """Return the experiments that a dry run prints."""
        return self.shaped

    def read(self) -> Sequence[Experiment]:
        """Return experiments that stand for all trials: their rows are read, and their size is forecast."""
        return self.shown()

    @property
    def num_copies(self) -> int:
        """Runs of each of :meth:`read` whose files lie on the disk at the end."""
        return 1

    def files(self, path: Path | None) -> Sequence[Files]:
        """Return what will be written; of a folder that is continued, by which is told what is written already."""
        from dure.preflight.before import Files

        return [Files(self.read(), self.num_copies, path)]

    def checked(self) -> Sequence[Experiment]:
        """Return experiments whose settings are checked, metric and sources above all; cheap."""
        return self.read()

    def stored(self) -> Mapping[str, Experiment]:
        """Return what is kept as ``experiment.yaml``, by folder within the study's; it cannot change later."""
        return {}

    def watched(self) -> Sequence[str]:
        """Return the metrics that the console shows."""
        return [self.experiments[0].training.best_metric]

    def begin(self, session: Session) -> None:
        """Set a folder in order that is continued; its ``study.yaml`` is still that of the session before.

        Raises:
            UserError: The folder cannot be continued so.
        """

    @abstractmethod
    def run(self, session: Session) -> Results:
        """Run the study, or what is left of it; what is finished in the folder is not done again.

        Raises:
            UserError: An experiment, its data or the cluster is wrong.
            RunError: Ray does not start, or a step failed.
        """

    @staticmethod
    @abstractmethod
    def table(results: Results) -> RenderableType:
        """Return the results for people, also of a study that still runs."""

    @classmethod
    def winner(cls, results: Results) -> tuple[str, Mapping[str, Any]] | None:
        """Return what targets are compared with, its name and its figures: here the trial that the record calls best.

        A kind whose results are means says which. None while there is no winner.
        """
        best = getattr(results, "best", None)
        named = (each for each in results.trial_records if each.name == best)
        return next(((trial.name, trial.metrics) for trial in named), None)

    @classmethod
    def runs_of(cls, results: Results) -> Sequence[Mapping[str, Any]]:
        """Return the records of the runs that say what was forecast of each and what came; here the trials."""
        return results.as_json().get(results.trials_key) or ()

    def reached(self, results: Results) -> tuple[Reached, ...]:
        """Return the targets of the winner's experiment, beside what it has; those of all where it has none."""
        from dure.family import load_family

        name, figures = self.winner(results) or ("", {})
        of = [each for each in self.shaped if each.name == name and each.targets] or self.shaped
        targets = {each.metric.name: each for one in of for each in load_family(one).targets}
        return tuple(target.reached(figures, name) for target in targets.values())

    @classmethod
    def report(cls, results: Results) -> RenderableType:
        """Return all that a terminal and a text file show of the results."""
        targets = [Text(target_sentence(each)) for each in results.targets]
        foretold = beside_table(cls.runs_of(results))
        return apart(cls.table(results), foretold, Group(*targets) if targets else None)

    @staticmethod
    def next_commands(results: Results) -> Sequence[str]:
        """Return what a user might do with the results, as commands; here nothing."""
        return ()


class TrialKind(Kind[Plan, Results]):
    """A study that runs trials on Ray Tune, and may add to its record what only all of them together say."""

    @abstractmethod
    def strategy(self, session: Session) -> Strategy[Plan]:
        """Return which trials to run; called once, when the study runs."""

    def completed(self, results: Results, session: Session) -> Results:
        """Return the record with what is added when no trial runs any more; its files are written here."""
        return results

    def run(self, session: Session) -> Results:
        """Run the trials that are left."""
        from dure.reporting.tracker import trackers_for
        from dure.studies.adapter import run_study

        results: Results = run_study(
            self.strategy(session),
            profile=session.profile,
            path=session.path,
            follower=session.follower,
            listeners=trackers_for,
            address=session.address,
        )
        return self.completed(results, session)
