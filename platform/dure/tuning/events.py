"""What a study tells while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TrialState = Literal["pending", "running", "completed", "stopped", "diverged", "failed", "interrupted"]
SETTLED: tuple[TrialState, ...] = ("completed", "stopped", "diverged")
"""States after which a trial is not run again."""


@dataclass(frozen=True)
class TrialStatus:
    """One trial of a study as it stands now.

    Attributes:
        name: Name of the trial, unique in the study.
        state: What it is doing.
        path: Folder of its run.
        step: Optimiser steps taken.
        total_steps: Optimiser steps in all; 0 while unknown.
        epoch: Passes over the training rows.
        seconds: Wall time of the run.
        metrics: Latest value of every metric.
        error: What went wrong, in one line.
        stage: Which of its stages it is in, for people; empty when it has none.
        restored: Whether it was finished before this session and is only shown.
    """

    name: str
    state: TrialState
    path: Path
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    seconds: float = 0.0
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    error: str | None = None
    stage: str = ""
    restored: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until it ends, from the steps so far; None while there is nothing to go by."""
        if self.state != "running" or not self.step or not self.total_steps:
            return None
        return self.seconds / self.step * max(0, self.total_steps - self.step)


class StudyListener:
    """Base of everything that listens to a study, in the driver; every method does nothing until overridden."""

    def started(self, name: str, path: Path, trials: Sequence[TrialStatus]) -> None:
        """The study is about to run these trials; ``path`` is its folder."""

    def changed(self, trial: TrialStatus) -> None:
        """A trial changed its state or has new numbers."""

    def told(self, message: str) -> None:
        """There is one line that the user should see."""

    def finished(self, summary: Mapping[str, Any]) -> None:
        """The study is over; ``summary`` is what ``experiment_summary.json`` holds."""
