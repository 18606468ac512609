"""What a run or study reports, and its listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from dure.runs.folder import RunResult

Notify = Callable[[str], None]
"""Passes one line on that the user should see."""


def silent(message: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class RunStart:
    """A run is about to train."""

    name: str
    """Name of the experiment."""
    path: Path
    """Folder of the run."""
    experiment: Mapping[str, Any]
    """The resolved experiment as plain data."""
    tags: tuple[str, ...]
    """Tags of the experiment."""
    group: str | None
    """Name of the study that the run belongs to, if any."""
    total_steps: int
    """Optimiser steps that it will take unless it stops early."""
    resumed_step: int = 0
    """Step it continues from; 0 for a fresh start."""


@dataclass(frozen=True)
class RunProgress:
    """Numbers of a run at one step."""

    kind: Literal["train", "eval"]
    """``train`` for the running loss and rate, ``eval`` for a validation."""
    step: int
    """Optimiser steps taken."""
    total_steps: int
    """Optimiser steps in all."""
    epoch: float
    """Passes over the training rows, with fraction."""
    seconds: float
    """Wall time of the run so far, over all resumptions."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The numbers, such as ``loss``, ``learning_rate``, ``eval_rouge1``."""


@dataclass(frozen=True)
class RunSaved:
    """A checkpoint is whole and has its name."""

    checkpoint: Path


@dataclass(frozen=True)
class Notice:
    """One line that the user should see."""

    message: str


class RunListener:
    """Base of everything that listens to a run; every method does nothing until overridden.

    A listener of a :class:`dure.training.run.RunRequest` is called in the process that trains, on its main worker only
    unless ``on_every_worker``; it must be picklable before :meth:`started`, since it travels there. A follower is
    called in the driver, by what stands in the run's stream. Both are called, in this order: :meth:`started` once for every
    start, :meth:`progressed` and :meth:`saved` any number of times, :meth:`notified` at any time, :meth:`finished`
    once, also after a failure.
    """

    on_every_worker: ClassVar[bool] = False
    """Whether the workers beside the main one call it too."""

    def started(self, start: RunStart, notify: Notify) -> None:
        """Training is about to begin; ``notify`` passes a line for the user on to everyone who listens."""

    def epochs_to_keep(self) -> set[int]:
        """Return the epochs whose weights are still needed, when some are to be removed; not asked of followers."""
        return set()

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint is whole and has its name."""

    def progressed(self, progress: RunProgress) -> None:
        """There are new numbers."""

    def notified(self, message: str) -> None:
        """There is one line that the user should see."""

    def finished(self, result: RunResult) -> None:
        """The run is over: completed, stopped early or failed."""


TrialState = Literal["pending", "running", "completed", "stopped", "diverged", "failed", "interrupted"]
SETTLED: tuple[TrialState, ...] = ("completed", "stopped", "diverged")
"""States after which a trial is not run again."""


@dataclass(frozen=True)
class TrialStatus:
    """One trial of a study as it stands now."""

    name: str
    """Name of the trial, unique in the study."""
    state: TrialState
    """What it is doing."""
    path: Path
    """Folder of its run."""
    step: int = 0
    """Optimiser steps taken."""
    total_steps: int = 0
    """Optimiser steps in all; 0 while unknown."""
    epoch: float = 0.0
    """Passes over the training rows."""
    seconds: float = 0.0
    """Wall time of the run."""
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    """Latest value of every metric."""
    error: str | None = None
    """What went wrong, in one line."""
    stage: str = ""
    """Which of its stages it is in, for people; empty when it has none."""
    forecast: Mapping[str, Any] | None = None
    """What was forecast of memory, time and cost; None before the end, and where nothing was."""
    restored: bool = False
    """Whether it was finished before this session and is only shown."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until it ends, from the steps so far; None while there is nothing to go by."""
        if self.state != "running" or not self.step or not self.total_steps:
            return None
        return self.seconds / self.step * max(0, self.total_steps - self.step)


@dataclass(frozen=True)
class StudyStart:
    """A study is about to run its trials."""

    name: str
    trials: tuple[str, ...]


@dataclass(frozen=True)
class StudyEnd:
    """A study is over.

    Its ``state`` is ``completed``, ``failed`` or ``interrupted``, as its summary says; ``seconds`` are the wall time of
    this session.
    """

    name: str
    state: str
    seconds: float


class StudyListener:
    """Base of everything that follows a study, in the driver; every method does nothing until overridden."""

    def started(self, name: str, path: Path, trials: Sequence[TrialStatus]) -> None:
        """The study is about to run these trials; ``path`` is its folder."""

    def changed(self, trial: TrialStatus) -> None:
        """A trial changed its state or has new numbers."""

    def notified(self, message: str) -> None:
        """There is one line that the user should see."""

    def finished(self, summary: Mapping[str, Any]) -> None:
        """The study is over; ``summary`` is what ``experiment_summary.json`` holds."""


Event = RunStart | RunProgress | RunSaved | Notice | RunResult | StudyStart | TrialStatus | StudyEnd
"""What a line of a stream can say."""
